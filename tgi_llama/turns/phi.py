"""Phi-4-mini's way of calling tools: a JSON list of calls, between ``<|tool_call|>`` and
``<|/tool_call|>`` or behind ``functools``, whichever of them the model has learnt."""

import attrs

from .formats import call_objects
from .incoming import Steps
from .lark import GrammarWriter
from .parts import TurnRequest
from .reader import TurnReader

_BEGIN, _END = "<|tool_call|>", "<|/tool_call|>"
_BARE = "functools["


@attrs.frozen
class PhiCalls:
    name: str = "phi4"
    marks: tuple[str, ...] = (_BEGIN, _END)

    def rule(self, grammar: GrammarWriter, request: TurnRequest) -> str:
        objects = call_objects(grammar, request.tools, arguments_key="arguments")
        call = grammar.rule("call", objects)
        more = f" ({grammar.text(', ')} call)*" if request.parallel else ""
        calls = grammar.rule("calls", f"{call}{more} {grammar.text(']')}")
        marked = f"{grammar.text('[')} {calls} {grammar.text(_END)}"
        if request.must_call:
            return f"{grammar.text(_BEGIN)} {marked}"
        if request.content is not None:
            return f"{grammar.part(request.content)} | {grammar.text(_BEGIN)} {marked}"
        return " | ".join(
            (
                grammar.free_text((_BEGIN, _BARE)),
                f"{grammar.text_until(_BEGIN)} {marked}",
                f"{grammar.text_until(_BARE)} {calls}",
            )
        )

    def read(self, reader: TurnReader, request: TurnRequest) -> Steps[None]:  # noqa: ARG002
        while (mark := (yield from reader.write_until((_BEGIN, _BARE)))) is not None:
            reader.begin_markup()
            yield from reader.expect(mark.removesuffix("["))
            yield from reader.incoming.take_space()
            yield from reader.call_list()
            if mark == _BEGIN:
                yield from reader.end_mark(_END)
