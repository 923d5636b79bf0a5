"""The ranges that wire types carry for the API document are those that validation enforces."""

import json
from collections.abc import Iterator
from types import NoneType
from typing import get_args, get_type_hints

import pytest
from fakes.validation import ByteTokenizer, TaggedTemplates

from tgi_llama.errors import ValidationError
from tgi_llama.validation.rules import Limits
from tgi_llama.validation.validator import Validator
from tgi_llama.wire.converter import parse
from tgi_llama.wire.fields import SinglePrecision, ValueRange
from tgi_llama.wire.generate_requests import GenerateParameters, GenerateRequest
from tgi_llama.wire.openai_requests import ChatRequest, CompletionRequest

VALIDATOR = Validator(
    Limits(max_input_tokens=100, max_total_tokens=200), ByteTokenizer(), TaggedTemplates()
)
STEP = 2**-10


def ranges(wire_type: type) -> Iterator[tuple[type, str, ValueRange, bool]]:
    """Fields with a range: type, name, range, and whether the values are integers."""
    for name, hint in get_type_hints(wire_type, include_extras=True).items():
        for member in get_args(hint):
            marks = get_args(member) if member is not NoneType else ()
            for mark in marks:
                if isinstance(mark, ValueRange):
                    is_integer = not any(isinstance(other, SinglePrecision) for other in marks)
                    yield wire_type, name, mark, is_integer


RANGES = [
    row
    for wire_type in (GenerateParameters, ChatRequest, CompletionRequest)
    for row in ranges(wire_type)
]


def refused_field(wire_type: type, name: str, value: float) -> str | None:
    """The field that validation names; None where it accepts the value."""
    try:
        if wire_type is GenerateParameters:
            body = json.dumps({"inputs": "a", "parameters": {name: value}}).encode()
            VALIDATOR.generate(parse(GenerateRequest, body), streaming=False)
        elif wire_type is ChatRequest:
            body = json.dumps({"messages": [], name: value}).encode()
            VALIDATOR.chat(parse(ChatRequest, body))
        else:
            body = json.dumps({"prompt": "a", name: value}).encode()
            VALIDATOR.completion(parse(CompletionRequest, body))
    except ValidationError as error:
        return error.field or "none"
    return None


def test_ranges_are_found_in_every_kind_of_request() -> None:
    assert {row[0] for row in RANGES} == {GenerateParameters, ChatRequest, CompletionRequest}
    assert len(RANGES) > 25


@pytest.mark.parametrize(
    ("wire_type", "name", "limits", "is_integer"),
    RANGES,
    ids=[f"{row[0].__name__}.{row[1]}" for row in RANGES],
)
def test_range_of_a_field_is_what_validation_accepts(
    wire_type: type, name: str, limits: ValueRange, is_integer: bool
) -> None:
    step = 1 if is_integer else STEP
    expected: dict[float, bool] = {}
    if limits.above is not None:
        expected |= {limits.above: False, limits.above + step: True}
    if limits.below is not None:
        expected |= {limits.below: False, limits.below - step: True}
    if limits.minimum is not None:
        expected |= {limits.minimum: True, limits.minimum - step: False}
    if limits.maximum is not None:
        expected |= {limits.maximum: True, limits.maximum + step: False}
    path = f"parameters.{name}" if wire_type is GenerateParameters else name
    for value, is_accepted in expected.items():
        assert refused_field(wire_type, name, value) == (None if is_accepted else path), value
