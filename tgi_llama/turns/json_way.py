"""TGI's way of calling tools, for templates that know none.

The prompt asks for one JSON object with ``name`` and ``parameters``, and so does the grammar.
Where no tool need be called there is one more, ``no_tool``, whose ``content`` is the answer: one
run gives either.
"""

from collections.abc import Collection

import attrs

from tgi_llama.structured.grammar import JsonSchemaGrammar

from .formats import OBJECT_BEGIN, named_arguments
from .incoming import Steps
from .lark import NEWLINE, GrammarWriter
from .parts import TurnRequest
from .reader import TurnReader

_STRING = JsonSchemaGrammar(schema={"type": "string"}, field="tools")
_ANSWER_END = "}}"


def no_tool_name(names: Collection[str]) -> str:
    """What the tool is called that is none, beside tools with these names."""
    name = "no_tool"
    while name in names:
        name += "_"
    return name


@attrs.frozen
class JsonCalls:
    name: str = "json"
    marks: tuple[str, ...] = ()

    def rule(self, grammar: GrammarWriter, request: TurnRequest) -> str:
        begin = grammar.text(OBJECT_BEGIN)
        calls = named_arguments(grammar, request.tools, arguments_key="parameters")
        if request.parallel:
            calls += f" ({grammar.text(NEWLINE + OBJECT_BEGIN)} {calls})*"
        if request.must_call:
            return f"{begin} {calls}"
        answer = grammar.part(request.content or _STRING)
        begin_answer, end_answer = grammar.text(_answer_name(request)), grammar.text(_ANSWER_END)
        return f"{begin} ({calls} | {begin_answer} {answer} {end_answer})"

    def read(self, reader: TurnReader, request: TurnRequest) -> Steps[None]:
        incoming = reader.incoming
        yield from incoming.take_space()
        if not request.must_call:
            reader.begin_markup()
            if (yield from incoming.takes(OBJECT_BEGIN + _answer_name(request))):
                incoming.forget()
                return (yield from _read_answer(reader, request))
        while (yield from incoming.next_character()):
            reader.begin_markup()
            yield from reader.call_object()
            yield from incoming.take_space()


def _answer_name(request: TurnRequest) -> str:
    """The answer up to its content, behind ``OBJECT_BEGIN``."""
    name = no_tool_name([tool.name for tool in request.tools])
    return f'"{name}", "parameters": {{"content": '


def _read_answer(reader: TurnReader, request: TurnRequest) -> Steps[None]:
    match request.content:
        case None:
            yield from reader.expect('"')
            yield from reader.string_rest(reader.write)
        case JsonSchemaGrammar():
            yield from reader.value(reader.write)
        case _:
            yield from _write_but_end(reader)
    yield from reader.end_mark(_ANSWER_END)


def _write_but_end(reader: TurnReader) -> Steps[None]:
    """Content that may hold anything: it ends where the text ends with the end of the object."""
    incoming = reader.incoming
    while not incoming.has_ended:
        n_held = len(_ANSWER_END)
        reader.write(incoming.take(max(len(incoming.waiting) - n_held, 0)))
        yield
    n_held = len(_ANSWER_END) if incoming.waiting.endswith(_ANSWER_END) else 0
    reader.write(incoming.take(len(incoming.waiting) - n_held))
