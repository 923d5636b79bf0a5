"""The text of a turn, read from the front while it arrives.

Readers are generators: each ``yield`` says that more text is needed, and the reading goes on when
some has arrived or the text has ended. So a format's reader is written as if all text were there,
and where the pieces are cut cannot matter.
"""

from collections.abc import Generator, Sequence
from typing import TypeVar

T = TypeVar("T")

Steps = Generator[None, None, T]
"""A reading that ends with a ``T``."""

SPACE = " \t\n\r"


class Incoming:
    """Mutable, one per turn."""

    def __init__(self) -> None:
        self._text = ""
        self._remembered: list[str] | None = None
        self.has_ended = False

    @property
    def waiting(self) -> str:
        """What has arrived and is not taken yet."""
        return self._text

    def push(self, text: str) -> None:
        self._text += text

    def end(self) -> None:
        """No more text will be pushed."""
        self.has_ended = True

    def take(self, n_characters: int) -> str:
        """Takes what is waiting, or its beginning."""
        taken, self._text = self._text[:n_characters], self._text[n_characters:]
        if self._remembered is not None:
            self._remembered.append(taken)
        return taken

    def remember(self) -> None:
        """From here on what is taken may have to be given back."""
        self._remembered = []

    @property
    def is_remembering(self) -> bool:
        return self._remembered is not None

    def forget(self) -> None:
        self._remembered = None

    def give_back(self) -> None:
        """What was taken since ``remember`` is waiting again; nothing after ``forget``."""
        remembered, self._remembered = self._remembered, None
        self._text = "".join(remembered or ()) + self._text

    def next_character(self) -> Steps[str]:
        """The next character, which is not taken; empty at the end of the text."""
        while not self._text and not self.has_ended:
            yield
        return self._text[:1]

    def take_space(self) -> Steps[None]:
        """Takes all white space that comes next."""
        while True:
            self.take(len(self._text) - len(self._text.lstrip(SPACE)))
            if self._text or self.has_ended:
                return
            yield

    def starts_with_one_of(self, literals: Sequence[str]) -> Steps[str | None]:
        """The longest of ``literals`` that comes next, which is not taken; None where none does."""
        while not self.has_ended and any(
            len(literal) > len(self._text) and literal.startswith(self._text)
            for literal in literals
        ):
            yield
        found = [literal for literal in literals if self._text.startswith(literal)]
        return max(found, key=len, default=None)

    def takes_one_of(self, literals: Sequence[str]) -> Steps[str | None]:
        """Takes the longest of ``literals`` that comes next; None and nothing where none does."""
        found = yield from self.starts_with_one_of(literals)
        if found is not None:
            self.take(len(found))
        return found

    def takes(self, literal: str) -> Steps[bool]:
        """Whether the literal came next; then it is taken."""
        return (yield from self.takes_one_of((literal,))) is not None


def n_undecided(text: str, marks: Sequence[str]) -> int:
    """How many characters at the end of the text may be the beginning of a mark."""
    longest = max(map(len, marks), default=0)
    for length in range(min(longest - 1, len(text)), 0, -1):
        tail = text[len(text) - length :]
        if any(mark.startswith(tail) for mark in marks):
            return length
    return 0
