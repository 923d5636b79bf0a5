"""Qwen3-Coder's way of calling tools: ``<function=name>`` with a tag for each parameter, between
``<tool_call>`` and ``</tool_call>``."""

import attrs

from .formats import next_mark
from .incoming import Steps
from .lark import GrammarWriter, one_of
from .parts import TurnRequest, TurnTool
from .reader import TurnReader
from .tagged_calls import FREE_NAME, TaggedArguments, ValueLayout, take_mark, value_rule
from .tagged_values import Parameters, read_parameters

_TOOL, _END_TOOL = "<tool_call>", "</tool_call>"
_FUNCTION, _END_FUNCTION = "<function=", "</function>"
_PARAMETER, _END_PARAMETER = "<parameter=", "</parameter>"
_LAYOUT = ValueLayout(end=_END_PARAMETER, line_break="\n")


@attrs.frozen
class QwenCoderCalls:
    name: str = "qwen3_coder"
    marks: tuple[str, ...] = (_TOOL, _END_TOOL)

    def rule(self, grammar: GrammarWriter, request: TurnRequest) -> str:
        function = grammar.rule(
            "function", one_of([_function(grammar, tool) for tool in request.tools])
        )
        begin, end = grammar.text("\n" + _FUNCTION), grammar.text("\n" + _END_TOOL)
        call = grammar.rule("call", f"{begin} {function} {end}")
        more = f" ({grammar.text(chr(10) + _TOOL)} {call})*" if request.parallel else ""
        if request.must_call:
            return f"{grammar.text(_TOOL)} {call}{more}"
        if request.content is not None:
            return f"{grammar.part(request.content)} | {grammar.first(_TOOL)} {call}{more}"
        return " | ".join(
            (
                grammar.free_text((_TOOL, _FUNCTION)),
                f"{grammar.text_until(_TOOL, (_FUNCTION,))} {call}{more}",
                f"{grammar.text_until(_FUNCTION, (_TOOL,))} {function} {end}?{more}",
            )
        )

    def read(self, reader: TurnReader, request: TurnRequest) -> Steps[None]:
        tools = {tool.name: tool for tool in request.tools}
        while (mark := (yield from next_mark(reader, request, (_TOOL, _FUNCTION)))) is not None:
            reader.begin_markup()
            yield from reader.expect(mark)
            if mark == _TOOL:
                yield from reader.incoming.take_space()
                yield from reader.expect(_FUNCTION)
            name = yield from reader.take_name(">")
            reader.begin_call(name)
            yield from _read_parameters(reader, _parameters(tools[name]))
            reader.end_call()
            yield from reader.optional_mark(_END_TOOL)


def _read_parameters(reader: TurnReader, parameters: Parameters) -> Steps[None]:
    arguments = TaggedArguments(reader, parameters, _LAYOUT)
    while (yield from take_mark(reader, (_PARAMETER, _END_FUNCTION))) == _PARAMETER:
        name = yield from reader.take_name(">")
        yield from arguments.write_parameter(name)
    arguments.write_end()


def _parameters(tool: TurnTool) -> Parameters:
    return read_parameters(tool.parameters, f"{tool.field}.parameters")


def _function(grammar: GrammarWriter, tool: TurnTool) -> str:
    """Behind ``<function=``, to the end of ``</function>``: parameters come in the schema's
    order, as they do where arguments are JSON."""
    parameters = _parameters(tool)
    rules = [grammar.text(f"{tool.name}>\n")]
    for parameter in parameters.known:
        head = grammar.text(f"{_PARAMETER}{parameter.name}>\n")
        value = f"{head} {value_rule(grammar, tool, parameter, _LAYOUT)}"
        rules.append(value if parameter.is_required else f"({value})?")
    if parameters.further is not None:
        end = grammar.text(">\n")
        head = f"{grammar.text(_PARAMETER)} {FREE_NAME} {end}"
        rules.append(f"({head} {value_rule(grammar, tool, parameters.further, _LAYOUT)})*")
    return f"{' '.join(rules)} {grammar.text(_END_FUNCTION)}"
