"""Reads the pieces that markup is made of: names, marks, JSON values and strings.

Each method is a step of a script (``turns.reader``). Where something else comes than what must come
it raises ``BrokenMarkup``, and ``CutOff`` where the text ends.
"""

import re
from collections.abc import Callable, Collection, Sequence

from .incoming import SPACE, Incoming, Steps, n_undecided
from .json_follower import JsonFollower
from .json_strings import decode_some

_LONGEST_NAME = 200
"""Characters; what is longer is no name."""

_LONGEST_QUOTE = 40
"""Characters of the text that a failure quotes."""

_N_SPACES = 4
"""White space that may stand around a name."""


class BrokenMarkup(Exception):
    """The text is not what its beginning promised."""


class CutOff(BrokenMarkup):
    """The text ends in the middle of markup."""

    def __init__(self) -> None:
        super().__init__("the text ends inside of a tool call")


class MarkupReader:
    """Mutable, one per turn."""

    def __init__(self) -> None:
        self.incoming = Incoming()

    # What must come

    def more(self) -> Steps[None]:
        """Waits for more text. Raises CutOff where none can come."""
        if self.incoming.has_ended:
            raise CutOff
        yield

    def expect(self, literal: str) -> Steps[None]:
        """Takes the literal. Raises BrokenMarkup where something else comes."""
        if not (yield from self.incoming.takes(literal)):
            if self.incoming.has_ended and literal.startswith(self.incoming.waiting):
                raise CutOff
            raise BrokenMarkup(f"{literal!r} is missing before {quoted(self.incoming.waiting)}")

    def expect_after_space(self, literal: str) -> Steps[None]:
        yield from self.incoming.take_space()
        yield from self.expect(literal)

    def take_word(self) -> Steps[str]:
        """Takes letters, digits and underscores. Raises BrokenMarkup where there are none."""
        while not re.search(r"\W", self.incoming.waiting):
            yield from self.more()
        found = re.match(r"\w+", self.incoming.waiting)
        if found is None:
            raise BrokenMarkup(f"no name at {quoted(self.incoming.waiting)}")
        return self.incoming.take(found.end())

    def optional_mark(self, literal: str) -> Steps[None]:
        """Takes the mark, and white space before it, where it comes; also where the text ends in
        the middle of it."""
        yield from self.incoming.take_space()
        found = yield from self.incoming.takes(literal)
        waiting = self.incoming.waiting
        if not found and self.incoming.has_ended and literal.startswith(waiting):
            self.incoming.take(len(waiting))

    def end_mark(self, literal: str) -> Steps[None]:
        """Takes the mark that ends a complete call, after white space, where it comes. A text that
        ends instead, or in the middle of it, has been understood as well."""
        yield from self.incoming.take_space()
        if (yield from self.incoming.takes(literal)):
            return
        if self.incoming.has_ended and literal.startswith(self.incoming.waiting):
            self.incoming.take(len(literal))
            return
        raise BrokenMarkup(f"{literal!r} is missing before {quoted(self.incoming.waiting)}")

    # Names and text up to a mark

    def take_until(
        self, marks: Sequence[str], write: Callable[[str], None], *, drops_cut: bool = False
    ) -> Steps[str | None]:
        """As ``write_until``, but the text goes to ``write`` as it comes. ``drops_cut``: what may
        be the beginning of a mark that the end of the text cuts off is left."""
        pattern = re.compile("|".join(map(re.escape, marks)))
        incoming = self.incoming
        while True:
            waiting = incoming.waiting
            found = pattern.search(waiting)
            if found is not None:
                write(incoming.take(found.start()))
                return found.group()
            n_held = n_undecided(waiting, marks) if drops_cut or not incoming.has_ended else 0
            write(incoming.take(len(waiting) - n_held))
            if incoming.has_ended:
                return None
            yield

    def take_name(self, end: str) -> Steps[str]:
        """A name up to ``end``, which is taken, without white space around it. Raises BrokenMarkup
        where there is none."""
        pieces: list[str] = []

        def add(piece: str) -> None:
            pieces.append(piece)
            if sum(map(len, pieces)) > _LONGEST_NAME:
                raise BrokenMarkup(f"a name is too long: {quoted(''.join(pieces))}")

        if (yield from self.take_until((end,), add)) is None:
            raise CutOff
        yield from self.expect(end)
        name = "".join(pieces).strip(SPACE)
        if not name:
            raise BrokenMarkup("a name is empty")
        return name

    def take_name_of(self, names: Collection[str], marks: Sequence[str]) -> Steps[str]:
        """Takes what may be one of ``names``, which ends before one of ``marks``. Raises
        BrokenMarkup where it becomes longer than any of them."""
        pattern = re.compile("|".join(map(re.escape, marks)))
        longest = max(map(len, names), default=0) + _N_SPACES
        while True:
            waiting = self.incoming.waiting
            found = pattern.search(waiting)
            if found is not None and found.start() <= longest:
                return self.incoming.take(found.start())
            if found is not None or len(waiting) > longest + max(map(len, marks)):
                raise BrokenMarkup(f"no tool is called {quoted(waiting)}")
            yield from self.more()

    # JSON

    def value(
        self, write: Callable[[str], None], follower: JsonFollower | None = None
    ) -> Steps[None]:
        """A JSON value, whose text goes to ``write`` as it comes; the rest of one that
        ``follower`` has begun to read. Raises BrokenMarkup at the first character that is none."""
        follower = follower or JsonFollower()
        while not follower.is_complete:
            waiting = self.incoming.waiting
            n_read = follower.read(waiting)
            write(self.incoming.take(n_read))
            if follower.is_broken:
                raise BrokenMarkup(f"not JSON at {quoted(self.incoming.waiting)}")
            if not follower.is_complete:
                yield from self.more()

    def string(self) -> Steps[str]:
        """A JSON string, decoded. Raises BrokenMarkup where none comes next."""
        pieces: list[str] = []
        yield from self.expect('"')
        yield from self.string_rest(pieces.append)
        return "".join(pieces)

    def string_rest(self, write: Callable[[str], None]) -> Steps[None]:
        """A JSON string behind its opening quote, decoded as it comes."""
        while True:
            decoded = decode_some(self.incoming.waiting)
            self.incoming.take(decoded.n_read)
            write(decoded.text)
            if decoded.is_complete:
                return
            if decoded.is_broken:
                raise BrokenMarkup(f"not a JSON string at {quoted(self.incoming.waiting)}")
            yield from self.more()

    def has_key(self, *, is_first: bool) -> Steps[bool]:
        """Reads up to the next key of an object, or over the end of the object."""
        yield from self.incoming.take_space()
        if (yield from self.incoming.takes("}")):
            return False
        if not is_first:
            yield from self.expect(",")
            yield from self.incoming.take_space()
        return True

    def has_item(self, *, is_first: bool) -> Steps[bool]:
        """Reads up to the next item of a list, or over the end of the list."""
        yield from self.incoming.take_space()
        if (yield from self.incoming.takes("]")):
            return False
        if not is_first:
            yield from self.expect(",")
            yield from self.incoming.take_space()
        return True


def quoted(text: str) -> str:
    return repr(text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}...")
