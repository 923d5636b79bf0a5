"""How the bodies of the OpenAI routes are read: what clients of OpenAI and TGI send is accepted."""

import json

import attrs
import pytest

from tgi_llama.wire.converter import parse
from tgi_llama.wire.openai_requests import (
    ChatRequest,
    CompletionRequest,
    ImagePart,
    Message,
    TextPart,
)
from tgi_llama.wire.parse_error import ParseError

USER = {"role": "user", "content": "hi"}


def chat(**fields: object) -> ChatRequest:
    return parse(ChatRequest, json.dumps({"messages": [USER], **fields}).encode())


def refused_path(wire_type: type, body: object) -> str:
    with pytest.raises(ParseError) as caught:
        parse(wire_type, json.dumps(body).encode())
    assert caught.value.status == 422
    return caught.value.path


def message(**fields: object) -> Message:
    return parse(Message, json.dumps(fields).encode())


@pytest.mark.parametrize(
    "name",
    [field.name for field in attrs.fields(ChatRequest) if field.name != "messages"],
)
def test_chat_every_optional_field_accepts_null(name: str) -> None:
    assert chat(**{name: None}) == chat()


@pytest.mark.parametrize(
    "name",
    [field.name for field in attrs.fields(CompletionRequest) if field.name != "prompt"],
)
def test_completion_every_optional_field_accepts_null(name: str) -> None:
    body = json.dumps({"prompt": "a", name: None}).encode()
    assert parse(CompletionRequest, body) == parse(CompletionRequest, b'{"prompt": "a"}')


def test_chat_openai_client_body_is_read() -> None:
    request = chat(
        model="gpt-4o",
        stop="\n",
        logit_bias={"50256": -100},
        top_p=1,
        max_tokens=5,
        max_completion_tokens=5,
        n=1,
        presence_penalty=0,
        stream=True,
        stream_options={"include_usage": True, "include_obfuscation": False},
        tools=[{"type": "function", "function": {"name": "f"}}],
        tool_choice={"type": "function", "function": {"name": "f"}},
        response_format={"type": "text"},
        user="u",
        metadata={"a": "b"},
        store=False,
    )
    assert request.stop == "\n"
    assert request.logit_bias == {"50256": -100.0}
    assert request.stream_options is not None
    assert request.stream_options.include_usage is True


def test_chat_stop_may_be_a_list() -> None:
    assert chat(stop=["a", "b"]).stop == ("a", "b")


@pytest.mark.parametrize(
    "response_format",
    [
        {"type": "text"},
        {"type": "json_object"},
        {"type": "json_object", "value": {"properties": {}}},
        {"type": "json", "value": {"properties": {}}},
        {"type": "regex", "value": "a"},
        {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": {}}},
        {"type": "json_schema", "value": {"schema": {}}},
    ],
)
def test_chat_response_format_of_either_layout_is_read(response_format: object) -> None:
    assert chat(response_format=response_format).response_format is not None


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "regex"}}, "response_format.value"),
        ({"stop": 1}, "stop"),
        ({"stop": ["a", None]}, "stop[1]"),
        ({"logit_bias": {"1": "x"}}, "logit_bias.1"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": True}, "stream_options"),
        ({"n": -1}, "n"),
        ({"top_logprobs": 1.5}, "top_logprobs"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tool_choice": 1}, "tool_choice"),
        ({"tool_choice": {"function": {}}}, "tool_choice.function.name"),
        ({"chat_template_kwargs": []}, "chat_template_kwargs"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [USER, {"role": "user", "content": [{}]}]}, "messages[1].content[0].type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            "messages[0].content[0].type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].image_url",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]},
            "messages[0].tool_calls[0].function.name",
        ),
    ],
)
def test_chat_wrong_shape_is_refused_with_its_path(fields: dict[str, object], path: str) -> None:
    assert refused_path(ChatRequest, {"messages": [USER], **fields}) == path


def test_chat_without_messages_is_refused() -> None:
    assert refused_path(ChatRequest, {}) == "messages"


def test_message_parts_are_read_and_extra_keys_ignored() -> None:
    parts = [
        {"type": "text", "text": "a", "cache_control": {}},
        {"type": "image_url", "image_url": {"url": "u", "detail": "low"}},
    ]
    content = message(role="user", content=parts).content
    assert isinstance(content, tuple)
    assert isinstance(content[0], TextPart)
    assert isinstance(content[1], ImagePart)


def test_message_python_client_nulls_are_accepted() -> None:
    assert message(role="user", content="a", name=None, tool_calls=None).content == "a"


@pytest.mark.parametrize("key", ["arguments", "parameters"])
@pytest.mark.parametrize("arguments", ['{"a": 1}', {"a": 1}])
def test_message_tool_call_arguments_are_kept_as_sent(key: str, arguments: object) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", key: arguments}}
    calls = message(role="assistant", content=None, tool_calls=[call]).tool_calls
    assert calls is not None
    assert calls[0].function.arguments == arguments


def test_message_with_content_and_tool_calls_keeps_both() -> None:
    call = {"id": "1", "function": {"name": "f", "arguments": ""}}
    read = message(role="assistant", content="x", tool_calls=[call])
    assert read.content == "x"
    assert read.tool_calls is not None


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a", "a"),
        (["a", "b"], ("a", "b")),
        ([1, 2], (1, 2)),
        ([[1], [2, 3]], ((1,), (2, 3))),
        ([], ()),
    ],
)
def test_completion_prompt_of_any_layout_is_read(prompt: object, expected: object) -> None:
    body = json.dumps({"prompt": prompt}).encode()
    assert parse(CompletionRequest, body).prompt == expected


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": [1.5]}, "prompt[0]"),
        ({"prompt": [[1, "a"]]}, "prompt[0][1]"),
        ({"prompt": [True]}, "prompt[0]"),
        ({"prompt": "a", "logprobs": True}, "logprobs"),
        ({"prompt": "a", "echo": 1}, "echo"),
        ({"prompt": "a", "suffix": 1}, "suffix"),
    ],
)
def test_completion_wrong_shape_is_refused_with_its_path(body: object, path: str) -> None:
    assert refused_path(CompletionRequest, body) == path
