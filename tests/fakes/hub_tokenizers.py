"""Not fakes: a ``tokenizer.json`` made from the vocabulary in a GGUF, as transformers makes one
from the model's own files.

Tokens, merges or scores, and the added tokens come from the file. The way a text is cut into words
does not stand in it, only its name does: the expressions here are those of the models' own
``tokenizer.json``, not those that llama.cpp has made of them.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import attrs
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{DIGITS}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = range(1, 5)
_SPM_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"


@attrs.frozen
class GgufVocabulary:
    kind: str
    words: str
    tokens: Sequence[str]
    types: Sequence[int]
    merges: Sequence[tuple[str, str]]
    scores: Sequence[float]
    bos: str | None

    @classmethod
    def read(cls, path: Path, *, adds_bos: bool) -> "GgufVocabulary":
        """``adds_bos``: not every file says it."""
        values = {key.removeprefix("tokenizer.ggml."): value for key, value in _metadata(path)}
        tokens = cast("list[str]", values["tokens"])
        merges = cast("list[str]", values.get("merges", []))
        bos = values.get("bos_token_id")
        return cls(
            kind=str(values["model"]),
            words=str(values["pre"]),
            tokens=tokens,
            types=cast("list[int]", values["token_type"]),
            merges=[(one[: one.index(" ", 1)], one[one.index(" ", 1) + 1 :]) for one in merges],
            scores=cast("list[float]", values.get("scores", [])),
            bos=tokens[bos] if adds_bos and isinstance(bos, int) else None,
        )


_NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9


def _metadata(path: Path) -> Iterator[tuple[str, object]]:
    """The keys and values of a GGUF file. The gguf package takes half a minute for 280,000
    merges."""
    with path.open("rb") as file:
        reader = _Reader(file)
        magic, _version, _n_tensors, n_values = reader.numbers("4sIQQ")
        assert magic == b"GGUF"
        for _ in range(cast(int, n_values)):
            key = reader.text()
            (kind,) = reader.numbers("I")
            yield key, reader.value(cast(int, kind))


@attrs.frozen
class _Reader:
    file: BinaryIO

    def numbers(self, layout: str) -> tuple[object, ...]:
        return struct.unpack(f"<{layout}", self.file.read(struct.calcsize(f"<{layout}")))

    def text(self) -> str:
        (n_bytes,) = self.numbers("Q")
        return self.file.read(cast(int, n_bytes)).decode()

    def value(self, kind: int) -> object:
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            return self.numbers(_NUMBERS[kind])[0]
        inner, length = cast("tuple[int, int]", self.numbers("IQ"))
        if inner in _NUMBERS:
            return list(self.numbers(f"{length}{_NUMBERS[inner]}"))
        return [self.value(inner) for _ in range(length)]


def make_tokenizer(vocabulary: GgufVocabulary, *, swallows_space: Sequence[str] = ()) -> Tokenizer:
    """``swallows_space``: control tokens that take the white space behind them away."""
    tokenizer = _spm(vocabulary) if vocabulary.kind == "llama" else _byte_level(vocabulary)
    added = []
    for text, type_ in zip(vocabulary.tokens, vocabulary.types, strict=True):
        is_control = type_ in (_CONTROL, _UNKNOWN)
        if is_control or type_ == _USER_DEFINED:
            swallows = text in swallows_space
            added.append(AddedToken(text, special=is_control, normalized=False, rstrip=swallows))
    tokenizer.add_tokens(added)
    if vocabulary.bos is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{vocabulary.bos} $A",
            special_tokens=[(vocabulary.bos, vocabulary.tokens.index(vocabulary.bos))],
        )
    return tokenizer


def _byte_level(vocabulary: GgufVocabulary) -> Tokenizer:
    ids = {text: index for index, text in enumerate(vocabulary.tokens)}
    tokenizer = Tokenizer(
        models.BPE(
            vocab=ids,
            merges=list(vocabulary.merges),
            ignore_merges=vocabulary.words == "llama-bpe",
        )
    )
    tokenizer.pre_tokenizer = _BYTE_LEVEL_WORDS[vocabulary.words]
    if vocabulary.words == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(pattern), behavior="isolated")


def _split_then_bytes(*patterns: str) -> pre_tokenizers.PreTokenizer:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([*map(_split, patterns), byte_level])


_BYTE_LEVEL_WORDS: Mapping[str, pre_tokenizers.PreTokenizer] = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "llama-bpe": _split_then_bytes(_WORDS.replace("{DIGITS}", "{1,3}")),
    "qwen2": _split_then_bytes(_WORDS.replace("{DIGITS}", "")),
    "deepseek-coder": pre_tokenizers.Sequence(
        [
            *map(_split, ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+")),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
}


def _spm(vocabulary: GgufVocabulary) -> Tokenizer:
    ids = {text: index for index, text in enumerate(vocabulary.tokens)}
    tokenizer = Tokenizer(
        models.BPE(
            vocab=ids,
            merges=_merges_by_score(vocabulary, ids),
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend(_SPM_SPACE), normalizers.Replace(" ", _SPM_SPACE)]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(_SPM_SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    return tokenizer


def _merges_by_score(vocabulary: GgufVocabulary, ids: Mapping[str, int]) -> list[tuple[str, str]]:
    """All ways to put a token together from two others, better tokens first."""
    found = []
    for text, type_, score in zip(
        vocabulary.tokens, vocabulary.types, vocabulary.scores, strict=True
    ):
        if type_ == _NORMAL:
            halves = ((text[:at], text[at:]) for at in range(1, len(text)))
            found += [
                (-score, ids[left], ids[right], left, right)
                for left, right in halves
                if left in ids and right in ids
            ]
    return [(left, right) for *_, left, right in sorted(found)]
