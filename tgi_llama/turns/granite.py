"""Granite 3's way of calling tools: ``<|tool_call|>`` and a JSON list of calls. Version 4 does it
as Hermes."""

import attrs

from .formats import call_list, next_mark, turn_rule
from .incoming import Steps
from .lark import GrammarWriter
from .parts import TurnRequest
from .reader import TurnReader

_MARK = "<|tool_call|>"


@attrs.frozen
class GraniteCalls:
    name: str = "granite"
    marks: tuple[str, ...] = (_MARK,)

    def rule(self, grammar: GrammarWriter, request: TurnRequest) -> str:
        calls = f"{grammar.text('[')} {call_list(grammar, request)}"
        return turn_rule(grammar, request, mark=_MARK, calls=calls)

    def read(self, reader: TurnReader, request: TurnRequest) -> Steps[None]:
        while (yield from next_mark(reader, request, (_MARK,))) is not None:
            reader.begin_markup()
            yield from reader.expect(_MARK)
            yield from reader.call_list()
