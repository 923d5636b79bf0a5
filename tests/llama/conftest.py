"""Vocabularies without a model."""

from collections.abc import Callable, Iterator
from pathlib import Path

import llama_cpp.llama_cpp as native
import pytest
from fakes.hub_tokenizers import GgufVocabulary, make_tokenizer
from fakes.vocab_files import load_vocab_only, quiet_native_log

from tgi_llama.llama.vocab import Vocab
from tgi_llama.text.hub_tokenizer import HubTokenizer

PHI_3_TEXT = {"<unk>", "<s>", "<|endoftext|>"}
VOCAB_FOLDER = Path(__file__).parents[3] / "shared" / "data" / "vocab"
NAMES = ("deepseek-coder", "gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2")


def vectors(name: str) -> list[tuple[str, list[int]]]:
    """Texts and the ids they must give."""
    base = VOCAB_FOLDER / f"ggml-vocab-{name}.gguf"
    texts = Path(f"{base}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    lines = Path(f"{base}.out").read_text().split("\n")
    return [(text, [int(i) for i in line.split()]) for text, line in zip(texts, lines, strict=True)]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def vocab(name: str, open_vocab: Callable[[str], Vocab]) -> Vocab:
    return open_vocab(name)


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


@pytest.fixture(scope="session")
def open_hub(open_vocab: Callable[[str], Vocab]) -> Callable[[str], HubTokenizer]:
    """The same vocabularies as a ``tokenizer.json``, made as the models' makers make them."""
    opened: dict[str, HubTokenizer] = {}

    def open_one(name: str) -> HubTokenizer:
        vocab = open_vocab(name)
        if name not in opened:
            path = VOCAB_FOLDER / f"ggml-vocab-{name}.gguf"
            controls = vocab.spellings.texts
            opened[name] = HubTokenizer(
                make_tokenizer(
                    GgufVocabulary.read(path, adds_bos=name not in ("gpt-2", "qwen2")),
                    # Phi-3's tokenizer.json has it so; the GGUF does not say it.
                    swallows_space=[*controls - PHI_3_TEXT] if name == "phi-3" else (),
                ),
                n_vocab=vocab.n_vocab,
                control_spellings=controls,
            )
        return opened[name]

    return open_one
