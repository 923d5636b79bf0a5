"""Bodies of several kinds, told apart by trying."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgi_llama.wire.converter import parse
from tgi_llama.wire.generate_requests import CompatGenerateRequest, GenerateRequest
from tgi_llama.wire.kserve import InferRequest
from tgi_llama.wire.openai_requests import ChatRequest, CompletionRequest
from tgi_llama.wire.parse_error import ParseError
from tgi_llama.wire.sagemaker import read_invocation
from tgi_llama.wire.vertex import GenerateInstance, VertexBody

SCALARS = st.none() | st.booleans() | st.integers(-3, 300) | st.floats(-1, 1) | st.text(max_size=4)
KEYS = st.sampled_from(
    [
        "inputs",
        "messages",
        "prompt",
        "parameters",
        "role",
        "content",
        "stream",
        "top_k",
        "data",
        "id",
    ]
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=16,
)

# The same examples on every run: a failure must not depend on the day.
same_every_time = settings(derandomize=True, deadline=None, max_examples=200, database=None)


def read_vertex(instances):
    return parse(VertexBody, json.dumps({"instances": instances}).encode()).read_instances()


def test_instances_become_what_their_keys_say():
    prompt, chat = read_vertex([{"inputs": "a"}, {"messages": []}])
    assert prompt == GenerateInstance(inputs="a")
    assert chat == ChatRequest(messages=())


def test_absent_and_null_parameters_are_those_of_a_bare_prompt():
    (absent, null) = read_vertex([{"inputs": "a"}, {"inputs": "a", "parameters": None}])
    assert absent.generate_request == null.generate_request == GenerateRequest(inputs="a")
    (empty,) = read_vertex([{"inputs": "a", "parameters": {}}])
    assert not empty.generate_request.parameters.do_sample


def test_key_given_twice_is_refused_with_its_place():
    body = parse(VertexBody, b'{"instances": [{"inputs": "a", "inputs": "b"}]}')
    with pytest.raises(ParseError) as caught:
        body.read_instances()
    assert str(caught.value) == "instances[0].inputs: given twice"


def outcome(read, value):
    """What was read, or the refusal. Any other exception fails the test."""
    try:
        return read(value)
    except ParseError as error:
        return error


@same_every_time
@given(value=ANYTHING)
def test_any_instance_is_read_or_refused_with_its_place(value):
    result = outcome(read_vertex, [{"inputs": "a"}, value])
    if isinstance(result, ParseError):
        assert result.status == 422
        assert result.path.startswith("instances[1]")
    else:
        assert isinstance(result[1], GenerateInstance | ChatRequest)


@same_every_time
@given(value=ANYTHING)
def test_any_invocation_is_read_or_refused(value):
    result = outcome(read_invocation, value)
    if isinstance(result, ParseError):
        assert result.status == 422
        assert 0 < len(str(result)) < 400
    else:
        assert isinstance(result, CompatGenerateRequest | ChatRequest | CompletionRequest)


@same_every_time
@given(name=st.sampled_from(["id", "parameters", "inputs", "outputs"]), value=ANYTHING)
def test_any_value_in_any_infer_field_is_read_or_refused_with_its_place(name, value):
    body = {"id": "1", "inputs": [], "outputs": [], name: value}
    result = outcome(lambda value: parse(InferRequest, json.dumps(value).encode()), body)
    assert not isinstance(result, ParseError) or result.path.startswith(name)
