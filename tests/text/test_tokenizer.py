import json
import threading
from pathlib import Path

import attrs
import pytest
from tokenizers import AddedToken, models, pre_tokenizers, processors
from tokenizers import Tokenizer as NativeTokenizer

from tgi_llama.errors import ConfigError, ValidationError
from tgi_llama.generation import TokenId
from tgi_llama.text.tokenizer import (
    EncodedToken,
    HubTokenizer,
    Tokenizer,
    first_difference,
    load_tokenizer,
)

EOS = "<|end|>"
MERGES = [("l", "l"), ("H", "e"), ("He", "ll"), ("Hell", "o")]


def build(
    *, bos: bool = True, merges: list[tuple[str, str]] = MERGES, alphabet_reversed: bool = False
) -> NativeTokenizer:
    """A byte-level BPE tokenizer with one id per byte, a few merges, BOS and EOS."""
    words = sorted(pre_tokenizers.ByteLevel.alphabet(), reverse=alphabet_reversed)
    words += ["".join(pair) for pair in MERGES]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = NativeTokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = [AddedToken(text, special=True, normalized=False) for text in ("<s>", EOS)]
    tokenizer.add_special_tokens(special)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
    return tokenizer


def write(folder: Path, tokenizer: NativeTokenizer) -> Path:
    path = folder / "tokenizer.json"
    path.write_text(tokenizer.to_str(), encoding="utf-8")
    return path


@attrs.frozen
class FakeVocabulary:
    """A GGUF's vocabulary made from another tokenizer."""

    tokenizer: HubTokenizer
    eos_text: str | None = EOS
    eot_text: str | None = None
    n_vocab: int = 1000

    def encode(self, text: str, *, add_special: bool) -> list[TokenId]:
        return self.tokenizer.encode(text, add_special=add_special)

    def encode_with_offsets(self, text: str, *, add_special: bool) -> list[EncodedToken]:
        return self.tokenizer.encode_with_offsets(text, add_special=add_special)


GGUF = Path("model.gguf")


# HubTokenizer


def spans(tokenizer: Tokenizer, text: str) -> list[str]:
    data = text.encode()
    return [
        data[token.start : token.stop].decode()
        for token in tokenizer.encode_with_offsets(text, add_special=True)
    ]


def test_encode_adds_special_tokens_only_when_asked() -> None:
    tokenizer = HubTokenizer(build())
    plain = tokenizer.encode("Hello", add_special=False)
    assert len(plain) == 1
    assert tokenizer.encode("Hello", add_special=True) == [build().token_to_id("<s>"), *plain]
    assert tokenizer.encode("", add_special=False) == []


def test_encode_reads_the_spelling_of_a_control_token_as_that_token() -> None:
    assert HubTokenizer(build()).encode(EOS, add_special=False) == [build().token_to_id(EOS)]


def test_offsets_are_bytes_and_added_tokens_are_at_zero() -> None:
    tokenizer = HubTokenizer(build())
    assert [
        (token.start, token.stop)
        for token in tokenizer.encode_with_offsets("éHello", add_special=True)
    ] == [(0, 0), (0, 2), (0, 2), (2, 7)]


def test_offsets_of_a_character_of_several_tokens_cover_the_whole_character() -> None:
    tokenizer = HubTokenizer(build())
    assert spans(tokenizer, "x\N{LLAMA}é") == ["", "x", *["\N{LLAMA}"] * 4, "é", "é"]


@pytest.mark.parametrize("text", ["Hello", "é\N{LLAMA} H", " \n", ""])
def test_offsets_have_the_ids_of_encode(text: str) -> None:
    tokenizer = HubTokenizer(build())
    tokens = tokenizer.encode_with_offsets(text, add_special=True)
    assert [token.id for token in tokens] == tokenizer.encode(text, add_special=True)


def test_encode_with_half_a_surrogate_pair_is_a_validation_error() -> None:
    tokenizer = HubTokenizer(build())
    for encode in (tokenizer.encode, tokenizer.encode_with_offsets):
        with pytest.raises(ValidationError, match=r"tokenizer error .* character 2 is half"):
            encode("ab\ud800", add_special=False)


def test_encode_of_a_token_that_the_model_lacks_is_a_validation_error() -> None:
    native = build()
    tokenizer = HubTokenizer(native, n_vocab=native.token_to_id(EOS))
    assert tokenizer.encode("Hello", add_special=True)
    with pytest.raises(ValidationError, match="needs token"):
        tokenizer.encode(EOS, add_special=False)


def test_encode_where_the_library_fails_is_a_validation_error() -> None:
    tokenizer = HubTokenizer(NativeTokenizer(models.WordLevel({"a": 0}, unk_token="?")))
    with pytest.raises(ValidationError, match=r"^tokenizer error "):
        tokenizer.encode("b", add_special=False)


def test_tokenizer_saved_with_truncation_and_padding_does_neither(tmp_path: Path) -> None:
    native = build(bos=False)
    native.enable_truncation(2)
    native.enable_padding(length=9)
    tokenizer = HubTokenizer.from_file(write(tmp_path, native))
    assert len(tokenizer.encode("abc", add_special=False)) == 3


def test_encode_runs_on_several_threads_at_once() -> None:
    tokenizer = HubTokenizer(build())
    text = "Hello \N{LLAMA} " * 200
    expected = tokenizer.encode(text, add_special=True)
    results: list[list[TokenId]] = []
    threads = [
        threading.Thread(target=lambda: results.append(tokenizer.encode(text, add_special=True)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 4


@pytest.mark.parametrize(
    "content", [b"", b"{", b"{}", b"[1]", b'{"model": {"type": "BPE"}}', b"\xff\xfe"]
)
def test_load_of_a_broken_tokenizer_is_one_line_naming_the_file(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_tokenizer(tmp_path, FakeVocabulary(HubTokenizer(build())), gguf=GGUF)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


# load_tokenizer


def test_load_without_a_tokenizer_json_gives_the_vocabulary(tmp_path: Path) -> None:
    vocabulary = FakeVocabulary(HubTokenizer(build()))
    assert load_tokenizer(None, vocabulary, gguf=GGUF) is vocabulary
    assert load_tokenizer(tmp_path, vocabulary, gguf=GGUF) is vocabulary


def test_load_of_a_matching_tokenizer_json_gives_it_with_the_models_size(tmp_path: Path) -> None:
    write(tmp_path, build())
    tokenizer = load_tokenizer(tmp_path, FakeVocabulary(HubTokenizer(build())), gguf=GGUF)
    assert isinstance(tokenizer, HubTokenizer)
    assert tokenizer.n_vocab == 1000


def test_load_of_a_larger_vocabulary_than_the_models_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, build())
    vocabulary = FakeVocabulary(HubTokenizer(build()), n_vocab=100)
    with pytest.raises(ConfigError) as caught:
        load_tokenizer(tmp_path, vocabulary, gguf=GGUF)
    assert str(caught.value) == (
        f"{path} and model.gguf do not belong together: the first has 260 tokens, the second 100"
    )


def test_load_with_added_tokens_beyond_the_model_is_accepted(tmp_path: Path) -> None:
    native = build()
    n_vocab = native.get_vocab_size()
    native.add_special_tokens(["<image>"])
    write(tmp_path, native)
    vocabulary = FakeVocabulary(HubTokenizer(build()), n_vocab=n_vocab)
    tokenizer = load_tokenizer(tmp_path, vocabulary, gguf=GGUF)
    with pytest.raises(ValidationError):
        tokenizer.encode("<image>", add_special=False)


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (build(alphabet_reversed=True), "token 1 of {!r} (without special tokens) is 11 and 244"),
        (build(merges=MERGES[:-1]), "token 0 of {!r} (without special tokens) is 259 and 258"),
        (build(bos=False), "token 0 of {!r} (with special tokens) is 260 and 259"),
    ],
    ids=["other bytes", "other merges", "no BOS"],
)
def test_load_of_a_tokenizer_with_other_ids_is_refused_naming_the_difference(
    tmp_path: Path, other: NativeTokenizer, difference: str
) -> None:
    path = write(tmp_path, build())
    with pytest.raises(ConfigError) as caught:
        load_tokenizer(tmp_path, FakeVocabulary(HubTokenizer(other)), gguf=GGUF)
    first_probe = "Hello, world! It's a well-known fact: (1 + 2) * 3 == 9."
    assert str(caught.value) == (
        f"{path} and model.gguf do not belong together: {difference.format(first_probe)}"
    )


def test_difference_in_the_end_of_turn_token_is_found() -> None:
    with_turn = build()
    with_turn.add_special_tokens(["<turn>"])
    vocabulary = FakeVocabulary(HubTokenizer(with_turn), eot_text="<turn>")
    assert first_difference(HubTokenizer(build()), vocabulary) is not None
    assert first_difference(HubTokenizer(with_turn), vocabulary) is None


def test_difference_in_length_says_what_is_missing(tmp_path: Path) -> None:
    document = json.loads(build().to_str())
    document["post_processor"]["single"].append({"SpecialToken": {"id": "<s>", "type_id": 0}})
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(document))
    difference = first_difference(
        HubTokenizer.from_file(path), FakeVocabulary(HubTokenizer(build()))
    )
    assert difference is not None
    assert difference.endswith("and missing")
