"""Hermes' way of calling tools, also that of Qwen 2.5 and 3: one JSON object per call, between
``<tool_call>`` and ``</tool_call>``."""

import attrs

from .formats import call_objects
from .incoming import Steps
from .lark import GrammarWriter
from .parts import TurnRequest
from .reader import TurnReader

_BEGIN = "<tool_call>"
_END = "</tool_call>"
_NEWLINE_END = f"\n{_END}"


@attrs.frozen
class HermesCalls:
    name: str = "hermes"
    marks: tuple[str, ...] = (_BEGIN, _END)

    def rule(self, grammar: GrammarWriter, request: TurnRequest) -> str:
        objects = call_objects(grammar, request.tools, arguments_key="arguments")
        call = grammar.rule(
            "call", f"{grammar.text(chr(10))} {objects} {grammar.text(_NEWLINE_END)}"
        )
        more = f" ({grammar.text(chr(10) + _BEGIN)} call)*" if request.parallel else ""
        first = grammar.text(_BEGIN)
        if request.must_call:
            return f"{first} {call}{more}"
        if request.content is not None:
            return f"{grammar.part(request.content)} | {first} {call}{more}"
        return f"{grammar.free_text(self.marks[:1])} | {grammar.text_until(_BEGIN)} {call}{more}"

    def read(self, reader: TurnReader, request: TurnRequest) -> Steps[None]:  # noqa: ARG002
        while (yield from reader.write_until((_BEGIN,))) is not None:
            reader.begin_markup()
            yield from reader.expect(_BEGIN)
            yield from reader.incoming.take_space()
            yield from reader.call_object()
            yield from reader.end_mark(_END)
