"""Ways in which templates differ in what they expect of calls and tools.

Most take a call's arguments as an object and its missing text as an empty one. DeepSeek's join the
arguments to a text, and show calls only where there is no content at all. Which it is, a template
tells by what it makes of a small conversation. Pure functions, any thread.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

import attrs

from tgi_llama.errors import TemplateError

Chat = list[dict[str, object]]

_ID = "call5d1c0"  # nine letters and digits: Mistral's templates take no other
_NAME = "TheTool5d1c"
_KEY = "TheKey5d1c"
_VALUE = "TheValue5d1c"


@attrs.frozen
class CallLayout:
    """How an assistant's message with calls is put before a template."""

    arguments_are_text: bool = False
    keeps_empty_content: bool = True
    """False: content that is empty is None."""

    def lay_out(self, message: dict[str, object]) -> dict[str, object]:
        calls = message.get("tool_calls")
        if not isinstance(calls, list) or not calls:
            return message
        changed = {**message, "tool_calls": [self._call(call) for call in calls]}
        if not self.keeps_empty_content and not message.get("content"):
            changed["content"] = None
        return changed

    def _call(self, call: object) -> object:
        function = call.get("function") if isinstance(call, Mapping) else None
        if not self.arguments_are_text or not isinstance(function, Mapping):
            return call
        arguments = function.get("arguments")
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        return {**cast("dict[str, object]", call), "function": {**function, "arguments": arguments}}


_LAYOUTS = tuple(
    CallLayout(are_text, keeps) for are_text in (False, True) for keeps in (True, False)
)


def find_layout(render: Callable[[Chat], str]) -> CallLayout:
    """The first layout with which the template shows a call with its arguments as JSON; the usual
    one where none does."""
    function = {"name": _NAME, "arguments": {_KEY: _VALUE}}
    call = {"id": _ID, "type": "function", "function": function}
    for layout in _LAYOUTS:
        assistant = {"role": "assistant", "content": "", "tool_calls": [call]}
        chat: Chat = [
            {"role": "user", "content": "Hi"},
            layout.lay_out(cast("dict[str, object]", assistant)),
            {"role": "tool", "tool_call_id": _ID, "name": _NAME, "content": "Done"},
        ]
        try:
            prompt = render(chat)
        except TemplateError:
            continue
        # Printed as it is, an object has Python's quotes, and a text within JSON has escaped ones.
        spoiled = f"'{_KEY}'" in prompt or f'\\"{_KEY}' in prompt
        if _NAME in prompt and _VALUE in prompt and not spoiled:
            return layout
    return _LAYOUTS[0]


def with_object_arguments(chat: Chat) -> Chat:
    """The conversation with an object for all arguments of calls that are none: some templates go
    through them without asking what they are."""
    return [_with_object_arguments(message) for message in chat]


def _with_object_arguments(message: dict[str, object]) -> dict[str, object]:
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return message
    return {**message, "tool_calls": [_with_object(call) for call in calls]}


def _with_object(call: object) -> object:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or isinstance(function.get("arguments"), Mapping):
        return call
    arguments = function.get("arguments")
    as_object = {"arguments": arguments} if arguments else {}
    changed = {**function, "arguments": as_object}
    return {**cast("dict[str, object]", call), "function": changed}


_MESSAGE_TOOLS = re.compile(r"""\bmessage(?:\[['"]tools['"]\]|\.tools\b)""")


def wants_tools_in_system_message(source: str) -> bool:
    """Phi-4-mini's template looks for the tools, as a text, in the system message."""
    return _MESSAGE_TOOLS.search(source) is not None


def with_tools_in_system_message(chat: Chat, tools: Sequence[Mapping[str, object]]) -> Chat:
    """The conversation whose system message, made where there is none, has the tools' functions as
    JSON."""
    functions = [tool.get("function", tool) for tool in tools]
    text = json.dumps(functions, ensure_ascii=False)
    first: dict[str, object] = {"role": "system", "content": ""}
    rest = chat
    if chat and chat[0].get("role") == "system":
        first, rest = chat[0], chat[1:]
    return [{**first, "tools": text}, *rest]


def described(tools: Iterable[Mapping[str, object]]) -> list[dict[str, object]]:
    """The tools with an empty description wherever there is none: some templates join it to a text
    without asking whether it is there."""
    return [
        {**tool, "function": _described_function(tool.get("function"))}
        if isinstance(tool.get("function"), Mapping)
        else dict(tool)
        for tool in tools
    ]


def _described_function(function: object) -> dict[str, object]:
    result = _described(function)
    parameters = result.get("parameters")
    properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
    if isinstance(parameters, Mapping) and isinstance(properties, Mapping):
        filled = {
            name: _described(schema) if isinstance(schema, Mapping) else schema
            for name, schema in properties.items()
        }
        result["parameters"] = {**parameters, "properties": filled}
    return result


def _described(value: object) -> dict[str, object]:
    mapping = cast("Mapping[str, object]", value)
    description = mapping.get("description")
    return {**mapping, "description": "" if description is None else description}


def simplified(tools: Iterable[Mapping[str, object]]) -> list[dict[str, object]]:
    """The tools with schemas that templates understand which make Python or TypeScript of them:
    what is too much for these is left out. For the prompt alone."""
    return [
        {**tool, "function": _with_simple_parameters(tool.get("function"))}
        if isinstance(tool.get("function"), Mapping)
        else dict(tool)
        for tool in tools
    ]


def _with_simple_parameters(function: object) -> dict[str, object]:
    result = dict(cast("Mapping[str, object]", function))
    if isinstance(result.get("parameters"), Mapping):
        result["parameters"] = _simple(result["parameters"])
    return result


def _simple(schema: object) -> object:
    if isinstance(schema, list):
        return [_simple(part) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    simple = {
        key: value if key in _VALUES else _simple(value)
        for key, value in schema.items()
        if not (key == "default" and "enum" in schema and not isinstance(value, str))
    }
    kind = schema.get("type")
    if isinstance(kind, list):
        kinds = [one for one in kind if one != "null"]
        simple["type"] = kind = kinds[0] if len(kinds) == 1 else kinds
    if kind == "object":
        simple.setdefault("additionalProperties", {})
    return simple


_VALUES = ("const", "default", "enum", "examples", "required")
"""Keywords with values, in which nothing is a schema."""
