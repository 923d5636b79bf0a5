"""Whatever JSON stands in whatever field, the answer is a request or a refusal with a path."""

import json

import attrs
import pytest
from fakes.validation import ByteTokenizer, TaggedTemplates
from hypothesis import given, settings
from hypothesis import strategies as st

from tgi_llama.errors import TemplateError, ToolError, ValidationError
from tgi_llama.validation.rules import Limits
from tgi_llama.validation.validator import Validator
from tgi_llama.wire.converter import parse
from tgi_llama.wire.generate_requests import (
    CompatGenerateRequest,
    GenerateParameters,
    GenerateRequest,
)
from tgi_llama.wire.openai_requests import ChatRequest, CompletionRequest
from tgi_llama.wire.parse_error import ParseError

VALIDATOR = Validator(
    Limits(max_input_tokens=64, max_total_tokens=128), ByteTokenizer(), TaggedTemplates()
)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(min_value=-(2**70), max_value=2**70),
    st.integers(min_value=-3, max_value=30),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(["", "json", "text", "auto", "none", "tgi", "assistant"]),
)

KEYS = st.one_of(
    st.sampled_from(["type", "value", "function", "name", "role", "content", "text", "url", "1"]),
    st.text(max_size=4),
)

ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)


def names(wire_type: type) -> list[str]:
    return [field.name for field in attrs.fields(wire_type)]


# The same examples on every run: a failure must not depend on the day.
same_every_time = settings(derandomize=True, deadline=None, max_examples=150, database=None)


def outcome(wire_type: type, body: object) -> Exception | None:
    """Parses and validates. Anything but a deliberate refusal is raised, and fails the test."""
    try:
        validate(parse(wire_type, json.dumps(body).encode()))
    except (ParseError, ValidationError, TemplateError, ToolError) as error:
        return error
    return None


def validate(request: object) -> None:
    if isinstance(request, ChatRequest):
        VALIDATOR.chat(request)
    elif isinstance(request, CompletionRequest):
        VALIDATOR.completion(request)
    elif isinstance(request, CompatGenerateRequest):
        VALIDATOR.generate(request, streaming=request.stream)
    elif isinstance(request, GenerateRequest):
        VALIDATOR.generate(request, streaming=True)


def judge(wire_type: type, body: object, path: str) -> None:
    error = outcome(wire_type, body)
    if isinstance(error, ParseError):
        assert error.status == 422
        assert error.path.startswith(path)
    assert error is None or 0 < len(str(error)) < 400


@same_every_time
@given(name=st.sampled_from(names(GenerateParameters)), value=ANYTHING)
def test_any_value_in_any_parameter_is_read_or_refused(name: str, value: object) -> None:
    body = {"inputs": "a", "parameters": {name: value}}
    judge(CompatGenerateRequest, body, f"parameters.{name}")


@same_every_time
@given(name=st.sampled_from(["inputs", "parameters", "stream"]), value=ANYTHING)
def test_any_value_in_any_generate_field_is_read_or_refused(name: str, value: object) -> None:
    judge(CompatGenerateRequest, {"inputs": "a", name: value}, name)


@same_every_time
@given(name=st.sampled_from(names(ChatRequest)), value=ANYTHING)
def test_any_value_in_any_chat_field_is_read_or_refused(name: str, value: object) -> None:
    judge(ChatRequest, {"messages": [{"role": "user", "content": "a"}], name: value}, name)


@same_every_time
@given(name=st.sampled_from(["role", "content", "tool_calls", "name"]), value=ANYTHING)
def test_any_value_in_any_message_field_is_read_or_refused(name: str, value: object) -> None:
    message = {"role": "user", "content": "a", name: value}
    judge(ChatRequest, {"messages": [message]}, "messages[0]")


@same_every_time
@given(name=st.sampled_from(names(CompletionRequest)), value=ANYTHING)
def test_any_value_in_any_completion_field_is_read_or_refused(name: str, value: object) -> None:
    judge(CompletionRequest, {"prompt": "a", name: value}, name)


@same_every_time
@given(body=ANYTHING)
@pytest.mark.parametrize(
    "wire_type", [GenerateRequest, CompatGenerateRequest, ChatRequest, CompletionRequest]
)
def test_any_body_is_read_or_refused(wire_type: type, body: object) -> None:
    judge(wire_type, body, "")


@same_every_time
@given(body=st.binary(max_size=64))
def test_any_bytes_are_refused_as_json_or_as_shape(body: bytes) -> None:
    with pytest.raises(ParseError) as caught:
        parse(ChatRequest, body)
    assert caught.value.status in (400, 422)
