"""Phi-4-mini's way of calling tools: a JSON list of calls, between ``<|tool_call|>`` and
``<|/tool_call|>`` or behind ``functools``, whichever of them the model has learnt."""

import attrs

from .formats import call_list, next_mark, turn_rule
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
        calls = call_list(grammar, request)
        marked = f"{grammar.text('[')} {calls} {grammar.text(_END)}"
        turn = turn_rule(grammar, request, mark=_BEGIN, calls=marked)
        if request.must_call or request.content is not None:
            return turn
        return f"{turn} | {grammar.text_until(_BARE, (_BEGIN,))} {calls}"

    def read(self, reader: TurnReader, request: TurnRequest) -> Steps[None]:
        while (mark := (yield from next_mark(reader, request, (_BEGIN, _BARE)))) is not None:
            reader.begin_markup()
            yield from reader.expect(mark.removesuffix("["))
            yield from reader.incoming.take_space()
            yield from reader.call_list()
            if mark == _BEGIN:
                yield from reader.end_mark(_END)
