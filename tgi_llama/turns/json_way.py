"""TGI's way of calling tools, for templates that know none.

The prompt asks for one JSON object with ``name`` and ``parameters``, and so does the grammar.
Where no tool need be called there is one more, ``no_tool``, whose ``content`` is the answer: one
run gives either.
"""

import attrs

from tgi_llama.structured.grammar import JsonSchemaGrammar

from .formats import call_objects
from .incoming import Steps
from .lark import NEWLINE, GrammarWriter
from .parts import TurnRequest
from .reader import TurnReader

NO_TOOL = "no_tool"
_ANSWER = f'{{"name": "{NO_TOOL}", "parameters": {{"content": '
_ANSWER_END = "}}"
_STRING = JsonSchemaGrammar(schema={"type": "string"}, field="tools")


@attrs.frozen
class JsonCalls:
    name: str = "json"
    marks: tuple[str, ...] = ()

    def rule(self, grammar: GrammarWriter, request: TurnRequest) -> str:
        call = call_objects(grammar, request.tools, arguments_key="parameters")
        more = f" ({grammar.text(NEWLINE)} {call})*" if request.parallel else ""
        if request.must_call:
            return f"{call}{more}"
        answer = grammar.part(request.content or _STRING)
        end = grammar.text(_ANSWER_END)
        return f"{call}{more} | {grammar.text(_ANSWER)} {answer} {end}"

    def read(self, reader: TurnReader, request: TurnRequest) -> Steps[None]:
        incoming = reader.incoming
        yield from incoming.take_space()
        if not request.must_call:
            reader.begin_markup()
            if (yield from incoming.takes(_ANSWER)):
                incoming.forget()
                return (yield from _read_answer(reader, request))
        while (yield from incoming.next_character()):
            reader.begin_markup()
            yield from reader.call_object()
            yield from incoming.take_space()


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
