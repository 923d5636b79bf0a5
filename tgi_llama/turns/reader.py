"""What the readers of all formats share: a parser that runs a format's script.

A script is a generator that takes the text of a turn apart with the methods of ``TurnReader``. It
calls ``begin_markup`` before it takes what may be a call. Where it then finds something else it
raises ``BrokenMarkup``, and all of the text since then is content, the rest of the turn included.
Once a call has begun it cannot be taken back: then the rest is content, and the arguments that were
given out remain the beginning of valid JSON.
"""

from collections.abc import Callable, Collection, Sequence

from .incoming import SPACE, Steps
from .json_follower import JsonFollower
from .markup_reader import BrokenMarkup, CutOff, MarkupReader, quoted
from .parts import CallArguments, CallBegin, Content, Reasoning, TurnPart

Script = Callable[["TurnReader"], Steps[None]]


class TurnReader(MarkupReader):
    """A ``TurnParser``. Scripts use the rest."""

    def __init__(self, script: Script, tool_names: Collection[str] = ()) -> None:
        super().__init__()
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
        except CutOff:
            raise  # it may have been a call
        except BrokenMarkup:
            if self._n_calls > n_calls:
                raise
            self.incoming.give_back()
            return False
        return True

    def take_tool_name(self, marks: Sequence[str]) -> Steps[str]:
        """Takes what may be a tool's name, which ends before one of ``marks``."""
        return (yield from self.take_name_of(self._tool_names, marks))

    def begin_call(self, name: str) -> None:
        """A call is certain. Raises BrokenMarkup for a tool that there is not."""
        if name not in self._tool_names:
            raise BrokenMarkup(f"there is no tool {quoted(name)}")
        self._text.skip()  # what stood before the call, and what will stand behind it
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

    # JSON

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
        while (yield from self.has_key(is_first=is_first)):
            key = yield from self.string()
            if is_first and first_keys and key not in first_keys:
                raise BrokenMarkup(f"{quoted(key)} begins no tool call")
            is_first = False
            yield from self.expect_after_space(":")
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
        while (yield from self.has_item(is_first=is_first)):
            is_first = False
            if not self.incoming.is_remembering:  # a call before this one has begun
                self.begin_markup()
            yield from self.call_object(name_keys=name_keys, skipped=skipped)
        self.incoming.forget()


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


def _nowhere(_text: str) -> None:
    pass
