"""The text side of one generation: tokens in, what a client may see out. Decode thread only."""

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

from tgi_llama.generation import TokenId

from .detokenizer import Detokenizer, Pieces
from .stop_strings import StopMatcher


class OutputVocabulary(Pieces, Protocol):
    """The part of ``engine.model_runner.Vocabulary`` that makes text."""

    def is_control(self, token: TokenId) -> bool: ...

    def is_end_of_generation(self, token: TokenId) -> bool: ...


class Piece(NamedTuple):
    """What one token brings. One is made per token, and a tuple is the quickest to make."""

    token_text: str
    """The token's own text (``generation.Token.text``): what it adds, even where that is held
    back; the spelling of a control token."""
    delta: str
    """What becomes visible (``generation.TokenEvent.delta``)."""
    stopped: bool
    """A stop string is complete. Nothing may be pushed any more and nothing is held back."""


class OutputText:
    """Detokenises one sequence and ends it at a stop string.

    Control tokens and tokens that end the generation are not part of the text, but for those in
    ``shown_controls``. One whose spelling equals a stop string stops the generation all the same,
    as in TGI.
    """

    def __init__(
        self,
        vocabulary: OutputVocabulary,
        *,
        stop_strings: Sequence[str] = (),
        keep_stop_string: bool = True,
        shown_controls: Collection[TokenId] = (),
    ) -> None:
        self._vocabulary = vocabulary
        self._shown_controls = shown_controls
        self._stop_strings = frozenset(stop_strings)
        self._keep_stop_string = keep_stop_string
        self._has_stop_strings = any(stop_strings)
        self._detokenizer = Detokenizer(vocabulary)
        self._matcher = StopMatcher(stop_strings, keep=keep_stop_string)

    def push(self, token: TokenId) -> Piece:
        """The next token. Not to be called after a stop."""
        if self._is_hidden(token):
            return self._push_hidden(token)
        text = self._detokenizer.step(token)
        if not self._has_stop_strings:
            return Piece(text, text, stopped=False)
        visible = self._matcher.push(text)
        if visible.stopped and self._keep_stop_string:
            # Nothing is held back here, so what is visible is this token up to the stop string.
            return Piece(visible.text, visible.text, stopped=True)
        return Piece(text, visible.text, visible.stopped)

    def peek(self, token: TokenId) -> str:
        """The ``token_text`` that ``push(token)`` would give before any stop string is cut: for
        the alternatives of a step. Changes nothing."""
        if self._is_hidden(token):
            return self._spelling(token)
        return self._detokenizer.peek(token)

    def finish(self) -> str:
        """What is held back, to be shown when the generation ends without a stop string. An
        incomplete character is dropped."""
        return self._matcher.flush()

    def _is_hidden(self, token: TokenId) -> bool:
        vocabulary = self._vocabulary
        if token in self._shown_controls:
            return False
        return vocabulary.is_control(token) or vocabulary.is_end_of_generation(token)

    def _push_hidden(self, token: TokenId) -> Piece:
        spelling = self._spelling(token)
        stopped = spelling in self._stop_strings and spelling != ""
        return Piece(spelling, self._matcher.flush() if stopped else "", stopped)

    def _spelling(self, token: TokenId) -> str:
        return self._vocabulary.piece(token).decode("utf-8", "replace")
