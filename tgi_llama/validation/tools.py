"""The tools of a chat and the choice between them: what is judged before the template is rendered.

Pure functions.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NoReturn

import attrs

from tgi_llama.errors import ToolError
from tgi_llama.turns.parts import TurnTool
from tgi_llama.wire.openai_requests import ChatRequest, NamedToolChoice, Tool
from tgi_llama.wire.shapes import describe

from .rules import reject

_CHOICES_WITHOUT_NAME = ("auto", "none", "required")

_LONGEST_QUOTE = 64
"""Characters of a tool's name that an error repeats; OpenAI's names are no longer."""

_NAME = re.compile(r"[\w.:/-]{1,128}")
"""Wider than OpenAI's; no character of it means something in any format's markup."""

_NO_ARGUMENTS = {"type": "object", "properties": {}}


@attrs.frozen(kw_only=True)
class ToolUse:
    """The tools that a turn may call."""

    tools: Sequence[TurnTool] = ()
    """In the client's order; empty where the turn is a plain one."""
    declared: Sequence[Mapping[str, object]] = ()
    """The same as templates expect them."""
    must_call: bool = False
    parallel: bool = True


def tool_use(request: ChatRequest) -> ToolUse:
    """Without ``tools`` the choice is ignored. Raises ToolError for a choice that is none of the
    tools, ValidationError for a tool that is wrong."""
    if request.tools is None:
        return ToolUse()
    names = _chosen_names(request)
    known = {tool.function.name for tool in request.tools}
    for name in names or ():
        if name not in known:
            raise ToolError(f"Tool with name {_shortened(name)} not found")
    _check_definitions(request.tools)
    if request.tool_choice == "none":
        return ToolUse()
    used = [
        (index, tool)
        for index, tool in enumerate(request.tools)
        if names is None or tool.function.name in names
    ]
    return ToolUse(
        tools=tuple(_turn_tool(tool, index) for index, tool in used),
        declared=tuple(_declaration(tool) for _, tool in used),
        must_call=bool(used) and _must_call(request),
        parallel=request.parallel_tool_calls is not False,
    )


def _chosen_names(request: ChatRequest) -> Sequence[str] | None:
    """None: all of them."""
    choice = request.tool_choice
    if isinstance(choice, NamedToolChoice):
        if choice.function is not None:
            return [choice.function.name]
        assert choice.allowed_tools is not None  # the class sees to it
        return [tool.function.name for tool in choice.allowed_tools.tools]
    return None if choice is None or choice in _CHOICES_WITHOUT_NAME else [choice]


def _must_call(request: ChatRequest) -> bool:
    choice = request.tool_choice
    if isinstance(choice, NamedToolChoice):
        return choice.allowed_tools is None or choice.allowed_tools.mode == "required"
    return choice not in (None, "auto")


def _check_definitions(tools: Sequence[Tool]) -> None:
    seen: set[str] = set()
    for index, tool in enumerate(tools):
        field, name = f"tools[{index}].function", tool.function.name
        if not _NAME.fullmatch(name):
            _reject_name(
                "must be 1 to 128 letters, digits or `_`, `-`, `.`, `:`, `/`", name, field=field
            )
        if name in seen:
            _reject_name("must differ", name, field=field)
        seen.add(name)
        parameters = tool.function.parameters
        if not isinstance(parameters, Mapping | None):
            reject(
                f"`parameters` must be a JSON Schema of an object. Given: {describe(parameters)}",
                field=f"{field}.parameters",
            )


def _reject_name(rule: str, name: str, *, field: str) -> NoReturn:
    reject(f"names of tools {rule}. Given: {_shortened(name)!r}", field=f"{field}.name")


def _turn_tool(tool: Tool, index: int) -> TurnTool:
    function = tool.function
    return TurnTool(
        name=function.name, parameters=function.parameters, field=f"tools[{index}].function"
    )


def _declaration(tool: Tool) -> dict[str, object]:
    function = tool.function
    declared: dict[str, object] = {"name": function.name}
    if function.description is not None:
        declared["description"] = function.description
    declared["parameters"] = _NO_ARGUMENTS if function.parameters is None else function.parameters
    return {"type": "function", "function": declared}


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_QUOTE else f"{name[:_LONGEST_QUOTE]}..."
