"""Compilers for the built-in model's vocabulary and for those of the shared data."""

from collections.abc import Callable, Iterator
from pathlib import Path

import llama_cpp.llama_cpp as native
import pytest
from fakes.grammars import Bench
from fakes.vocab_files import load_vocab_only, quiet_native_log

import tgi_llama.builtin
from tgi_llama.llama.grammar_vocab import read_grammar_vocabulary
from tgi_llama.llama.vocab import Vocab
from tgi_llama.structured.limits import GrammarLimits
from tgi_llama.structured.trial import Trial

BUILTIN = Path(tgi_llama.builtin.__file__).parent / "model" / "model.gguf"
FOLDER = Path(__file__).parents[3] / "shared" / "data" / "vocab"


@pytest.fixture(scope="session")
def trial() -> Iterator[Trial]:
    with Trial(GrammarLimits()) as trial:
        yield trial


@pytest.fixture(scope="session")
def open_bench(trial: Trial) -> Iterator[Callable[[str], Bench]]:
    """Opens a vocabulary by name, ``builtin`` or of the shared data; skips where it is absent."""
    models: list[native.llama_model_p] = []
    benches: dict[str, Bench] = {}

    def open_one(name: str) -> Bench:
        path = BUILTIN if name == "builtin" else FOLDER / f"ggml-vocab-{name}.gguf"
        if not path.exists():
            pytest.skip(f"the shared data has no {path.name}")
        if name not in benches:
            model = load_vocab_only(path)
            models.append(model)
            handle = native.llama_model_get_vocab(model)
            assert handle is not None
            vocab = Vocab(handle)
            benches[name] = Bench(vocab, read_grammar_vocabulary(vocab), trial)
        return benches[name]

    yield open_one
    with quiet_native_log():
        for model in models:
            native.llama_model_free(model)


@pytest.fixture
def bench(open_bench: Callable[[str], Bench]) -> Bench:
    return open_bench("builtin")
