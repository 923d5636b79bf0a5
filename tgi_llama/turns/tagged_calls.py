"""Reads tool calls whose arguments stand between tags, one parameter after the other, and makes a
JSON object of them. Which values are texts, the tool's schema tells (``tagged_values``).

Texts are passed on as they come; other values when they are complete, because only then it is
certain that they are JSON.
"""

import json
from collections.abc import Sequence

import attrs

from tgi_llama.structured.grammar import JsonSchemaGrammar

from .incoming import Steps
from .json_follower import JsonFollower
from .lark import GrammarWriter, one_of
from .markup_reader import BrokenMarkup, CutOff
from .parts import TurnTool
from .reader import TurnReader
from .tagged_values import Parameter, Parameters, as_json

FREE_NAME = r"/[A-Za-z_][A-Za-z0-9_.\-]{0,63}/"
"""What parameters may be called where the schema names none."""


@attrs.frozen(kw_only=True)
class ValueLayout:
    """What stands around a parameter's value."""

    end: str
    """The closing tag. No text contains it."""
    line_break: str
    """Behind the opening tag and before the closing one; it belongs to the markup."""


@attrs.define
class TaggedArguments:
    """Writes the arguments object of the call that is open."""

    _reader: TurnReader
    _parameters: Parameters
    _layout: ValueLayout
    _n_written: int = attrs.field(default=0, init=False)

    def write_parameter(self, name: str) -> Steps[None]:
        """The value of a parameter, behind its opening tag; its closing tag is taken."""
        kind = self._parameters.find(name)
        separator = ", " if self._n_written else "{"
        self._n_written += 1
        self._reader.write_arguments(f"{separator}{_quoted(name)}: ")
        if self._layout.line_break:
            yield from self._reader.incoming.takes(self._layout.line_break)
        if kind.is_plain:
            yield from self._write_text()
        else:
            text = yield from self._whole_value(is_text=kind.is_text)
            self._reader.write_arguments(as_json(text, kind))

    def write_end(self) -> None:
        """The last parameter has been read."""
        if self._n_written:
            self._reader.write_arguments("}")

    def _write_text(self) -> Steps[None]:
        reader, held, end = self._reader, _HeldBreak(self._layout.line_break), self._layout.end
        reader.write_arguments('"')

        def write(piece: str) -> None:
            reader.write_arguments(_quoted(held.push(piece))[1:-1])

        mark = yield from reader.take_until((end,), write, drops_cut=True)
        if mark is None:
            raise CutOff
        reader.write_arguments('"')
        yield from reader.expect(end)

    def _whole_value(self, *, is_text: bool) -> Steps[str]:
        """A string in JSON may hold the end tag, and goes on behind it; a text may not."""
        pieces: list[str] = []
        end = self._layout.end
        follower = JsonFollower()
        while True:
            n_known = len(pieces)
            if (yield from self._reader.take_until((end,), pieces.append)) is None:
                raise CutOff
            yield from self._reader.expect(end)
            pieces.append(end)
            follower.read("".join(pieces[n_known:]))
            if is_text or follower.is_broken or follower.is_complete:
                break
        return "".join(pieces).removesuffix(end).removesuffix(self._layout.line_break)


class _HeldBreak:
    """Text whose line break at the end is held back: the last one is none of it."""

    def __init__(self, line_break: str) -> None:
        self._line_break = line_break
        self._held = ""

    def push(self, text: str) -> str:
        text = self._held + text
        released = text.removesuffix(self._line_break)
        self._held = text[len(released) :]
        return released


def take_mark(reader: TurnReader, marks: Sequence[str]) -> Steps[str]:
    """Takes the one of ``marks`` that comes next, after white space. Raises BrokenMarkup where
    something else comes."""
    yield from reader.incoming.take_space()
    mark = yield from reader.incoming.takes_one_of(marks)
    if mark is not None:
        return mark
    waiting = reader.incoming.waiting
    if reader.incoming.has_ended and any(mark.startswith(waiting) for mark in marks):
        raise CutOff
    raise BrokenMarkup(f"{' or '.join(marks)} is missing")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def value_rule(
    grammar: GrammarWriter, tool: TurnTool, parameter: Parameter, layout: ValueLayout
) -> str:
    """An expression for a value, the closing tag and a line break behind it."""
    kind = parameter.kind
    end = f"{layout.line_break}{layout.end}\n"
    if not kind.is_text:
        path = f"properties.{parameter.name}" if parameter.name else "additionalProperties"
        part = JsonSchemaGrammar(schema=parameter.schema, field=f"{tool.field}.parameters.{path}")
        return f"{grammar.part(part)} {grammar.text(end)}"
    if kind.choices is not None:
        return f"{one_of([grammar.text(choice) for choice in kind.choices])} {grammar.text(end)}"
    if kind.min_length or kind.max_length is not None:
        most = "" if kind.max_length is None else kind.max_length
        text = grammar.free_text((layout.end,), f"(?s:.{{{kind.min_length},{most}}})")
        if grammar.is_control(layout.end):
            return f"{text} {grammar.text(end)}"
        return grammar.lazy(f"{text} {grammar.text(end)}")
    return f"{grammar.text_until(layout.end)} {grammar.text(chr(10))}"
