"""A ``tokenizer.json`` as the server's tokenizer, with and without literal spellings."""

import threading
from pathlib import Path

import pytest
from fakes.small_tokenizer import EOS, build
from tokenizers import AddedToken, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as NativeTokenizer

from tgi_llama.errors import ConfigError, ValidationError
from tgi_llama.generation import TokenId
from tgi_llama.text.hub_tokenizer import HubTokenizer
from tgi_llama.text.tokenizer import AddedTokens, Tokenizer


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
    path = tmp_path / "tokenizer.json"
    path.write_text(native.to_str(), encoding="utf-8")
    tokenizer = HubTokenizer.from_file(path)
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
def test_from_file_of_a_broken_tokenizer_is_one_line_naming_the_file(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        HubTokenizer.from_file(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


# What is put around a text


def test_added_tokens_are_found_and_can_be_others() -> None:
    native = build()
    bos, eos = (TokenId(native.token_to_id(text)) for text in ("<s>", EOS))
    tokenizer = HubTokenizer(native)
    assert tokenizer.added == AddedTokens((bos,), ())
    plain = tokenizer.encode("Hi", add_special=False)
    other = tokenizer.adding(AddedTokens((), (eos,)))
    assert other.encode("Hi", add_special=True) == [*plain, eos]
    assert other.encode("Hi", add_special=False) == plain
    assert [
        (one.id, one.start, one.stop) for one in other.encode_with_offsets("Hi", add_special=True)
    ] == [(plain[0], 0, 1), (plain[1], 1, 2), (eos, 0, 0)]


# Literals


def encode_as_text(tokenizer: HubTokenizer, text: str) -> list[TokenId]:
    return tokenizer.encode(text, add_special=False, literals=tokenizer.spellings.find(text))


def test_literal_spelling_is_encoded_as_its_letters() -> None:
    native = build()
    tokenizer = HubTokenizer(native)
    letters = [TokenId(native.token_to_id(letter)) for letter in EOS]
    assert encode_as_text(tokenizer, EOS) == letters


def test_only_the_named_spellings_are_literal() -> None:
    native = build()
    tokenizer = HubTokenizer(native)
    text = f"{EOS}a{EOS}<s>"
    second = tokenizer.spellings.find(text)[1]
    eos, start = native.token_to_id(EOS), native.token_to_id("<s>")
    ids = tokenizer.encode(text, add_special=True, literals=[second])
    assert (ids[:2], ids[-1]) == ([start, eos], start)
    assert ids.count(TokenId(eos)) == 1
    letters = "".join(native.id_to_token(token) for token in ids[2:-1])
    assert letters == f"a{EOS}"


def test_offsets_with_literals_are_those_of_the_text() -> None:
    tokenizer = HubTokenizer(build())
    text = f"é{EOS}<s>é<s>"
    literal = tokenizer.spellings.find(text)[0]
    tokens = tokenizer.encode_with_offsets(text, add_special=True, literals=[literal])
    data = text.encode()
    words = [data[token.start : token.stop].decode() for token in tokens]
    assert words == ["", "é", "é", *EOS, "<s>", "é", "é", "<s>"]


def test_a_mark_is_no_way_to_a_control_token() -> None:
    tokenizer = HubTokenizer(build())
    mark = tokenizer._marked._mark
    text = f"{EOS}{mark}{EOS}"
    with pytest.raises(ValidationError):
        encode_as_text(tokenizer, text)
    assert HubTokenizer(build())._marked._mark != mark


def test_tokens_added_as_text_are_read_in_literal_text_too() -> None:
    native = build()
    native.add_tokens([AddedToken("<think>", normalized=False)])
    tokenizer = HubTokenizer(native)
    ids = encode_as_text(tokenizer, f"<think>{EOS}")
    assert ids[0] == native.token_to_id("<think>")
    assert len(ids) == 1 + len(EOS)


def test_controls_that_the_file_has_as_text_are_controls_where_the_model_says_so() -> None:
    native = build()
    native.add_tokens([AddedToken("<turn>", normalized=False)])
    tokenizer = HubTokenizer(native, control_spellings=["<turn>", "<not there>"])
    assert tokenizer.spellings.texts == {"<s>", EOS, "<turn>"}
    assert tokenizer.encode("<turn>", add_special=False) == [native.token_to_id("<turn>")]
    assert len(encode_as_text(tokenizer, "<turn>")) == len("<turn>")


def sentence_piece(*, swallows: bool = False, prefix: str = "first") -> NativeTokenizer:
    """A token per letter, a space before the text as ``prefix`` says, and ``<x>`` as a control
    token that the letters may merge into."""
    letters = ["<unk>", "\N{LOWER ONE EIGHTH BLOCK}", *"abx<>/", "<x", "<x>", "<0x0A>"]
    vocabulary = {text: index for index, text in enumerate(letters)}
    merges = [("<", "x"), ("<x", ">")]
    model = models.BPE(
        vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True
    )
    native = NativeTokenizer(model)
    native.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prefix, split=False)
    native.add_tokens(
        [
            AddedToken("<x>", special=True, normalized=False, rstrip=swallows, lstrip=swallows),
            AddedToken("<unk>", special=True, normalized=False),
        ]
    )
    return native


def words(native: NativeTokenizer, ids: list[TokenId]) -> list[str]:
    return [native.id_to_token(token).replace("\N{LOWER ONE EIGHTH BLOCK}", "_") for token in ids]


@pytest.mark.parametrize("prefix", ["first", "always", "never"])
@pytest.mark.parametrize("swallows", [False, True])
def test_text_next_to_control_tokens_is_encoded_as_without_literals(
    prefix: str, *, swallows: bool
) -> None:
    native = sentence_piece(swallows=swallows, prefix=prefix)
    tokenizer = HubTokenizer(native)
    text = "a <x> b <x>a"
    expected = words(native, tokenizer.encode(text, add_special=False))
    with_literal = f"{text}<x>"
    literal = tokenizer.spellings.find(with_literal)[-1]
    ids = tokenizer.encode(with_literal, add_special=False, literals=[literal])
    assert words(native, ids) == [*expected, "<", "x", ">"]


def test_letters_that_merge_into_a_control_token_stay_letters() -> None:
    native = sentence_piece()
    tokenizer = HubTokenizer(native)
    assert words(native, encode_as_text(tokenizer, "a<x>")) == ["_", "a", "<", "x", ">"]
    tokens = tokenizer.encode_with_offsets("a<x>", add_special=False, literals=[(1, 4)])
    assert [(one.start, one.stop) for one in tokens] == [(0, 1), (0, 1), (1, 4), (1, 4), (1, 4)]


def test_unknown_characters_next_to_literals_are_still_unknown() -> None:
    native = sentence_piece()
    ids = encode_as_text(HubTokenizer(native), "<x>é")
    assert words(native, ids) == ["_", "<", "x", ">", "<unk>"]


def test_control_token_without_letters_is_refused_rather_than_read() -> None:
    native = NativeTokenizer(models.WordLevel({"abc": 0, "?": 1}, unk_token="?"))
    native.add_tokens([AddedToken("abc", special=True, normalized=False)])
    tokenizer = HubTokenizer(native)
    assert tokenizer.encode("abc", add_special=False) == [0]
    with pytest.raises(ValidationError, match="cannot be written as text"):
        encode_as_text(tokenizer, "abc")


@pytest.mark.parametrize(
    ("normalizer", "lookalike"),
    [
        (normalizers.NFKC(), "\uff1cx\uff1e"),
        (normalizers.Lowercase(), "<X>"),
        (normalizers.Sequence([normalizers.NFC(), normalizers.NFKC()]), "\uff1c\uff58\uff1e"),
    ],
)
def test_what_only_looks_like_a_control_token_is_text(
    normalizer: normalizers.Normalizer, lookalike: str
) -> None:
    native = build(bos=False)
    native.normalizer = normalizer
    native.add_tokens([AddedToken("<x>", special=True, normalized=True)])
    control = native.token_to_id("<x>")
    assert native.encode(lookalike).ids == [control]
    tokenizer = HubTokenizer(native)
    assert control not in tokenizer.encode(lookalike, add_special=False)
    assert tokenizer.encode("a<x>", add_special=False)[1:] == [control]


def test_normalisation_of_spaces_leaves_the_usual_way(monkeypatch: pytest.MonkeyPatch) -> None:
    native = build(bos=False)
    native.normalizer = normalizers.Replace(" ", "_")
    native.add_tokens([AddedToken("<x>", special=True, normalized=True)])
    tokenizer = HubTokenizer(native)
    monkeypatch.delattr(tokenizer, "_marked")
    assert len(tokenizer.encode("a <x>", add_special=False)) == 3
