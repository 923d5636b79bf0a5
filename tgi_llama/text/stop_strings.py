"""Finds stop strings in text that arrives in pieces of any size.

The text is read one character at a time and each stop string keeps count of how much of it the
text read so far ends with (Knuth, Morris and Pratt, 1977). So where the pieces are cut does not
matter, a character costs a constant time per stop string however long that is, and nothing has to
be read twice.
"""

import re
from collections.abc import Sequence

import attrs


@attrs.frozen
class Visible:
    """What one push lets out."""

    text: str
    stopped: bool
    """A stop string is complete; nothing may be pushed any more."""


@attrs.define(eq=False)
class _Progress:
    """How far one stop string is matched by the end of the text."""

    pattern: str
    n_matched: int = 0
    _borders: list[int] = attrs.field(init=False, factory=lambda: [0, 0])
    """At k, the length of the longest proper prefix of ``pattern[:k]`` that is also its suffix.
    Grown as deep as matches get, so that a long stop string that never shows up costs nothing."""

    def advance(self, character: str) -> bool:
        """Reads one character; True when the text now ends with the pattern."""
        n_matched = self.n_matched
        while n_matched and self.pattern[n_matched] != character:
            n_matched = self._border(n_matched)
        if self.pattern[n_matched] == character:
            n_matched += 1
        self.n_matched = n_matched
        return n_matched == len(self.pattern)

    def _border(self, length: int) -> int:
        borders, pattern = self._borders, self.pattern
        while len(borders) <= length:
            character = pattern[len(borders) - 1]
            border = borders[-1]
            while border and pattern[border] != character:
                border = borders[border]
            borders.append(border + 1 if pattern[border] == character else border)
        return borders[length]


class StopMatcher:
    """Ends a text at the first stop string in it.

    The first is the one whose last character comes first. Of several that end at the same
    character the longest counts, which matters only where it is cut off. Empty stop strings never
    match.

    With ``keep`` the text up to and including the stop string is visible, and all text is visible
    at once. Otherwise it is cut before the stop string, so text that may still become one is held
    back until that is decided.
    """

    def __init__(self, stop_strings: Sequence[str], *, keep: bool) -> None:
        self._keep = keep
        self._progress = [_Progress(pattern) for pattern in dict.fromkeys(stop_strings) if pattern]
        first_characters = {progress.pattern[0] for progress in self._progress}
        self._start = re.compile("|".join(map(re.escape, sorted(first_characters))))
        self._n_open = 0
        """Length of the longest end of the text that may become a stop string."""
        self._held = ""
        self._stopped = False

    def push(self, piece: str) -> Visible:
        """The next piece of the text. Not to be called after a stop."""
        assert not self._stopped
        if not self._progress:
            return Visible(piece, stopped=False)
        position = 0
        while position < len(piece):
            if not self._n_open:
                start = self._start.search(piece, position)
                if start is None:
                    break
                position = start.start()
            n_complete = self._advance(piece[position])
            position += 1
            if n_complete:
                return self._stop(piece[:position], n_complete)
        return Visible(self._release(piece), stopped=False)

    def flush(self) -> str:
        """Lets out what is held back, when the text ends for another reason."""
        held, self._held = self._held, ""
        return held

    def _advance(self, character: str) -> int:
        """Reads one character; returns the length of the longest stop string it completes, or 0."""
        n_open = n_complete = 0
        for progress in self._progress:
            if progress.advance(character):
                n_complete = max(n_complete, progress.n_matched)
            n_open = max(n_open, progress.n_matched)
        self._n_open = n_open
        return n_complete

    def _stop(self, piece: str, n_complete: int) -> Visible:
        self._stopped = True
        if self._keep:
            return Visible(piece, stopped=True)
        text = self.flush() + piece
        return Visible(text[: len(text) - n_complete], stopped=True)

    def _release(self, piece: str) -> str:
        if self._keep:
            return piece
        text = self._held + piece
        n_visible = len(text) - self._n_open
        self._held = text[n_visible:]
        return text[:n_visible]
