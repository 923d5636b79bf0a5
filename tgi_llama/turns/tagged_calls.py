"""Reads tool calls whose arguments stand between tags, one parameter after the other, and makes a
JSON object of them. Which values are texts, the tool's schema tells (``tagged_values``).

Texts are passed on as they come; other values when they are complete, because only then it is
certain that they are JSON.
"""

import json

import attrs

from .incoming import Steps
from .json_follower import JsonFollower
from .markup_reader import CutOff
from .reader import TurnReader
from .tagged_values import Parameters, as_json


@attrs.define
class TaggedArguments:
    """Writes the arguments object of the call that is open."""

    _reader: TurnReader
    _parameters: Parameters
    _n_written: int = attrs.field(default=0, init=False)

    def write_parameter(self, name: str, end: str) -> Steps[None]:
        """The value of a parameter, behind its opening tag and up to ``end``, which is taken. One
        line break behind the opening tag and one before the end belong to the markup."""
        kind = self._parameters.find(name)
        separator = ", " if self._n_written else "{"
        self._n_written += 1
        self._reader.write_arguments(f"{separator}{_quoted(name)}: ")
        yield from self._reader.incoming.takes("\n")
        if kind.is_plain:
            yield from self._write_text(end)
        else:
            text = yield from self._whole_value(end)
            self._reader.write_arguments(as_json(text, kind))

    def write_end(self) -> None:
        """The last parameter has been read."""
        if self._n_written:
            self._reader.write_arguments("}")

    def _write_text(self, end: str) -> Steps[None]:
        reader, held = self._reader, _HeldBreak()
        reader.write_arguments('"')

        def write(piece: str) -> None:
            reader.write_arguments(_quoted(held.push(piece))[1:-1])

        mark = yield from reader.take_until((end,), write, drops_cut=True)
        if mark is None:
            raise CutOff
        reader.write_arguments('"')
        yield from reader.expect(end)

    def _whole_value(self, end: str) -> Steps[str]:
        """A JSON string may hold the end tag: it goes on behind it."""
        pieces: list[str] = []
        follower = JsonFollower()
        while True:
            n_known = len(pieces)
            if (yield from self._reader.take_until((end,), pieces.append)) is None:
                raise CutOff
            yield from self._reader.expect(end)
            pieces.append(end)
            follower.read("".join(pieces[n_known:]))
            if follower.is_broken or follower.is_complete:
                break
        return "".join(pieces).removesuffix(end).removesuffix("\n")


class _HeldBreak:
    """Text whose line break at the end is held back: the last one is none of it."""

    def __init__(self) -> None:
        self._held = ""

    def push(self, text: str) -> str:
        text = self._held + text
        released = text.removesuffix("\n")
        self._held = text[len(released) :]
        return released


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
