"""The GGUF's vocabulary by llama.cpp and the same one as a ``tokenizer.json`` by ``tokenizers``."""

import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.hub_tokenizers import GgufVocabulary, make_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers, pre_tokenizers

from tgi_llama.llama.vocab import Vocab
from tgi_llama.text.detokenizer import Detokenizer
from tgi_llama.text.hub_tokenizer import HubTokenizer
from tgi_llama.text.tokenizer_choice import GgufRules, first_difference, load_tokenizer

from .conftest import NAMES, VOCAB_FOLDER, vectors

OpenVocab = Callable[[str], Vocab]
OpenHub = Callable[[str], HubTokenizer]

SPM = ("llama-spm", "phi-3")
LATIN = [chr(one) for one in range(0x20, 0x100)]
HARD = ["\u0301", "\u00e9", "e\u0301", "\u200d", "\ufe0f", "\U0001f999", "\u4e2d", "\u0928\u092e"]


# Without control tokens


def test_tokenizer_json_gives_the_ids_of_the_test_vectors(name: str, open_hub: OpenHub) -> None:
    hub = open_hub(name)
    for text, ids in vectors(name):
        assert hub.encode(text, add_special=False) == ids, text


def test_what_the_library_decodes_is_the_text_and_what_the_server_decodes(
    name: str, open_hub: OpenHub, open_vocab: OpenVocab
) -> None:
    native, vocab = open_hub(name)._tokenizer, open_vocab(name)
    for text, ids in vectors(name):
        assert native.decode(ids, skip_special_tokens=False) == text
        detokenizer = Detokenizer(vocab)
        ours = "".join(map(detokenizer.step, ids))  # type: ignore[arg-type]  # ids of a file
        # SentencePiece puts a space before a text; the server leaves it to its first word.
        assert ours in ((text, " " + text) if name in SPM else (text,))


def test_offsets_of_both_are_the_same(name: str, open_hub: OpenHub, open_vocab: OpenVocab) -> None:
    """But for the space that SentencePiece puts before a text: the library has it at the first
    character, the server nowhere."""
    hub, vocab = open_hub(name), open_vocab(name)
    for text, _ in vectors(name):
        ours = hub.encode_with_offsets(text, add_special=True)
        models = vocab.encode_with_offsets(text, add_special=True)
        n_in_front = len(hub.added.before)
        if name in SPM and models[n_in_front:] and models[n_in_front].stop == 0:
            del ours[n_in_front], models[n_in_front]
        assert ours == models, text


def test_check_at_start_passes(name: str, open_hub: OpenHub, open_vocab: OpenVocab) -> None:
    assert first_difference(open_hub(name), open_vocab(name)) is None
    for text in ("Hello", ""):
        ids = open_hub(name).encode(text, add_special=True)
        assert ids == open_vocab(name).encode(text, add_special=True)


@pytest.mark.parametrize("scheme", ["first", "always", "never"])
def test_newer_file_of_sentencepiece_belongs_to_its_model(
    scheme: str, tmp_path: Path, open_vocab: OpenVocab
) -> None:
    """Made here, from no model's own file: a space before a text that does not begin with one, or
    before none."""
    read = GgufVocabulary.read(VOCAB_FOLDER / "ggml-vocab-llama-spm.gguf", adds_bos=True)
    native = make_tokenizer(read)
    native.normalizer = normalizers.Sequence([])
    native.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    native.save(str(tmp_path / "tokenizer.json"))
    vocab = open_vocab("llama-spm")
    said = GgufRules(path=Path("model.gguf"), add_bos=True, add_eos=False, words_are_guessed=False)
    tokenizer = load_tokenizer(tmp_path, vocab, said)
    assert isinstance(tokenizer, HubTokenizer)
    spaced = vocab.encode("Hello", add_special=True)
    assert tokenizer.encode(" Hello", add_special=True) == spaced
    assert (tokenizer.encode("Hello", add_special=True) == spaced) is (scheme != "never")


@settings(max_examples=200, deadline=None)  # the first ones load
@given(parts=st.lists(st.sampled_from([*"abAB 019.,'\n\t<|>[]/_", *LATIN, *HARD])))
def test_random_texts_have_the_same_ids(
    parts: list[str], open_hub: OpenHub, open_vocab: OpenVocab
) -> None:
    for name in NAMES:
        text = composed(name, "".join(parts))
        ours = open_hub(name).encode(text, add_special=True)
        assert ours == open_vocab(name).encode(text, add_special=True), name


def composed(name: str, text: str) -> str:
    """llama.cpp does not compose characters, and Qwen's tokenizer.json does."""
    return unicodedata.normalize("NFC", text) if name == "qwen2" else text
