"""What the readers of all formats share: a parser that runs a format's script.

A script is a generator that takes the text of a turn apart with the methods of ``TurnReader``. It
calls ``begin_markup`` before it takes what may be a call. Where it then finds something else it
raises ``BrokenMarkup``, and all of the text since then is content, the rest of the turn included.
Once a call has begun it cannot be taken back: then the rest is content, and the arguments that were
given out remain the beginning of valid JSON.
"""

import re
from collections.abc import Callable, Collection, Sequence

from .incoming import SPACE, Incoming, Steps, n_undecided
from .json_follower import JsonFollower
from .json_strings import decode_some
from .parts import CallArguments, CallBegin, Content, Reasoning, TurnPart

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


Script = Callable[["TurnReader"], Steps[None]]


class TurnReader:
    """A ``TurnParser``. Scripts use the rest."""

    def __init__(self, script: Script, tool_names: Collection[str] = ()) -> None:
        self.incoming = Incoming()
        self._tool_names = tool_names
        self._parts: list[TurnPart] = []
        self._n_calls = 0
        self._call_is_open = False
        self._has_arguments = False
        self._failure: str | None = None
        self._text = _HeldSpace()
        self._steps = self._run(script)

    # For those who have a turn to read

    @property
    def n_calls(self) -> int:
        return self._n_calls

    @property
    def failure(self) -> str | None:
        return self._failure

    def push(self, text: str) -> Sequence[TurnPart]:
        self.incoming.push(text)
        return self._advance()

    def finish(self) -> Sequence[TurnPart]:
        self.incoming.end()
        return self._advance()

    def _advance(self) -> Sequence[TurnPart]:
        next(self._steps, None)
        parts, self._parts = self._parts, []
        return parts

    def _run(self, script: Script) -> Steps[None]:
        try:
            yield from script(self)
        except CutOff as cut:
            if self._call_is_open or not self.incoming.is_remembering:
                return  # what was given out ends where the text does
            self._fail(str(cut))
        except BrokenMarkup as broken:
            self._fail(str(broken))
        while True:
            self.write(self.incoming.take(len(self.incoming.waiting)))
            if self.incoming.has_ended:
                break
            yield
        self._end_content()

    def _fail(self, reason: str) -> None:
        began = " after its call had begun" if self._call_is_open else ""
        self._failure = f"{reason}{began}"
        self._call_is_open = False
        self.incoming.give_back()

    # Text

    def write(self, text: str) -> None:
        """Text for the user. White space at its end is held back until more comes."""
        released = self._text.push(text)
        if released:
            self._parts.append(Content(released))

    def skip_space(self) -> None:
        """White space that comes next in the content is no part of it."""
        self._text.skip()

    def _end_content(self) -> None:
        held = self._text.flush()
        if held:
            self._parts.append(Content(held))

    def write_until(self, marks: Sequence[str]) -> Steps[str | None]:
        """Content up to the first of ``marks``, none of which may begin another. The mark is not
        taken; None where the text ends without one."""
        return (yield from self.take_until(marks, self.write))

    def reasoning_until(self, marks: Sequence[str]) -> Steps[str | None]:
        """As ``write_until``, for reasoning; white space around it is no part of it, and neither is
        the beginning of a mark with which the text ends."""
        text = _HeldSpace()
        text.skip()

        def write(piece: str) -> None:
            released = text.push(piece)
            if released:
                self._parts.append(Reasoning(released))

        found = yield from self.take_until(marks, write, drops_cut=True)
        if found is None:
            self.incoming.take(len(self.incoming.waiting))
        return found

    def think(self, text: str) -> None:
        """A piece of reasoning."""
        self._parts.append(Reasoning(text))

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

    # Calls

    def begin_markup(self) -> None:
        """From here on the text may be a call."""
        self.incoming.remember()

    def attempt(self, steps: Steps[None]) -> Steps[bool]:
        """Reads what may be a call but may as well be content, behind ``begin_markup``: where it
        breaks before a call has begun, nothing is taken and nothing has failed."""
        n_calls = self._n_calls
        try:
            yield from steps
        except BrokenMarkup:
            if self._n_calls > n_calls:
                raise
            self.incoming.give_back()
            return False
        return True

    def begin_call(self, name: str) -> None:
        """A call is certain. Raises BrokenMarkup for a tool that there is not."""
        if name not in self._tool_names:
            raise BrokenMarkup(f"there is no tool {_quoted(name)}")
        self._text.skip()  # what stood before the call
        self.incoming.forget()
        self._parts.append(CallBegin(self._n_calls, name))
        self._n_calls += 1
        self._call_is_open = True
        self._has_arguments = False

    def write_arguments(self, text: str) -> None:
        """A piece of the arguments of the call that is open."""
        if text:
            self._has_arguments = True
            self._parts.append(CallArguments(self._n_calls - 1, text))

    def end_call(self) -> None:
        """The open call is complete; one without arguments gets an empty object."""
        if not self._has_arguments:
            self.write_arguments("{}")
        self._call_is_open = False
        self._text.skip()  # what stands between calls

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
                raise BrokenMarkup(f"not JSON at {_quoted(self.incoming.waiting)}")
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
                raise BrokenMarkup(f"not a JSON string at {_quoted(self.incoming.waiting)}")
            yield from self.more()

    def arguments(self, write: Callable[[str], None]) -> Steps[None]:
        """The value of a call's arguments: an object; a string that holds one; or null, which
        writes nothing. Raises BrokenMarkup for anything else."""
        yield from self.incoming.take_space()
        match (yield from self.incoming.next_character()):
            case "{":
                yield from self.value(write)
            case '"':
                write((yield from self._object_in_string()))
            case "n":
                yield from self.expect("null")
            case "":
                raise CutOff
            case _:
                raise BrokenMarkup("the arguments are no object")

    def _object_in_string(self) -> Steps[str]:
        """Decoded as a whole: the text in it may break after the string has."""
        text = (yield from self.string()).strip(SPACE)
        follower = JsonFollower()
        n_read = follower.read(text)
        if text and not (text.startswith("{") and follower.is_complete and n_read == len(text)):
            raise BrokenMarkup("the arguments are a string that holds no object")
        return text

    def call_object(
        self,
        *,
        name_keys: Collection[str] = ("name",),
        argument_keys: Collection[str] = ("arguments", "parameters"),
        first_keys: Collection[str] = (),
        skipped: Collection[str] = (),
    ) -> Steps[None]:
        """An object that describes a call, with its keys in any order; others are skipped.
        Arguments that come before the name wait for it. ``first_keys``: the first key must be one
        of these, where there are any. An object with a name in ``skipped`` is read over."""
        held: list[str] = []
        yield from self.expect("{")
        is_first, has_begun = True, False
        while (yield from self._has_key(is_first=is_first)):
            key = yield from self.string()
            if is_first and first_keys and key not in first_keys:
                raise BrokenMarkup(f"{_quoted(key)} begins no tool call")
            is_first = False
            yield from self._expect_after_space(":")
            yield from self.incoming.take_space()
            if key in name_keys and not has_begun:
                name = yield from self.string()
                has_begun = True
                if name not in skipped:
                    self.begin_call(name)
                    self.write_arguments("".join(held))
            elif key in argument_keys and not held and not self._has_open_arguments:
                writes = self._call_is_open
                yield from self.arguments(self.write_arguments if writes else held.append)
            else:
                yield from self.value(_nowhere)
        if not has_begun:
            raise BrokenMarkup("a tool call without a name")
        if self._call_is_open:
            self.end_call()

    @property
    def _has_open_arguments(self) -> bool:
        return self._call_is_open and self._has_arguments

    def _has_key(self, *, is_first: bool) -> Steps[bool]:
        """Reads up to the next key of an object, or over the end of the object."""
        yield from self.incoming.take_space()
        if (yield from self.incoming.takes("}")):
            return False
        if not is_first:
            yield from self.expect(",")
            yield from self.incoming.take_space()
        return True

    def call_list(
        self, *, name_keys: Collection[str] = ("name",), skipped: Collection[str] = ()
    ) -> Steps[None]:
        """A list of objects that each describe a call, or one such object alone; those with a name
        in ``skipped`` are none (``call_object``)."""
        yield from self.incoming.take_space()
        if not (yield from self.incoming.takes("[")):
            yield from self.call_object(name_keys=name_keys, skipped=skipped)
            return
        is_first = True
        while (yield from self._has_item(is_first=is_first)):
            is_first = False
            if not self.incoming.is_remembering:  # a call before this one has begun
                self.begin_markup()
            yield from self.call_object(name_keys=name_keys, skipped=skipped)
        self.incoming.forget()

    def _has_item(self, *, is_first: bool) -> Steps[bool]:
        """Reads up to the next item of a list, or over the end of the list."""
        yield from self.incoming.take_space()
        if (yield from self.incoming.takes("]")):
            return False
        if not is_first:
            yield from self.expect(",")
            yield from self.incoming.take_space()
        return True

    def take_name(self, end: str) -> Steps[str]:
        """A name up to ``end``, which is taken, without white space around it. Raises BrokenMarkup
        where there is none."""
        pieces: list[str] = []

        def add(piece: str) -> None:
            pieces.append(piece)
            if sum(map(len, pieces)) > _LONGEST_NAME:
                raise BrokenMarkup(f"a name is too long: {_quoted(''.join(pieces))}")

        if (yield from self.take_until((end,), add)) is None:
            raise CutOff
        yield from self.expect(end)
        name = "".join(pieces).strip(SPACE)
        if not name:
            raise BrokenMarkup("a name is empty")
        return name

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
            raise BrokenMarkup(f"{literal!r} is missing before {_quoted(self.incoming.waiting)}")

    def _expect_after_space(self, literal: str) -> Steps[None]:
        yield from self.incoming.take_space()
        yield from self.expect(literal)

    def take_tool_name(self, marks: Sequence[str]) -> Steps[str]:
        """Takes a tool's name, which ends before one of ``marks``. Raises BrokenMarkup where it
        becomes longer than any tool's name."""
        pattern = re.compile("|".join(map(re.escape, marks)))
        longest = max(map(len, self._tool_names), default=0) + _N_SPACES
        while True:
            waiting = self.incoming.waiting
            found = pattern.search(waiting)
            if found is not None and found.start() <= longest:
                return self.incoming.take(found.start())
            if found is not None or len(waiting) > longest + max(map(len, marks)):
                raise BrokenMarkup(f"no tool is called {_quoted(waiting)}")
            yield from self.more()

    def take_word(self) -> Steps[str]:
        """Takes letters, digits and underscores. Raises BrokenMarkup where there are none."""
        while not re.search(r"\W", self.incoming.waiting):
            yield from self.more()
        found = re.match(r"\w+", self.incoming.waiting)
        if found is None:
            raise BrokenMarkup(f"no name at {_quoted(self.incoming.waiting)}")
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
        raise BrokenMarkup(f"{literal!r} is missing before {_quoted(self.incoming.waiting)}")


class _HeldSpace:
    """Text whose white space at the end is held back, because a mark may follow it."""

    def __init__(self) -> None:
        self._held = ""
        self._skips = False

    def push(self, text: str) -> str:
        if self._skips:
            text = text.lstrip(SPACE)
            self._skips = not text
        text = self._held + text
        released = text.rstrip(SPACE)
        self._held = text[len(released) :]
        return released

    def skip(self) -> None:
        """Drops what is held, and white space that comes next."""
        self._held, self._skips = "", True

    def flush(self) -> str:
        held, self._held = self._held, ""
        return held


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}...")


def _nowhere(_text: str) -> None:
    pass
