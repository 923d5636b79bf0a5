"""The choice between tools (contract sections 2.12 and 6.2), judged before the template."""

import json

import pytest
from fakes.validation import ByteTokenizer, TaggedTemplates

from tgi_llama.errors import TemplateError, ToolError, ValidationError
from tgi_llama.validation.rules import Limits
from tgi_llama.validation.validator import Validator
from tgi_llama.wire.converter import parse
from tgi_llama.wire.openai_requests import ChatRequest

LIMITS = Limits(max_input_tokens=64, max_total_tokens=96)
TOOLS = [{"type": "function", "function": {"name": "weather"}}]
# Its template refuses this role.
REFUSED = [{"role": "refused", "content": ""}]


def request(**fields: object) -> ChatRequest:
    body = {"messages": [{"role": "user", "content": "hi"}], **fields}
    return parse(ChatRequest, json.dumps(body).encode())


def chat(**fields: object) -> str:
    validator = Validator(LIMITS, ByteTokenizer(), TaggedTemplates())
    return validator.chat(request(**fields))[0].prompt


@pytest.mark.parametrize("tools", [[], TOOLS])
@pytest.mark.parametrize(
    "response_format",
    [{"type": "json_object"}, {"type": "json", "value": 3}, {"type": "regex", "value": "a"}],
)
def test_tools_with_a_grammar_are_refused(tools: object, response_format: object) -> None:
    with pytest.raises(ToolError, match=r"^Grammar and tools are mutually exclusive$"):
        chat(tools=tools, response_format=response_format, messages=REFUSED)


def test_tools_with_plain_text_as_format_are_no_contradiction() -> None:
    assert chat(tools=[], response_format={"type": "text"}) == "<user>hi<assistant>"


@pytest.mark.parametrize(
    "choice", ["clock", {"type": "function", "function": {"name": "clock"}}, ""]
)
@pytest.mark.parametrize("tools", [[], TOOLS])
def test_tool_choice_of_an_unknown_name_is_refused(choice: object, tools: object) -> None:
    name = choice["function"]["name"] if isinstance(choice, dict) else choice
    with pytest.raises(ToolError) as caught:
        chat(tools=tools, tool_choice=choice, messages=REFUSED)
    assert str(caught.value) == f"Tool with name {name} not found"


def test_tool_choice_of_a_very_long_name_is_quoted_in_part() -> None:
    with pytest.raises(ToolError) as caught:
        chat(tools=TOOLS, tool_choice="x" * 10_000)
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize("choice", [None, "auto", "required", "weather"])
def test_tools_that_may_be_called_are_refused_by_name(choice: object) -> None:
    with pytest.raises(ValidationError, match=r"^`tools` is not supported by this server$"):
        chat(tools=TOOLS, tool_choice=choice, messages=REFUSED)


@pytest.mark.parametrize(
    "fields",
    [
        {"tool_choice": "clock"},
        {"tools": None, "tool_choice": "clock"},
        {"tools": TOOLS, "tool_choice": "none"},
        {"tools": [], "tool_choice": "required"},
        {"tools": []},
    ],
)
def test_tools_that_are_not_used_leave_a_plain_chat(fields: dict[str, object]) -> None:
    assert chat(**fields) == "<user>hi<assistant>"


# --- the text alone, for /chat_tokenize -----------------------------------------------------------


def chat_text(**fields: object) -> str:
    return Validator(LIMITS, ByteTokenizer(), TaggedTemplates()).chat_text(request(**fields))


def test_chat_text_is_the_prompt() -> None:
    assert chat_text() == chat()


def test_chat_text_judges_neither_lengths_nor_parameters() -> None:
    long = [{"role": "user", "content": "a" * 1000}]
    assert len(chat_text(messages=long, temperature=-1, n=0)) > 1000


def test_chat_text_judges_tools_and_template() -> None:
    with pytest.raises(ToolError, match="not found"):
        chat_text(tools=TOOLS, tool_choice="clock")
    with pytest.raises(ValidationError, match="`tools` is not supported"):
        chat_text(tools=TOOLS)
    with pytest.raises(TemplateError, match="no such role"):
        chat_text(messages=REFUSED)
    with pytest.raises(TemplateError, match="template not found"):
        Validator(LIMITS, ByteTokenizer()).chat_text(request())
