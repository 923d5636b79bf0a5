"""A second form of a ``tokenizer.json``, for texts in which some spellings of control tokens
are to be ordinary text.

``tokenizers`` can only read all of them or none, and to cut the text at control tokens and join
what comes of the parts is not the same: a part may not know whether it is the first (SentencePiece
puts a space before that one alone), and control tokens may swallow the white space next to them. So
here control tokens have other spellings: a mark that nobody else knows, then the usual one. It is
put before those in a text that are to be read, and all others are ordinary text to the tokenizer.

The model itself, which is large, is shared with the tokenizer that this one is made from.
"""

import bisect
import random
from collections.abc import Iterable, Sequence
from typing import cast

from tokenizers import AddedToken
from tokenizers import Tokenizer as NativeTokenizer

from tgi_llama.errors import ValidationError
from tgi_llama.generation import TokenId

from .spellings import Span, Spellings

_MARK_LENGTH = 12
"""Characters. A mark is one of 2**60, so nobody guesses it."""


class MarkedTokenizer:
    """Immutable and thread-safe, and encodes without the interpreter lock."""

    def __init__(self, tokenizer: NativeTokenizer, spellings: Spellings) -> None:
        """``spellings``: of the control tokens, which ``tokenizer`` has as added tokens."""
        # Characters that Unicode keeps free for such things: no normalisation changes them.
        letters = random.SystemRandom().choices(range(0xFDD0, 0xFDF0), k=_MARK_LENGTH)
        self._mark = "".join(map(chr, letters))
        self._spellings = spellings
        added = sorted(tokenizer.get_added_tokens_decoder().items())
        self._tokenizer = _without_added_tokens(tokenizer)
        self._tokenizer.add_tokens([self._respelled(token) for _, token in added])
        ids = {
            token: self._tokenizer.token_to_id(self._respelled(old).content) for token, old in added
        }
        self._usual_ids = {new: TokenId(token) for token, new in ids.items() if new != token}
        self._accidents = self._find_accidents(getattr(tokenizer.model, "unk_token", None))

    def encode(
        self, text: str, literals: Iterable[Span], *, offsets: bool
    ) -> tuple[list[TokenId], list[Span]]:
        """The tokens of the text alone and, with ``offsets``, where they are in it, in characters.
        Raises ValidationError, and what ``tokenizers`` raises."""
        if self._mark in text:
            raise ValidationError("tokenizer error the text cannot be encoded")
        known = frozenset(literals)
        starts = [span[0] for span in self._spellings.find(text) if span not in known]
        encode = self._tokenizer.encode_batch if offsets else self._tokenizer.encode_batch_fast
        encoding = encode([self._with_marks(text, starts)], add_special_tokens=False)[0]
        spans = self._unmarked(encoding.offsets, starts) if offsets else []
        return self._usual(encoding.ids, spans)

    def _respelled(self, token: AddedToken) -> AddedToken:
        is_control = token.content in self._spellings.texts
        return AddedToken(
            self._mark + token.content if is_control else token.content,
            single_word=token.single_word,
            lstrip=token.lstrip,
            rstrip=token.rstrip,
            normalized=token.normalized,
            special=token.special,
        )

    def _with_marks(self, text: str, starts: Sequence[int]) -> str:
        stops = (*starts[1:], len(text))
        marked = (self._mark + text[start:stop] for start, stop in zip(starts, stops, strict=True))
        return "".join((text[: starts[0]], *marked)) if starts else text

    def _unmarked(self, spans: Iterable[Span], starts: Sequence[int]) -> list[Span]:
        """``spans`` of the marked text as such of the text."""
        marks = [start + number * _MARK_LENGTH for number, start in enumerate(starts)]

        def unmarked(position: int) -> int:
            return position - bisect.bisect_left(marks, position) * _MARK_LENGTH

        return [(unmarked(start), unmarked(stop)) for start, stop in spans]

    # What the tokens are called in the tokenizer that this one is made from

    def _usual(self, ids: list[int], spans: list[Span]) -> tuple[list[TokenId], list[Span]]:
        usual = self._usual_ids
        if self._accidents.isdisjoint(ids):
            return [usual.get(token, cast(TokenId, token)) for token in ids], spans
        written = [
            self._spelled_out(token) if token in self._accidents else [usual.get(token, token)]
            for token in ids
        ]
        repeated = [span for one, span in zip(written, spans, strict=False) for _ in one]
        return [TokenId(token) for one in written for token in one], repeated

    def _find_accidents(self, unknown: str | None) -> frozenset[int]:
        """Control tokens that are in the model's own vocabulary, where merges may lead to them. Not
        the one for unknown characters."""
        found = map(self._tokenizer.token_to_id, self._spellings.texts - {unknown})
        return frozenset(token for token in found if token is not None)

    def _spelled_out(self, token: int) -> list[int]:
        """The tokens of a control token's characters, each by itself or by its bytes."""
        ids: list[int | None] = []
        for character in self._tokenizer.id_to_token(token) or "":
            alone = self._tokenizer.token_to_id(character)
            codes = [f"<0x{byte:02X}>" for byte in character.encode()]
            ids += map(self._tokenizer.token_to_id, codes) if alone is None else [alone]
        known = [one for one in ids if one is not None]
        if len(known) < len(ids):
            raise ValidationError("tokenizer error a control token cannot be written as text")
        return known


def _without_added_tokens(tokenizer: NativeTokenizer) -> NativeTokenizer:
    bare = NativeTokenizer(tokenizer.model)
    for part in ("normalizer", "pre_tokenizer", "decoder", "post_processor"):
        value = getattr(tokenizer, part)
        if value is not None:
            setattr(bare, part, value)
    return bare
