"""From token ids to text, one token at a time, on the decode thread."""

import codecs
from typing import Protocol

import attrs

from tgi_llama.generation import TokenId


class Pieces(Protocol):
    """What detokenisation needs of a vocabulary."""

    def piece(self, token: TokenId) -> bytes: ...


def _new_decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")("replace")


@attrs.define(eq=False)
class Detokenizer:
    """The text of one sequence as its tokens come.

    A character that is spread over several tokens is held back until its last byte. Bytes that can
    never become a character turn into U+FFFD, exactly as ``bytes.decode("utf-8", "replace")`` does.
    A leading space belongs to the text, because the prompt stands before it. What is still
    incomplete when the generation ends was never returned, and so is dropped.
    """

    vocabulary: Pieces
    _decoder: codecs.IncrementalDecoder = attrs.field(init=False, factory=_new_decoder)

    def step(self, token: TokenId) -> str:
        """What ``token`` adds to the text; empty while a character is incomplete."""
        return self._decoder.decode(self.vocabulary.piece(token))

    def peek(self, token: TokenId) -> str:
        """What ``step(token)`` would return. Changes nothing."""
        state = self._decoder.getstate()
        text = self._decoder.decode(self.vocabulary.piece(token))
        self._decoder.setstate(state)
        return text
