"""The vocabulary in a GGUF, through llama.cpp.

Everything here reads immutable native data, so any thread may call it ("The API is thread-safe",
llama.h), and llama.cpp lets go of the interpreter lock meanwhile.
"""

import ctypes
import functools
import re
from collections.abc import Sequence
from typing import NamedTuple, cast

import attrs
import llama_cpp.llama_cpp as native

from tgi_llama.errors import ValidationError
from tgi_llama.generation import TokenId
from tgi_llama.text.long_runs import cut_long_runs
from tgi_llama.text.spellings import Span, Spellings, cut_at_controls
from tgi_llama.text.tokenizer import EncodedToken, InfillTokens, utf8

_CONTROL = (
    native.LLAMA_TOKEN_ATTR_CONTROL
    | native.LLAMA_TOKEN_ATTR_UNKNOWN
    | native.LLAMA_TOKEN_ATTR_UNUSED  # padding
)
_SPELLED = _CONTROL | native.LLAMA_TOKEN_ATTR_USER_DEFINED
"""Tokens that are found in a text by their spelling, before the rest is cut into words."""
_READ = _SPELLED & ~native.LLAMA_TOKEN_ATTR_UNUSED
"""Those that llama.cpp really looks for."""

MAX_RUN = 4096
"""Characters. llama.cpp matches the words of many BPE vocabularies with std::regex, which recurses
once per character: about 320 bytes of stack each, so that a word of 26,000 overflows the usual
8 MiB and takes the process down."""

_TOO_MANY_TOKENS = -(2**31)
"""What ``llama_tokenize`` returns where the count overflows an int32."""

_PIECE_BYTES = 64
"""Room for most pieces; longer ones need a second call."""


_SPACE = re.compile(rb"\s+")

_SWALLOWS_BEFORE = native.LLAMA_TOKEN_ATTR_LSTRIP
_SWALLOWS_BEHIND = native.LLAMA_TOKEN_ATTR_RSTRIP
_STRIPPED = " \t\n\v\f\r"
"""What llama.cpp takes away next to a token that swallows white space."""


class TokenEntry(NamedTuple):
    """One token of the whole vocabulary; a tuple, because there are many."""

    text: bytes
    """Its bytes, or a control token's spelling; may be empty."""
    is_mark: bool
    """Never a part of the text: a control token, or one that ends the generation."""


@attrs.frozen
class _TokenFacts:
    piece: bytes
    is_control: bool
    is_spelled: bool
    is_end_of_generation: bool


class Vocab:
    """Implements ``engine.model_runner.Vocabulary``, ``text.tokenizer.ModelVocabulary`` and
    ``validation.prompts.Vocabulary``.

    Valid as long as the model that the handle was taken from.
    """

    def __init__(self, handle: native.llama_vocab_p) -> None:
        self.handle = handle
        self._n_vocab: int = native.llama_vocab_n_tokens(handle)
        # Filled as tokens are asked for. Two threads may both find out the same, which is harmless.
        self._facts: list[_TokenFacts | None] = [None] * self._n_vocab
        self._end_of_generation: tuple[TokenId, ...] | None = None
        self._adds_bos = native.llama_vocab_get_add_bos(handle)
        self._adds_last = native.llama_vocab_get_add_eos(handle) or (
            native.llama_vocab_get_add_sep(handle)
        )
        self.is_bpe = native.llama_vocab_type(handle) == native.LLAMA_VOCAB_TYPE_BPE

    @property
    def n_vocab(self) -> int:
        return self._n_vocab

    @property
    def bos_id(self) -> TokenId | None:
        return _token_or_none(native.llama_vocab_bos(self.handle))

    @property
    def eos_id(self) -> TokenId | None:
        return _token_or_none(native.llama_vocab_eos(self.handle))

    @property
    def eot_id(self) -> TokenId | None:
        """The token that ends a turn of a conversation. llama.cpp gives ``eos_id`` for models
        without one of their own, or none."""
        return _token_or_none(native.llama_vocab_eot(self.handle))

    @property
    def bos_text(self) -> str | None:
        return self._spelling(self.bos_id)

    @property
    def eos_text(self) -> str | None:
        return self._spelling(self.eos_id)

    @property
    def eot_text(self) -> str | None:
        return self._spelling(self.eot_id)

    def spelling(self, token: TokenId) -> str:
        """As the file has it: with white space and bytes written as other characters."""
        text: bytes = native.llama_vocab_get_text(self.handle, token)
        return text.decode("utf-8", "replace")

    @property
    def infill(self) -> InfillTokens | None:
        """None for models that were not trained to fill a gap."""
        pre = _token_or_none(native.llama_vocab_fim_pre(self.handle))
        suf = _token_or_none(native.llama_vocab_fim_suf(self.handle))
        mid = _token_or_none(native.llama_vocab_fim_mid(self.handle))
        if pre is None or suf is None or mid is None:
            return None
        return InfillTokens(pre, suf, mid)

    # Output

    def piece(self, token: TokenId) -> bytes:
        """The token's bytes, a leading space included; a control token's spelling.

        Raises IndexError outside of the vocabulary.
        """
        return self._facts_of(token).piece

    def is_control(self, token: TokenId) -> bool:
        """Control, unknown and padding tokens, which are never part of the text. Tokens that the
        model's makers added as text, such as ``<think>``, are not."""
        return self._facts_of(token).is_control

    def is_end_of_generation(self, token: TokenId) -> bool:
        return self._facts_of(token).is_end_of_generation

    def end_of_generation_ids(self) -> tuple[TokenId, ...]:
        """All of them. The first call takes a native one per token, 50 ms at 152k of them."""
        if self._end_of_generation is None:
            self._end_of_generation = tuple(
                TokenId(token)
                for token in range(self._n_vocab)
                if native.llama_vocab_is_eog(self.handle, token)
            )
        return self._end_of_generation

    def token_table(self) -> tuple[list[TokenEntry], frozenset[int]]:
        """All tokens in order, and the ids of those that end the generation. Takes 2 to 3 us a
        token, and keeps only the latter."""
        attribute, handle = native.llama_vocab_get_attr, self.handle
        end_tokens = frozenset[int](self.end_of_generation_ids())
        table = [
            TokenEntry(
                self._read_piece(token),
                bool(attribute(handle, token) & _CONTROL) or token in end_tokens,
            )
            for token in map(TokenId, range(self._n_vocab))
        ]
        return table, end_tokens

    def control_spellings(self) -> dict[str, int]:
        """The tokens that have a meaning instead of a text, by their spelling."""
        return {text: token for text, token, _ in self._meanings}

    @functools.cached_property
    def _meanings(self) -> list[tuple[str, TokenId, int]]:
        """Of the tokens that have a meaning instead of a text: spelling, id and attributes. A
        native call per token, so not for the first time while there is traffic."""
        attribute = native.llama_vocab_get_attr
        end_tokens = frozenset(self.end_of_generation_ids())
        attributes = [attribute(self.handle, token) for token in range(self._n_vocab)]
        found = [t for t, a in enumerate(attributes) if a & _CONTROL or t in end_tokens]
        pieces = [(self._read_piece(TokenId(token)), TokenId(token)) for token in found]
        return [(p.decode(), token, attributes[token]) for p, token in pieces if _is_text(p)]

    # Input

    @functools.cached_property
    def spellings(self) -> Spellings:
        """Of the tokens that are read in a text by their spelling and have a meaning instead of a
        text. Tokens that the model's makers added as text, such as ``<think>``, are not among
        them."""
        return Spellings(self._controls)

    @functools.cached_property
    def _controls(self) -> dict[str, TokenId]:
        return {text: token for text, token, attributes in self._meanings if attributes & _READ}

    def encode(
        self,
        text: str,
        *,
        add_special: bool,
        literals: Sequence[Span] = (),
        parse_special: bool = True,
    ) -> list[TokenId]:
        """``parse_special``: the spelling of a control token in ``text`` becomes that token, as in
        every ``tokenizer.json``, unless it is one of ``literals``."""
        utf8(text)
        if literals:
            ids = self._encode_parts(text, frozenset(literals))
            return self._with_special(ids) if add_special else ids
        parts = cut_long_runs(text, MAX_RUN) if self.is_bpe else [text]
        if len(parts) == 1:
            return self._tokenize(text, add_special=add_special, parse_special=parse_special)
        ids = [
            token
            for part in parts
            for token in self._tokenize(part, add_special=False, parse_special=parse_special)
        ]
        return self._with_special(ids) if add_special else ids

    def encode_with_offsets(
        self,
        text: str,
        *,
        add_special: bool,
        literals: Sequence[Span] = (),
        parse_special: bool = True,
    ) -> list[EncodedToken]:
        data = utf8(text)
        ids = self.encode(
            text, add_special=add_special, literals=literals, parse_special=parse_special
        )
        n_first = int(add_special and self._adds_bos and bool(ids))
        n_last = int(add_special and self._adds_last and len(ids) > n_first)
        inner = ids[n_first : len(ids) - n_last]
        return [
            *(EncodedToken(token, 0, 0) for token in ids[:n_first]),
            *self._align(data, inner),
            *(EncodedToken(token, 0, 0) for token in ids[len(ids) - n_last :]),
        ]

    def _encode_parts(self, text: str, literals: frozenset[Span]) -> list[TokenId]:
        ids: list[TokenId] = []
        parts = cut_at_controls(text, self.spellings.find(text), literals)
        for index, (part, is_literal) in enumerate(parts):
            if not is_literal:
                ids += self.encode(part, add_special=False)
                continue
            if ids and self._attributes(ids[-1]) & _SWALLOWS_BEHIND:
                part = part.lstrip(_STRIPPED)
            if index + 1 < len(parts) and self._swallows_before(parts[index + 1][0]):
                part = part.rstrip(_STRIPPED)
            ids += self._encode_literal(part)
        return ids

    def _swallows_before(self, text: str) -> bool:
        """Whether the control token that ``text`` begins with takes the white space before it."""
        start, stop = self.spellings.find(text)[0]
        return bool(self._attributes(self._controls[text[start:stop]]) & _SWALLOWS_BEFORE)

    def _encode_literal(self, text: str) -> list[TokenId]:
        ids = self.encode(text, add_special=False, parse_special=False)
        # The words of the text may happen to merge into a control token.
        accidents = self._accidents.intersection(ids)
        if not accidents:
            return ids
        return [
            letter
            for token in ids
            for letter in (self._spelled_out(token) if token in accidents else [token])
        ]

    @functools.cached_property
    def _accidents(self) -> frozenset[TokenId]:
        unknown = native.LLAMA_TOKEN_ATTR_UNKNOWN
        controls = self._controls.values()
        return frozenset(t for t in controls if not self._attributes(t) & unknown)

    @functools.cached_property
    def _letters(self) -> dict[bytes, TokenId]:
        """The tokens of single bytes."""
        pieces = ((self._read_piece(t), t) for t in map(TokenId, range(self._n_vocab)))
        return {piece: token for piece, token in pieces if len(piece) == 1}

    def _spelled_out(self, token: TokenId) -> list[TokenId]:
        """The tokens of the bytes of a token."""
        letters = [self._letters.get(bytes((byte,))) for byte in self.piece(token)]
        known = [letter for letter in letters if letter is not None]
        if len(known) < len(letters):
            raise ValidationError("tokenizer error a control token cannot be written as text")
        return known

    def _attributes(self, token: TokenId) -> int:
        return int(native.llama_vocab_get_attr(self.handle, token))

    def _tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[TokenId]:
        data = text.encode()
        n_room = len(data) + 4  # a token has a byte at least, but for the special ones
        while True:
            tokens = (native.llama_token * n_room)()
            n_tokens = native.llama_tokenize(
                self.handle, data, len(data), tokens, n_room, add_special, parse_special
            )
            if n_tokens >= 0:
                return cast("list[TokenId]", tokens[:n_tokens])
            if n_tokens == _TOO_MANY_TOKENS:
                raise ValidationError(f"tokenizer error the text is too long: {len(data)} bytes")
            n_room = -n_tokens

    def _with_special(self, ids: list[TokenId]) -> list[TokenId]:
        first = [self.bos_id] if self._adds_bos else []
        last = [self.eos_id] if self._adds_last else []
        return [token for token in (*first, *ids, *last) if token is not None]

    # Where tokens come from in the text

    def _align(self, data: bytes, ids: list[TokenId]) -> list[EncodedToken]:
        """Finds the tokens in the text they were made from."""
        tokens: list[EncodedToken] = []
        position = 0
        for segment in self._segments(ids):
            pieces = [self.piece(token) for token in segment]
            pieces[0] = _without_added_space(data, position, pieces)
            for token, piece in zip(segment, pieces, strict=True):
                start = _find_near(data, piece, position)
                if start is None:  # the vocabulary changed the text, or does not know it
                    start, piece = position, b""
                position = start + len(piece)
                tokens.append(EncodedToken(token, *_whole_characters(data, start, position)))
        return tokens

    def _segments(self, ids: list[TokenId]) -> list[list[TokenId]]:
        """Cuts the tokens where llama.cpp cuts the text: around tokens found by their spelling."""
        segments: list[list[TokenId]] = []
        starts_new = True
        for token in ids:
            is_spelled = self._facts_of(token).is_spelled
            if starts_new or is_spelled:
                segments.append([])
            segments[-1].append(token)
            starts_new = is_spelled
        return segments

    # Facts of single tokens

    def _facts_of(self, token: TokenId) -> _TokenFacts:
        if token < 0:
            raise IndexError(f"token {token} is outside of the vocabulary")
        facts = self._facts[token]
        if facts is None:
            facts = self._facts[token] = self._read_facts(token)
        return facts

    def _read_facts(self, token: TokenId) -> _TokenFacts:
        attributes = native.llama_vocab_get_attr(self.handle, token)
        return _TokenFacts(
            piece=self._read_piece(token),
            is_control=bool(attributes & _CONTROL),
            is_spelled=bool(attributes & _SPELLED),
            is_end_of_generation=native.llama_vocab_is_eog(self.handle, token),
        )

    def _read_piece(self, token: TokenId) -> bytes:
        n_room = _PIECE_BYTES
        while True:
            buffer = ctypes.create_string_buffer(n_room)
            n_bytes = native.llama_token_to_piece(self.handle, token, buffer, n_room, 0, True)
            if n_bytes >= 0:
                return buffer.raw[:n_bytes]
            n_room = -n_bytes

    def _spelling(self, token: TokenId | None) -> str | None:
        return None if token is None else self.piece(token).decode("utf-8", "replace")


def _token_or_none(token: int) -> TokenId | None:
    return None if token == native.LLAMA_TOKEN_NULL else TokenId(token)


def _without_added_space(data: bytes, position: int, pieces: list[bytes]) -> bytes:
    """The first piece of a segment without the space that SentencePiece puts before the text."""
    joined = b"".join(pieces)
    if joined.startswith(b" ") and not data.startswith(joined, position):
        return pieces[0][1:]
    return pieces[0]


def _find_near(data: bytes, piece: bytes, position: int) -> int | None:
    """Where ``piece`` stands at ``position``, or behind the white space there: some control tokens
    swallow what is around them."""
    if data.startswith(piece, position):
        return position
    space = _SPACE.match(data, position)
    start = space.end() if space else position
    return start if data.startswith(piece, start) else None


def _whole_characters(data: bytes, start: int, stop: int) -> tuple[int, int]:
    """Widens a byte range to the characters it touches; an empty range stays empty."""
    while start < len(data) and start > 0 and data[start] & 0xC0 == 0x80:
        start -= 1
    while stop > start and stop < len(data) and data[stop] & 0xC0 == 0x80:
        stop += 1
    return start, stop


def _is_text(piece: bytes) -> bool:
    try:
        return bool(piece.decode())
    except UnicodeDecodeError:
        return False
