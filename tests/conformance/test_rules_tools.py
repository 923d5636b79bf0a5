"""Tools and the choice between them (contract sections 2.12 and 6), judged before the template."""

import json

import pytest
from fakes.constraints import HERMES, RememberingCompiler, constraints
from fakes.validation import ByteTokenizer, TaggedTemplates

from tgi_llama.errors import TemplateError, ToolError, ValidationError
from tgi_llama.validation.constraints import Constraints
from tgi_llama.validation.rules import Limits
from tgi_llama.validation.tools import tool_use
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
def test_tools_that_may_be_called_are_refused_where_nothing_reads_calls(choice: object) -> None:
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
    (prepared,), templates, compiler = turn(**fields)
    assert prepared.make_parser is None
    assert templates.calls[0]["tools"] is None
    assert compiler.grammars == []


# --- tools in use ---------------------------------------------------------------------------------

TWO = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Tells it.",
            "parameters": {"type": "object"},
        },
    },
    {"function": {"name": "clock", "arguments": None, "strict": True}},
]


def turn(**fields: object):  # type: ignore[no-untyped-def]
    templates, compiler = TaggedTemplates(), RememberingCompiler()
    validator = Validator(
        LIMITS, ByteTokenizer(), templates, constraints=constraints(compiler=compiler)
    )
    return validator.chat(request(**fields)), templates, compiler


def names_shown(**fields: object) -> list[str]:
    _, templates, _ = turn(tools=TWO, **fields)
    return [tool["function"]["name"] for tool in templates.calls[0]["tools"]]


def test_tools_reach_the_template_as_templates_expect_them() -> None:
    _, templates, _ = turn(tools=TWO)
    assert list(templates.calls[0]["tools"]) == [
        TWO[0],
        {
            "type": "function",
            "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}},
        },
    ]


def test_tools_have_their_turn_constrained_and_read() -> None:
    prepared, _, compiler = turn(tools=TWO, n=2)
    assert len(compiler.grammars) == 1
    assert len({id(one.request.constraint) for one in prepared}) == 1
    (text,) = (one.make_parser().push("hi") for one in prepared[:1])
    assert [part.text for part in text] == ["hi"]


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        (None, ["weather", "clock"]),
        ("auto", ["weather", "clock"]),
        ("required", ["weather", "clock"]),
        ("clock", ["clock"]),
        ({"type": "function", "function": {"name": "weather"}}, ["weather"]),
        ({"function": {"name": "weather"}}, ["weather"]),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "auto",
                    "tools": [{"type": "function", "function": {"name": "clock"}}],
                },
            },
            ["clock"],
        ),
    ],
)
def test_tool_choice_picks_the_tools_that_may_be_called(choice: object, names: list[str]) -> None:
    assert names_shown(tool_choice=choice) == names


@pytest.mark.parametrize(
    ("fields", "must_call", "parallel"),
    [
        ({}, False, True),
        ({"tool_choice": "required", "parallel_tool_calls": None}, True, True),
        ({"tool_choice": "clock", "parallel_tool_calls": False}, True, False),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "required", "tools": [TOOLS[0]]},
                }
            },
            True,
            True,
        ),
    ],
)
def test_tool_choice_says_whether_a_call_is_due(
    fields: dict[str, object], must_call: bool, parallel: bool
) -> None:
    use = tool_use(request(tools=TWO, **fields))
    assert (use.must_call, use.parallel) == (must_call, parallel)


@pytest.mark.parametrize(
    "response_format", [{"type": "json_object"}, {"type": "regex", "value": "a"}]
)
def test_tools_may_stand_beside_a_format_of_the_content(response_format: object) -> None:
    prepared, _, compiler = turn(tools=TWO, response_format=response_format)
    assert len(compiler.grammars) == 1
    assert prepared[0].make_parser is not None


@pytest.mark.parametrize(
    ("tools", "field"),
    [
        ([{"function": {"name": ""}}], "tools[0].function.name"),
        ([{"function": {"name": "a b"}}], "tools[0].function.name"),
        ([{"function": {"name": "x" * 129}}], "tools[0].function.name"),
        ([TOOLS[0], TOOLS[0]], "tools[1].function.name"),
        ([{"function": {"name": "f", "parameters": "{}"}}], "tools[0].function.parameters"),
    ],
)
def test_wrong_definition_is_refused_at_its_place(tools: object, field: str) -> None:
    for fields in ({}, {"tool_choice": "none"}):
        with pytest.raises(ValidationError) as caught:
            turn(tools=tools, **fields)
        assert caught.value.field == field


def test_tools_without_grammar_support_are_refused_as_a_grammar_is() -> None:
    bare = Validator(
        LIMITS, ByteTokenizer(), TaggedTemplates(), constraints=Constraints(turn_format=HERMES)
    )
    with pytest.raises(ValidationError, match=r"^grammar is not supported$") as caught:
        bare.chat(request(tools=TOOLS))
    assert caught.value.field == "tools"


# --- the text alone, for /chat_tokenize -----------------------------------------------------------


def chat_text(**fields: object) -> str:
    validator = Validator(LIMITS, ByteTokenizer(), TaggedTemplates())
    return validator.chat_text(request(**fields)).text


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
