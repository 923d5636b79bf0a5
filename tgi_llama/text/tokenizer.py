"""Text to token ids: what a tokenizer is to the rest of the server.

Tokenizers are immutable and may be called from any number of threads at once; encoding does not
hold the interpreter lock, so a long prompt does not stop the decode thread.
"""

from collections.abc import Sequence
from typing import Protocol

import attrs

from tgi_llama.errors import ValidationError
from tgi_llama.generation import TokenId

from .spellings import Span, Spellings


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


@attrs.frozen
class AddedTokens:
    """What a tokenizer puts before and behind a text by itself, such as BOS."""

    before: tuple[TokenId, ...] = ()
    behind: tuple[TokenId, ...] = ()

    @classmethod
    def between(cls, bare: Sequence[TokenId], full: Sequence[TokenId]) -> "AddedTokens":
        """What ``full`` has around ``bare``; nothing where that is not in it."""
        for n_before in range(len(full) - len(bare) + 1):
            n_until = n_before + len(bare)
            if list(full[n_before:n_until]) == list(bare):
                return cls(tuple(full[:n_before]), tuple(full[n_until:]))
        return cls()


class Tokenizer(Protocol):
    """Thread-safe. ``add_special`` adds what the model wants around a prompt, such as BOS.

    The spelling of a control token in the text becomes that token, unless it is one of
    ``literals``: those of ``spellings.find(text)`` that are to be ordinary text. Both methods raise
    ValidationError for text that cannot be encoded.
    """

    @property
    def n_vocab(self) -> int:
        """Every id is below this."""
        ...

    @property
    def spellings(self) -> Spellings:
        """Of the control tokens that are read in a text."""
        ...

    def encode(
        self, text: str, *, add_special: bool, literals: Sequence[Span] = ()
    ) -> list[TokenId]: ...

    def encode_with_offsets(
        self, text: str, *, add_special: bool, literals: Sequence[Span] = ()
    ) -> list[EncodedToken]: ...


class ModelVocabulary(Tokenizer, Protocol):
    """The vocabulary in the GGUF, as ``tokenizer_choice`` needs it."""

    @property
    def bos_id(self) -> TokenId | None: ...

    @property
    def eos_id(self) -> TokenId | None: ...

    @property
    def eos_text(self) -> str | None:
        """Spelling of the end-of-sequence token, if there is one."""
        ...

    @property
    def eot_text(self) -> str | None:
        """Spelling of the end-of-turn token, if there is one."""
        ...

    def spelling(self, token: TokenId) -> str:
        """As a vocabulary lists it: with white space and bytes written as other characters."""
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
