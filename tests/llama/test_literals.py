"""Spellings of control tokens as ordinary text, by llama.cpp and by ``tokenizers``."""

from collections.abc import Callable, Sequence

import llama_cpp.llama_cpp as native
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgi_llama.generation import TokenId
from tgi_llama.llama.vocab import Vocab
from tgi_llama.text.hub_tokenizer import HubTokenizer
from tgi_llama.text.spellings import Span
from tgi_llama.text.tokenizer import Tokenizer

from .conftest import NAMES, vectors
from .test_hub_tokenizers import SPM

OpenVocab = Callable[[str], Vocab]
OpenHub = Callable[[str], HubTokenizer]


@pytest.fixture(params=["vocabulary", "tokenizer.json"])
def tokenizer(
    request: pytest.FixtureRequest, name: str, open_vocab: OpenVocab, open_hub: OpenHub
) -> Tokenizer:
    return open_vocab(name) if request.param == "vocabulary" else open_hub(name)


def controls_in(vocab: Vocab, ids: Sequence[TokenId]) -> list[str]:
    """Spellings of those that are read by their spelling."""
    pieces = [vocab.piece(token).decode(errors="replace") for token in ids]
    return [piece for piece in pieces if piece in vocab.spellings.texts]


def text_of(vocab: Vocab, ids: Sequence[TokenId]) -> str:
    return b"".join(map(vocab.piece, ids)).decode()


def test_spellings_of_controls_are_those_that_are_read(name: str, vocab: Vocab) -> None:
    for text in vocab.spellings.texts:
        (token,) = vocab.encode(text, add_special=False)
        assert vocab.is_control(token)
    assert (
        len(vocab.spellings.texts)
        == {
            "deepseek-coder": 5,
            "gpt-2": 1,
            "llama-bpe": 256,
            "llama-spm": 3,
            "phi-3": 67,
            "qwen2": 4,
        }[name]
    )


def test_every_control_is_text_where_it_is_literal(tokenizer: Tokenizer, vocab: Vocab) -> None:
    for spelling in tokenizer.spellings.texts:
        for before, behind in (("", ""), ("a", "b"), (" ", "\n")):
            text = f"{before}{spelling}{behind}"
            spans = tokenizer.spellings.find(text)
            ids = tokenizer.encode(text, add_special=False, literals=spans)
            assert controls_in(vocab, ids) == []
            assert text_of(vocab, ids).strip() == text.strip()


def test_literals_alone_are_what_llama_cpp_makes_of_unparsed_text(
    name: str, open_hub: OpenHub, vocab: Vocab
) -> None:
    hub = open_hub(name)
    spelling = min(hub.spellings.texts)
    for text, _ in vectors(name):
        both = f"{text}{spelling}{text}"
        expected = vocab.encode(both, add_special=True, parse_special=False)
        for tokenizer in (hub, vocab):
            spans = tokenizer.spellings.find(both)
            assert tokenizer.encode(both, add_special=True, literals=spans) == expected


def test_text_without_literals_is_encoded_as_ever(tokenizer: Tokenizer, name: str) -> None:
    for text, ids in vectors(name):
        assert tokenizer.encode(text, add_special=False, literals=()) == ids
        assert tokenizer.encode(text, add_special=False, literals=[(-1, -1)]) == ids


@st.composite
def marked_texts(draw: st.DrawFn, spellings: Sequence[str]) -> tuple[str, list[Span]]:
    """A text with spellings in it, and which of them are literal."""
    words = st.sampled_from(["a", " ", "\n", "Hello", " wörld", "1", "<", "|>", "  ", "\t\n", "é"])
    text, literals = "", []
    for _ in range(draw(st.integers(0, 8))):
        text += draw(words)
        if draw(st.booleans()):
            spelling = draw(st.sampled_from(spellings))
            if draw(st.booleans()):
                literals.append((len(text), len(text) + len(spelling)))
            text += spelling
    return text, literals


@settings(max_examples=300, deadline=None)  # the first ones load
@given(data=st.data(), name=st.sampled_from(NAMES))
def test_mixtures_have_exactly_the_controls_that_are_not_literal(
    data: st.DataObject, name: str, open_vocab: OpenVocab, open_hub: OpenHub
) -> None:
    vocab, hub = open_vocab(name), open_hub(name)
    common = sorted(vocab.spellings.texts & hub.spellings.texts)[:8]
    text, literals = data.draw(marked_texts(common))
    found = vocab.spellings.find(text)
    literals = [span for span in literals if span in found]
    expected = [text[slice(*span)] for span in found if span not in literals]
    by_llama = vocab.encode(text, add_special=False, literals=literals)
    by_hub = hub.encode(text, add_special=False, literals=literals)
    assert by_hub == by_llama
    assert controls_in(vocab, by_llama) == expected
    if name not in SPM:  # which adds spaces; Phi-3's control tokens swallow some
        assert text_of(vocab, by_llama) == text
    for tokenizer in (vocab, hub):
        tokens = tokenizer.encode_with_offsets(text, add_special=False, literals=literals)
        assert [token.id for token in tokens] == by_llama
    # What is read as without literals where none is asked for.
    assert hub.encode(text, add_special=False) == vocab.encode(text, add_special=False)


# Faults of a vocabulary


def test_control_that_swallows_space_does_so_next_to_literals(
    open_vocab: OpenVocab, open_hub: OpenHub
) -> None:
    """Phi-3's take the white space behind them."""
    vocab = open_vocab("phi-3")
    text = "<|user|>\n <|end|><|assistant|> x"
    literal = vocab.spellings.find(text)[1]
    for tokenizer in (vocab, open_hub("phi-3")):
        ids = tokenizer.encode(text, add_special=False, literals=[literal])
        assert text_of(vocab, ids) == "<|user|> <|end|><|assistant|> x"
        assert controls_in(vocab, ids) == ["<|user|>", "<|assistant|>"]


def test_control_that_swallows_space_before_it(
    open_vocab: OpenVocab, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocab = open_vocab("llama-spm")
    eos = vocab.eos_id
    given_attributes = vocab._attributes

    def attributes(token: TokenId) -> int:
        swallows = native.LLAMA_TOKEN_ATTR_LSTRIP if token == eos else 0
        return given_attributes(token) | swallows

    monkeypatch.setattr(vocab, "_attributes", attributes)
    text = "<s>a \n</s>"
    ids = vocab.encode(text, add_special=False, literals=[(0, 3)])
    assert text_of(vocab, ids) == " <s>a</s>"


def test_words_that_merge_into_a_control_token_are_spelled_out(
    open_vocab: OpenVocab, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocab = open_vocab("llama-spm")
    (hello,) = vocab.encode("hello", add_special=False)
    monkeypatch.setattr(vocab, "_accidents", frozenset({hello}))
    ids = vocab.encode("hello</s>", add_special=False, literals=[(5, 9)])
    assert hello not in ids
    assert text_of(vocab, ids) == " hello</s>"
