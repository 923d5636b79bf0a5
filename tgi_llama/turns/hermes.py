"""Hermes' way of calling tools, also that of Qwen 2.5 and 3: one JSON object per call, between
``<tool_call>`` and ``</tool_call>``."""

import attrs

from .formats import call_objects, next_mark, turn_rule
from .incoming import Steps
from .lark import NEWLINE, GrammarWriter
from .parts import TurnRequest
from .reader import TurnReader

_BEGIN = "<tool_call>"
_END = "</tool_call>"
_CLOSING = f"{NEWLINE}{_END}"


@attrs.frozen
class HermesCalls:
    name: str = "hermes"
    marks: tuple[str, ...] = (_BEGIN, _END)

    def rule(self, grammar: GrammarWriter, request: TurnRequest) -> str:
        object_ = call_objects(grammar, request.tools)
        call = grammar.rule("call", f"{grammar.text(NEWLINE)} {object_} {grammar.text(_CLOSING)}")
        more = f" ({grammar.text(NEWLINE + _BEGIN)} {call})*" if request.parallel else ""
        return turn_rule(grammar, request, mark=_BEGIN, calls=f"{call}{more}")

    def read(self, reader: TurnReader, request: TurnRequest) -> Steps[None]:
        while (yield from next_mark(reader, request, (_BEGIN,))) is not None:
            reader.begin_markup()
            yield from reader.expect(_BEGIN)
            yield from reader.incoming.take_space()
            yield from reader.call_object()
            yield from reader.end_mark(_END)
