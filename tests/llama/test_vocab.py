"""The vocabulary against llama.cpp's own test vectors, for each kind of vocabulary."""

import threading
from collections.abc import Callable

import pytest

from tgi_llama.engine.model_runner import Vocabulary
from tgi_llama.errors import ValidationError
from tgi_llama.generation import TokenId
from tgi_llama.llama.vocab import Vocab
from tgi_llama.text.detokenizer import Detokenizer
from tgi_llama.text.tokenizer import ModelVocabulary

from .conftest import vectors

OpenVocab = Callable[[str], Vocab]


def spans(vocab: Vocab, text: str, *, add_special: bool = True) -> list[str]:
    data = text.encode()
    tokens = vocab.encode_with_offsets(text, add_special=add_special)
    return [data[token.start : token.stop].decode() for token in tokens]


# Encoding


def test_encode_gives_the_ids_of_the_test_vectors(name: str, vocab: Vocab) -> None:
    for text, ids in vectors(name):
        assert vocab.encode(text, add_special=False) == ids, text


def test_encode_with_special_adds_bos_where_the_model_wants_it(name: str, vocab: Vocab) -> None:
    plain = vocab.encode("Hello world", add_special=False)
    first = [] if name in ("gpt-2", "qwen2") else [vocab.bos_id]
    assert vocab.encode("Hello world", add_special=True) == [*first, *plain]


def test_encode_then_detokenize_gives_the_text_back(name: str, vocab: Vocab) -> None:
    for text, ids in vectors(name):
        detokenizer = Detokenizer(vocab)
        output = "".join(detokenizer.step(TokenId(token)) for token in ids)
        # SentencePiece vocabularies put a space before a text.
        assert output in ((text,) if name not in ("llama-spm", "phi-3") else (text, " " + text))


def test_encode_reads_control_tokens_by_default_only(open_vocab: OpenVocab) -> None:
    vocab = open_vocab("qwen2")
    assert vocab.encode("<|im_end|>", add_special=False) == [151645]
    assert len(vocab.encode("<|im_end|>", add_special=False, parse_special=False)) > 1


def test_encode_of_text_with_zero_bytes_reads_past_them(open_vocab: OpenVocab) -> None:
    vocab = open_vocab("gpt-2")
    text = "a\0b"
    ids = vocab.encode(text, add_special=False)
    assert b"".join(map(vocab.piece, ids)) == text.encode()


def test_encode_with_half_a_surrogate_pair_is_a_validation_error(open_vocab: OpenVocab) -> None:
    vocab = open_vocab("gpt-2")
    for encode in (vocab.encode, vocab.encode_with_offsets):
        with pytest.raises(ValidationError, match="surrogate"):
            encode("\udc00", add_special=False)


@pytest.mark.parametrize("letter", ["a", "!", "\N{CJK UNIFIED IDEOGRAPH-4E2D}", "1", " ", "aé"])
def test_encode_of_a_word_that_overflows_the_stack_in_llama_cpp_survives(
    open_vocab: OpenVocab, letter: str
) -> None:
    vocab = open_vocab("deepseek-coder")
    text = letter * 60_000  # 26,000 characters in one word crash llama_tokenize
    ids = vocab.encode(text, add_special=True)
    assert ids[0] == vocab.bos_id
    assert b"".join(map(vocab.piece, ids[1:])) == text.encode()


def test_encode_of_a_long_text_without_spaces_equals_encoding_at_once(
    open_vocab: OpenVocab,
) -> None:
    vocab = open_vocab("llama-bpe")  # has its own matcher in llama.cpp, which does not recurse
    sentence = "\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3001\u4e2d\u6587\u3002"
    ids = vocab.encode(sentence * 1000, add_special=False)
    assert ids == vocab._tokenize(sentence * 1000, add_special=False, parse_special=True)


def test_encode_runs_on_several_threads_at_once(open_vocab: OpenVocab) -> None:
    vocab = open_vocab("llama-spm")
    text = "Hello \N{LLAMA} world " * 200
    expected = vocab.encode(text, add_special=True)
    results: list[list[TokenId]] = []
    threads = [
        threading.Thread(target=lambda: results.append(vocab.encode(text, add_special=True)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 4


# Offsets


def test_offsets_cover_the_text_in_order_at_whole_characters(name: str, vocab: Vocab) -> None:
    for text, ids in vectors(name):
        data = text.encode()
        tokens = vocab.encode_with_offsets(text, add_special=False)
        assert [token.id for token in tokens] == ids
        end = 0
        for token in tokens:
            data[token.start : token.stop].decode()
            assert token.start <= end <= max(end, token.stop)
            end = max(end, token.stop)
        assert end == len(data)


def test_offsets_of_added_tokens_are_zero(open_vocab: OpenVocab) -> None:
    first = open_vocab("llama-bpe").encode_with_offsets("Hi", add_special=True)[0]
    assert (first.id, first.start, first.stop) == (128000, 0, 0)
    assert open_vocab("llama-bpe").encode_with_offsets("", add_special=True) == [first]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("llama-spm", "Hello world", ["", "Hello", " world"]),
        ("llama-spm", " Hello", ["", "", " Hello"]),
        ("llama-spm", "<s>  Hello", ["", "<s>", " ", " Hello"]),
        ("llama-spm", "x\N{LLAMA}", ["", "x", *["\N{LLAMA}"] * 4]),
        ("phi-3", "a<|end|>\n\n b<|user|>x", ["", "a", "<|end|>", "b", "<|user|>", "x"]),
        ("llama-bpe", "x\N{LLAMA}!", ["", "x", *["\N{LLAMA}"] * 3, "!"]),
        ("qwen2", "<|im_start|>user\nHi", ["<|im_start|>", "user", "\n", "Hi"]),
    ],
)
def test_offsets_point_at_the_text_of_each_token(
    open_vocab: OpenVocab, name: str, text: str, expected: list[str]
) -> None:
    assert spans(open_vocab(name), text) == expected


# Single tokens


def test_piece_keeps_the_leading_space_and_single_bytes(open_vocab: OpenVocab) -> None:
    spm = open_vocab("llama-spm")
    assert spm.piece(TokenId(3186)) == b" world"
    assert spm.piece(TokenId(3 + 0xF0)) == b"\xf0"
    assert open_vocab("qwen2").piece(TokenId(151644)) == b"<|im_start|>"


def test_piece_longer_than_the_first_buffer_is_whole(open_vocab: OpenVocab) -> None:
    vocab = open_vocab("llama-bpe")
    pieces = [vocab.piece(token) for token in vocab.encode(" " * 200, add_special=False)]
    assert max(map(len, pieces)) > 64
    assert b"".join(pieces) == b" " * 200


def test_piece_outside_of_the_vocabulary_is_an_index_error(open_vocab: OpenVocab) -> None:
    vocab = open_vocab("gpt-2")
    for token in (-1, vocab.n_vocab):
        with pytest.raises(IndexError):
            vocab.piece(TokenId(token))


@pytest.mark.parametrize(
    ("name", "bos", "eos", "eot"),
    [
        ("gpt-2", "<|endoftext|>", "<|endoftext|>", "<|endoftext|>"),
        ("llama-bpe", "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"),
        ("llama-spm", "<s>", "</s>", None),
        ("phi-3", "<s>", "<|endoftext|>", "<|end|>"),
        ("qwen2", "<|endoftext|>", "<|endoftext|>", "<|im_end|>"),
    ],
)
def test_special_tokens_have_ids_and_spellings(
    open_vocab: OpenVocab, name: str, bos: str, eos: str, eot: str | None
) -> None:
    vocab = open_vocab(name)
    assert (vocab.bos_text, vocab.eos_text, vocab.eot_text) == (bos, eos, eot)
    assert (vocab.eot_id is None) is (eot is None)
    for token in (vocab.eos_id, vocab.eot_id):
        assert token is None or (vocab.is_end_of_generation(token) and vocab.is_control(token))


@pytest.mark.parametrize("name", ["llama-spm", "qwen2", "phi-3"])
def test_end_of_generation_ids_are_all_that_end_it(open_vocab: OpenVocab, name: str) -> None:
    vocab = open_vocab(name)
    every = map(TokenId, range(vocab.n_vocab))
    expected = tuple(token for token in every if vocab.is_end_of_generation(token))
    assert vocab.end_of_generation_ids() == expected
    assert vocab.eos_id in expected


@pytest.mark.parametrize("name", ["llama-spm", "qwen2", "phi-3"])
def test_control_spellings_are_those_of_all_that_is_no_text(
    open_vocab: OpenVocab, name: str
) -> None:
    vocab = open_vocab(name)
    spellings = vocab.control_spellings()
    for token in map(TokenId, range(vocab.n_vocab)):
        spelling = vocab.piece(token).decode(errors="replace")
        has_meaning = vocab.is_control(token) or vocab.is_end_of_generation(token)
        assert (spellings.get(spelling) == token) == (has_meaning and spelling != ""), spelling


def test_is_control_of_unknown_and_padding_but_not_of_text(open_vocab: OpenVocab) -> None:
    spm, phi = open_vocab("llama-spm"), open_vocab("phi-3")
    assert spm.is_control(TokenId(0))  # <unk>
    assert phi.is_control(TokenId(32063))  # [PAD32063]
    assert not spm.is_control(TokenId(3))  # a byte
    assert not spm.is_control(TokenId(3186))
    assert not open_vocab("deepseek-coder").is_control(
        TokenId(32000)
    )  # added by its makers as text
    assert not spm.is_end_of_generation(TokenId(3186))


def test_vocab_implements_what_engine_and_tokenizers_need(open_vocab: OpenVocab) -> None:
    vocab = open_vocab("gpt-2")
    output_side: Vocabulary = vocab
    input_side: ModelVocabulary = vocab
    assert output_side.n_vocab == input_side.n_vocab == 50257
