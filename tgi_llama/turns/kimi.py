"""Kimi K2's way of calling tools: each call has an id, which is its name with a number, and its
arguments."""

import attrs

from .formats import arguments_grammar, next_mark, turn_rule
from .incoming import Steps
from .lark import GrammarWriter, one_of
from .markup_reader import BrokenMarkup
from .parts import TurnRequest, TurnTool
from .reader import TurnReader

_BEGIN, _END = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
_CALL, _END_CALL = "<|tool_call_begin|>", "<|tool_call_end|>"
_ARGUMENTS = "<|tool_call_argument_begin|>"
_NAMESPACE = "functions."


@attrs.frozen
class KimiCalls:
    name: str = "kimi_k2"
    marks: tuple[str, ...] = (_BEGIN, _END, _CALL, _END_CALL, _ARGUMENTS)

    def rule(self, grammar: GrammarWriter, request: TurnRequest) -> str:
        call = grammar.rule("call", one_of([_call(grammar, tool) for tool in request.tools]))
        more = f"({grammar.text(_CALL)} {call})*" if request.parallel else ""
        calls = f"{grammar.text(_CALL)} {call} {more} {grammar.text(_END)}"
        return turn_rule(grammar, request, mark=_BEGIN, calls=calls)

    def read(self, reader: TurnReader, request: TurnRequest) -> Steps[None]:
        while (yield from next_mark(reader, request, (_BEGIN,))) is not None:
            reader.begin_markup()
            yield from reader.expect(_BEGIN)
            yield from reader.incoming.take_space()
            n_calls = reader.n_calls
            while (yield from reader.incoming.takes(_CALL)):
                yield from _read_call(reader)
            if reader.n_calls == n_calls:
                raise BrokenMarkup("no call follows")
            yield from reader.end_mark(_END)


def _read_call(reader: TurnReader) -> Steps[None]:
    call_id = yield from reader.take_name(_ARGUMENTS)
    reader.begin_call(call_id.removeprefix(_NAMESPACE).rpartition(":")[0])
    yield from reader.arguments(reader.write_arguments)
    reader.end_call()
    yield from reader.end_mark(_END_CALL)
    yield from reader.incoming.take_space()


def _call(grammar: GrammarWriter, tool: TurnTool) -> str:
    """Behind the mark that begins a call, to its end."""
    name, arguments = grammar.text(f"{_NAMESPACE}{tool.name}:"), grammar.text(_ARGUMENTS)
    value = grammar.part(arguments_grammar(tool))
    return f"{name} /[0-9]{{1,3}}/ {arguments} {value} {grammar.text(_END_CALL)}"
