"""Vocabularies without a model."""

from collections.abc import Callable, Iterator
from pathlib import Path

import llama_cpp.llama_cpp as native
import pytest
from fakes.vocab_files import load_vocab_only, quiet_native_log

from tgi_llama.llama.vocab import Vocab

VOCAB_FOLDER = Path(__file__).parents[3] / "shared" / "data" / "vocab"


@pytest.fixture(scope="session")
def open_vocab() -> Iterator[Callable[[str], Vocab]]:
    """Opens ``ggml-vocab-NAME.gguf`` of the shared data; skips the test where it is absent."""
    opened: dict[str, tuple[native.llama_model_p, Vocab]] = {}

    def open_one(name: str) -> Vocab:
        path = VOCAB_FOLDER / f"ggml-vocab-{name}.gguf"
        if not path.exists():
            pytest.skip(f"the shared data has no {path.name}")
        if name not in opened:
            model = load_vocab_only(path)
            handle = native.llama_model_get_vocab(model)
            assert handle is not None
            opened[name] = model, Vocab(handle)
        return opened[name][1]

    yield open_one
    with quiet_native_log():
        for model, _ in opened.values():
            native.llama_model_free(model)
