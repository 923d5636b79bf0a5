"""GLM 4.5's way of calling tools: the name, and for each argument its key and its value between
tags of their own."""

import attrs

from .formats import next_mark, turn_rule
from .incoming import Steps
from .lark import GrammarWriter, one_of
from .parts import TurnRequest, TurnTool
from .reader import TurnReader
from .tagged_calls import FREE_NAME, TaggedArguments, ValueLayout, take_mark, value_rule
from .tagged_values import Parameters, read_parameters

_CALL, _END_CALL = "<tool_call>", "</tool_call>"
_KEY, _END_KEY = "<arg_key>", "</arg_key>"
_VALUE, _END_VALUE = "<arg_value>", "</arg_value>"
_LAYOUT = ValueLayout(end=_END_VALUE, line_break="")


@attrs.frozen
class GlmCalls:
    name: str = "glm4"
    marks: tuple[str, ...] = (_CALL, _END_CALL, _KEY, _END_KEY, _VALUE, _END_VALUE)

    def rule(self, grammar: GrammarWriter, request: TurnRequest) -> str:
        call = grammar.rule("call", one_of([_call(grammar, tool) for tool in request.tools]))
        more = f" ({grammar.text(chr(10) + _CALL)} {call})*" if request.parallel else ""
        return turn_rule(grammar, request, mark=_CALL, calls=f"{call}{more}")

    def read(self, reader: TurnReader, request: TurnRequest) -> Steps[None]:
        tools = {tool.name: tool for tool in request.tools}
        while (yield from next_mark(reader, request, (_CALL,))) is not None:
            reader.begin_markup()
            yield from reader.expect(_CALL)
            name = (yield from reader.take_tool_name((_KEY, _END_CALL, "\n"))).strip()
            reader.begin_call(name)
            arguments = TaggedArguments(reader, _parameters(tools[name]), _LAYOUT)
            while (yield from take_mark(reader, (_KEY, _END_CALL))) == _KEY:
                key = yield from reader.take_name(_END_KEY)
                yield from take_mark(reader, (_VALUE,))
                yield from arguments.write_parameter(key)
            arguments.write_end()
            reader.end_call()


def _parameters(tool: TurnTool) -> Parameters:
    return read_parameters(tool.parameters, f"{tool.field}.parameters")


def _call(grammar: GrammarWriter, tool: TurnTool) -> str:
    """Behind ``<tool_call>``, to the end of the call."""
    parameters = _parameters(tool)
    between = grammar.text(f"{_END_KEY}\n{_VALUE}")
    rules = [grammar.text(f"{tool.name}\n")]
    for parameter in parameters.known:
        key = grammar.text(f"{_KEY}{parameter.name}")
        pair = f"{key} {between} {value_rule(grammar, tool, parameter, _LAYOUT)}"
        rules.append(pair if parameter.is_required else f"({pair})?")
    if parameters.further is not None:
        value = value_rule(grammar, tool, parameters.further, _LAYOUT)
        rules.append(f"({grammar.text(_KEY)} {FREE_NAME} {between} {value})*")
    return f"{' '.join(rules)} {grammar.text(_END_CALL)}"
