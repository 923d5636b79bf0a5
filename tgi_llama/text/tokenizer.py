"""Text to token ids, by a ``tokenizer.json`` or by the vocabulary in the GGUF.

Tokenizers are immutable and may be called from any number of threads at once; encoding does not
hold the interpreter lock, so a long prompt does not stop the decode thread.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

import attrs
from tokenizers import Encoding
from tokenizers import Tokenizer as NativeTokenizer

from tgi_llama.errors import ConfigError, ValidationError
from tgi_llama.generation import TokenId

TOKENIZER_FILE = "tokenizer.json"


@attrs.frozen
class EncodedToken:
    id: TokenId
    start: int
    """Where the token starts in the text, in bytes of its UTF-8 form, at a character's start."""
    stop: int
    """Where it ends, at a character's end: a character of several tokens belongs to each of them.
    ``start`` and ``stop`` are both 0 for tokens that the tokenizer adds."""


@attrs.frozen
class InfillTokens:
    """The control tokens of a model that can fill a gap. Its prompt is ``pre``, the text before the
    gap, ``suf``, the text behind it, ``mid``."""

    pre: TokenId
    suf: TokenId
    mid: TokenId


class Tokenizer(Protocol):
    """Thread-safe. ``add_special`` adds what the model wants around a prompt, such as BOS.

    The spelling of a control token in the text becomes that token. Both methods raise
    ValidationError for text that cannot be encoded.
    """

    @property
    def n_vocab(self) -> int:
        """Every id is below this."""
        ...

    def encode(self, text: str, *, add_special: bool) -> list[TokenId]: ...

    def encode_with_offsets(self, text: str, *, add_special: bool) -> list[EncodedToken]: ...


class ModelVocabulary(Tokenizer, Protocol):
    """The vocabulary in the GGUF, as ``load_tokenizer`` needs it."""

    @property
    def eos_text(self) -> str | None:
        """Spelling of the end-of-sequence token, if there is one."""
        ...

    @property
    def eot_text(self) -> str | None:
        """Spelling of the end-of-turn token, if there is one."""
        ...


def utf8(text: str) -> bytes:
    """Raises ValidationError where ``text`` holds half of a surrogate pair, as JSON may."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValidationError(
            f"tokenizer error the text is not valid Unicode: character {error.start} is half of a "
            "surrogate pair"
        ) from None


class HubTokenizer:
    """A ``tokenizer.json`` of the Hugging Face hub."""

    def __init__(self, tokenizer: NativeTokenizer, *, n_vocab: int | None = None) -> None:
        """Takes the tokenizer over. ``n_vocab`` is the model's, where it differs: text that needs
        a token beyond it is refused."""
        # A tokenizer.json may have been saved with the settings of its training.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._n_vocab = tokenizer.get_vocab_size() if n_vocab is None else n_vocab

    @classmethod
    def from_file(cls, path: Path, *, n_vocab: int | None = None) -> "HubTokenizer":
        """Raises ConfigError where the file cannot be read or is not a tokenizer."""
        try:
            source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read: {error}") from error
        try:
            tokenizer = NativeTokenizer.from_str(source)
        except Exception as error:  # the library raises Exception itself, nothing narrower
            reason = " ".join(str(error).split())
            raise ConfigError(f"{path}: not a tokenizer: {reason}") from error
        return cls(tokenizer, n_vocab=n_vocab)

    @property
    def n_vocab(self) -> int:
        return self._n_vocab

    @property
    def n_base_vocab(self) -> int:
        """Tokens of the file's own vocabulary, without those added to it."""
        return self._tokenizer.get_vocab_size(with_added_tokens=False)

    def encode(self, text: str, *, add_special: bool) -> list[TokenId]:
        return self._ids(self._encoding(text, add_special=add_special, offsets=False))

    def encode_with_offsets(self, text: str, *, add_special: bool) -> list[EncodedToken]:
        encoding = self._encoding(text, add_special=add_special, offsets=True)
        to_byte = _byte_offsets(text)
        return [
            EncodedToken(token, to_byte[start], to_byte[stop])
            for token, (start, stop) in zip(self._ids(encoding), encoding.offsets, strict=True)
        ]

    def _encoding(self, text: str, *, add_special: bool, offsets: bool) -> Encoding:
        utf8(text)
        # Only the batch methods let go of the interpreter lock.
        encode = self._tokenizer.encode_batch if offsets else self._tokenizer.encode_batch_fast
        try:
            return encode([text], add_special_tokens=add_special)[0]
        except Exception as error:  # the library raises Exception itself, nothing narrower
            raise ValidationError(f"tokenizer error {error}") from error

    def _ids(self, encoding: Encoding) -> list[TokenId]:
        ids = cast("list[TokenId]", encoding.ids)
        if ids and max(ids) >= self._n_vocab:
            raise ValidationError(
                f"tokenizer error the text needs token {max(ids)}, but the model has "
                f"{self._n_vocab} tokens"
            )
        return ids


def _byte_offsets(text: str) -> Sequence[int]:
    """At i, how many bytes the first i characters take in UTF-8."""
    if text.isascii():
        return range(len(text) + 1)
    lengths = (len(character.encode()) for character in text)
    return list(itertools.accumulate(lengths, initial=0))


def load_tokenizer(folder: Path | None, vocabulary: ModelVocabulary, *, gguf: Path) -> Tokenizer:
    """The ``tokenizer.json`` in ``folder`` if there is one, else the vocabulary of ``gguf``.

    Raises ConfigError where the file is not a tokenizer, or where the two give different ids.
    """
    if folder is None or not (folder / TOKENIZER_FILE).exists():
        return vocabulary
    path = folder / TOKENIZER_FILE
    tokenizer = HubTokenizer.from_file(path, n_vocab=vocabulary.n_vocab)
    # Added tokens may go beyond the model (placeholders of images, for example).
    if tokenizer.n_base_vocab > vocabulary.n_vocab:
        raise ConfigError(
            f"{path} and {gguf} do not belong together: the first has {tokenizer.n_base_vocab} "
            f"tokens, the second {vocabulary.n_vocab}"
        )
    difference = first_difference(tokenizer, vocabulary)
    if difference is not None:
        raise ConfigError(f"{path} and {gguf} do not belong together: {difference}")
    return tokenizer


_PROBES = (
    "Hello, world! It's a well-known fact: (1 + 2) * 3 == 9.",
    " leading, trailing ",
    "   three spaces,\ttab\n\n\ntwo empty lines\r\n  indented",
    "0 12 345 6789 31415926",
    'def f(x: int) -> str:\n    return f"{x!r}"  # comment\n',
    "Äpfel, naïve, œuvre, ½",
    "нещо на Български",
    "日本語の文章、中文文本。한국어 문장",
    "नमस्ते دنیا שלום",
    "🦙 and 🚀✅, 😶‍🌫️",
)
"""Several scripts, digits, white space and emoji. All in Unicode's composed form, since a
``tokenizer.json`` may normalise and llama.cpp does not."""


def first_difference(tokenizer: Tokenizer, vocabulary: ModelVocabulary) -> str | None:
    """What the two first encode differently, in words; None where they agree on all probes."""
    endings = (vocabulary.eos_text, vocabulary.eot_text)
    probes = _PROBES + tuple(dict.fromkeys(text for text in endings if text))
    for text in probes:
        for add_special in (False, True):
            ours = tokenizer.encode(text, add_special=add_special)
            models = vocabulary.encode(text, add_special=add_special)
            if ours != models:
                return _describe_difference(text, ours, models, add_special=add_special)
    return None


def _describe_difference(
    text: str, ours: Sequence[TokenId], models: Sequence[TokenId], *, add_special: bool
) -> str:
    differing = (i for i, pair in enumerate(zip(ours, models, strict=False)) if pair[0] != pair[1])
    index = next(differing, min(len(ours), len(models)))
    first, second = (ids[index] if index < len(ids) else "missing" for ids in (ours, models))
    mode = "with" if add_special else "without"
    return f"token {index} of {text!r} ({mode} special tokens) is {first} and {second}"
