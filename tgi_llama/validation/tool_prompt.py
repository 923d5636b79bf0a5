"""How a model is told of tools where its template does not do it: TGI's way, at the end of the last
message. Pure functions.
"""

import json
from collections.abc import Mapping, Sequence

import attrs

from tgi_llama.turns.json_way import no_tool_name

from .tools import ToolUse

TemplateMessage = Mapping[str, object]

JSON_WAY = "json"
"""The turn format of models without one of their own."""

DEFAULT = (
    "\nGiven the functions available, please respond with a JSON for a function call with its"
    " proper arguments that best answers the given prompt. Respond in the format {name: function"
    " name, parameters: dictionary of argument name and its value}.Do not use variables.\n"
)
"""TGI's, to the letter."""

_NO_TOOL: Mapping[str, object] = {
    "description": "Open ended response with no specific tool selected",
    "parameters": {
        "type": "object",
        "properties": {"content": {"type": "string", "description": "The response"}},
        "required": ["content"],
    },
}


@attrs.frozen(kw_only=True)
class ToolPrompt:
    """What a model has to be told besides what its template tells it."""

    lists_tools: bool
    """The template does not know tools, so they and earlier calls are written into messages."""
    text: str
    """TGI's ``tool_prompt``, or nothing."""

    def applied(self, messages: Sequence[TemplateMessage], use: ToolUse) -> list[TemplateMessage]:
        """The messages with what has to be told: of earlier calls also where the turn itself
        has no tools."""
        told = _all_told(messages) if self.lists_tools else [*messages]
        addition = self._addition(use) if use.tools else ""
        if not told or not addition or not told[-1]["content"]:
            return told
        return [*told[:-1], {**told[-1], "content": f"{told[-1]['content']}{addition}"}]

    def _addition(self, use: ToolUse) -> str:
        parts = []
        if self.lists_tools:
            declared = use.declared if use.must_call else [*use.declared, _no_tool(use)]
            parts.append(json.dumps(declared, ensure_ascii=False, separators=(",", ":")))
        if self.text:
            parts.append(self.text)
        return "".join(f"\n{part}" for part in ("---", *parts)) if parts else ""


def tool_prompt(asked: str | None, *, format_name: str, reads_tools: bool) -> ToolPrompt:
    """``asked``: the client's, where an empty one means the default, as in TGI. A model with a
    format of its own knows how to answer, so the default is for the others."""
    default = DEFAULT if format_name == JSON_WAY else ""
    return ToolPrompt(lists_tools=not reads_tools, text=asked or default)


def _no_tool(use: ToolUse) -> Mapping[str, object]:
    """Called as the grammar calls it."""
    name = no_tool_name([tool.name for tool in use.tools])
    return {"type": "function", "function": {"name": name, **_NO_TOOL}}


def _all_told(messages: Sequence[TemplateMessage]) -> list[TemplateMessage]:
    """Results of tools are one message with each other, and with what the user says next to them:
    many templates want the roles to take turns."""
    told: list[TemplateMessage] = []
    was_result = False
    for message in messages:
        is_result = message["role"] == "tool"
        one = _told(message)
        if told and one["role"] == told[-1]["role"] == "user" and (is_result or was_result):
            before = told.pop()
            one = {**before, "content": f"{before['content']}\n{one['content']}"}
        told.append(one)
        was_result = is_result
    return told


def _told(message: TemplateMessage) -> TemplateMessage:
    """Earlier calls as the model is asked to write them, and their results as a user's words: the
    template knows neither."""
    calls = message.get("tool_calls")
    if isinstance(calls, Sequence):
        lines = [message["content"], *map(_written, calls)]
        rest = {key: value for key, value in message.items() if key != "tool_calls"}
        return {**rest, "content": "\n".join(str(line) for line in lines if line)}
    if message["role"] == "tool":
        return {**message, "role": "user"}
    return message


def _written(call: Mapping[str, Mapping[str, object]]) -> str:
    function = call["function"]
    written = {"name": function["name"], "parameters": function["arguments"]}
    return json.dumps(written, ensure_ascii=False)
