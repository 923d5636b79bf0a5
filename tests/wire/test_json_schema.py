"""Schemas of wire types say what the parser accepts and what the writer writes."""

import importlib
import json
import math
import pkgutil
from collections.abc import Mapping
from types import NoneType
from typing import Annotated, Literal, get_args

import attrs
import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tgi_llama.wire
from tgi_llama.generation import FinishReason, Token, TokenId
from tgi_llama.wire.converter import dump, parse
from tgi_llama.wire.fields import (
    ALIASES,
    F32,
    I32,
    NULL_IS_DEFAULT,
    OMIT_WHEN_DEFAULT,
    U32,
    U64,
    IntegerRange,
    ValueRange,
)
from tgi_llama.wire.generate_requests import CompatGenerateRequest
from tgi_llama.wire.json_schema import CLASS_RULES, Schemas
from tgi_llama.wire.kserve import InferRequest
from tgi_llama.wire.openai_requests import ChatRequest, CompletionRequest
from tgi_llama.wire.parse_error import ParseError
from tgi_llama.wire.shapes import (
    is_attrs_class,
    is_float,
    is_integer,
    is_literal,
    is_mapping,
    is_tuple,
    is_union,
)


@attrs.frozen(kw_only=True)
class Red:
    """A warm colour."""

    type: Literal["red", "crimson"]
    shade: I32 = 0
    """Dark to light; ``None`` is not
    a shade."""


@attrs.frozen(kw_only=True)
class Blue:
    type: Literal["blue"]
    depth: float


@attrs.frozen(kw_only=True)
class Base:
    text: str
    """What it says."""


@attrs.frozen(kw_only=True)
class Everything(Base):
    flag: bool = False
    nullable_flag: bool = attrs.field(default=True, metadata={NULL_IS_DEFAULT: True})
    small: U32 | None = None
    single: F32 | None = None
    words: tuple[str, ...] = ()
    nested: tuple[tuple[I32, ...], ...] = ()
    either: str | tuple[str | U64, ...] | None = None
    numbers: Mapping[str, F32] | None = None
    colour: Red | Blue | None = None
    anything: object = None
    choice: Literal["a", "b"] = "a"
    renamed: I32 = attrs.field(default=0, metadata={ALIASES: ("old_name",)})
    wanted: str = attrs.field(metadata={ALIASES: ("asked", "sought")})


@attrs.frozen(kw_only=True)
class Ranges:
    above: Annotated[F32, ValueRange(above=0)] = 1.0
    within: Annotated[F32, ValueRange(minimum=-2, maximum=2)] = 0.0
    below: Annotated[F32, ValueRange(above=0, below=1)] = 0.5
    count: Annotated[U32, ValueRange(above=0)] = 1
    few: Annotated[U32, ValueRange(maximum=20)] = 0
    digit: Annotated[U32, ValueRange(minimum=2, below=10)] = 2


@attrs.frozen(kw_only=True)
class Written:
    id: TokenId
    reason: FinishReason
    logprob: F32
    maybe: F32 | None = None
    pair: tuple[int, int] = (1, 2)
    kind: Literal["written"] = "written"
    token: Token | None = None
    extra: str | None = attrs.field(default=None, metadata={OMIT_WHEN_DEFAULT: True})


def schema_of_request(t: object):
    schemas = Schemas()
    schema = schemas.of_request(t)
    return {**schema, "components": {"schemas": schemas.definitions}}


def schema_of_answer(t: object):
    schemas = Schemas()
    schema = schemas.of_answer(t)
    return {**schema, "components": {"schemas": schemas.definitions}}


def accepts(schema, value: object) -> bool:
    return jsonschema.Draft202012Validator(schema).is_valid(value)


def is_parsed(t: type, value: object) -> bool:
    try:
        parse(t, json.dumps(value).encode())
    except ParseError:
        return False
    return True


# --- any value ---

OTHER = st.sampled_from(
    [None, True, 0, -1, 2**64, 0.5, "", "x", "red", [], [None], ["x"], [1], {}, {"type": "x"}]
)
"""Values that are right for some types and wrong for others."""


def values(t: object) -> st.SearchStrategy[object]:
    """JSON values for a type; about one in ten is of another kind."""
    right = right_values(t)
    return st.integers(0, 9).flatmap(lambda dice: OTHER if dice == 0 else right)


def right_values(t: object) -> st.SearchStrategy[object]:
    if is_union(t):
        return st.one_of(*(right_values(member) for member in get_args(t)))
    if is_attrs_class(t):
        return objects(t)
    if is_tuple(t):
        return st.lists(values(get_args(t)[0]), max_size=2)
    if is_mapping(t):
        return st.dictionaries(st.sampled_from("ab"), values(get_args(t)[1]))
    if is_literal(t):
        return st.sampled_from(get_args(t))
    return scalars(t)


def scalars(t: object) -> st.SearchStrategy[object]:
    if is_integer(t):
        (limits,) = [mark for mark in get_args(t)[1:] if isinstance(mark, IntegerRange)]
        edges = [limits.minimum, limits.maximum, limits.minimum - 1, limits.maximum + 1]
        return st.one_of(st.integers(0, 3), st.sampled_from(edges))
    if is_float(t):
        return st.one_of(st.integers(-3, 3), st.sampled_from([0.25, 1.5, -2.5]))
    if t is NoneType:
        return st.none()
    if t is bool:
        return st.booleans()
    return st.sampled_from(["", "a", "é"]) if t is str else OTHER


@st.composite
def objects(draw, t) -> dict[str, object]:
    """Required keys are mostly there, others sometimes, under any of their names."""
    result = {}
    for field in attrs.fields(t):
        chance = 9 if field.default is attrs.NOTHING else 3
        for name in (field.name, *field.metadata.get(ALIASES, ())):
            if draw(st.integers(0, 9)) < chance:
                result[name] = draw(values(field.type))
                chance = 1
    return result


same_every_time = settings(
    derandomize=True,
    deadline=None,
    max_examples=100,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],  # it measures the machine's load
)

EVERYTHING = schema_of_request(Everything)


@same_every_time
@given(objects(Everything))
def test_schema_accepts_what_the_parser_accepts(value: dict[str, object]) -> None:
    assert accepts(EVERYTHING, value) is is_parsed(Everything, value)


@pytest.mark.parametrize("t", [CompatGenerateRequest, ChatRequest, CompletionRequest, InferRequest])
def test_schema_of_a_request_accepts_what_the_parser_accepts(t: type) -> None:
    schema = schema_of_request(t)
    wider = without_ranges(schema)
    n_accepted = 0

    @same_every_time
    @given(objects(t))
    def check(value: dict[str, object]) -> None:
        nonlocal n_accepted
        if accepts(schema, value):
            n_accepted += 1
            assert is_parsed(t, value)
        elif not accepts(wider, value):
            assert not is_parsed(t, value)

    check()
    assert n_accepted > 0


def without_ranges(value):
    """The schemas without the ranges of numbers, some of which only ``validation`` judges."""
    if isinstance(value, list):
        return [without_ranges(member) for member in value]
    if not isinstance(value, dict):
        return value
    bounds = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
    dropped = bounds if value.get("type") in ("number", "integer") else set()
    return {key: without_ranges(member) for key, member in value.items() if key not in dropped}


# --- single facts ---


@pytest.mark.parametrize(
    ("field", "right", "wrong"),
    [
        ("above", [0.1, 3], [0, -1]),
        ("within", [-2, 2, 0], [-2.1, 2.1]),
        ("below", [0.5], [0, 1]),
        ("count", [1, 2**32 - 1], [0, 2**32]),
        ("few", [0, 20], [-1, 21]),
        ("digit", [2, 9], [1, 10]),
    ],
)
def test_ranges_of_values_are_described(
    field: str, right: list[object], wrong: list[object]
) -> None:
    schema = schema_of_request(Ranges)
    assert all(accepts(schema, {field: value}) for value in right)
    assert not any(accepts(schema, {field: value}) for value in wrong)


def test_descriptions_are_the_docstrings_without_python_s_words() -> None:
    definitions = schema_of_request(Everything)["components"]["schemas"]
    assert definitions["Red"]["description"] == "A warm colour."
    assert definitions["Red"]["properties"]["shade"]["description"] == (
        "Dark to light; `null` is not a shade."
    )
    assert definitions["Everything"]["properties"]["text"]["description"] == "What it says."
    assert "description" not in definitions["Everything"]


def test_defaults_are_described_where_a_client_can_send_them() -> None:
    properties = schema_of_request(Everything)["components"]["schemas"]["Everything"]["properties"]
    assert properties["nullable_flag"]["default"] is True
    assert properties["words"]["default"] == []
    assert "default" not in properties["small"]
    assert "default" not in properties["text"]


def test_aliases_are_deprecated() -> None:
    properties = schema_of_request(Everything)["components"]["schemas"]["Everything"]["properties"]
    assert properties["old_name"]["deprecated"] is True
    assert "deprecated" not in properties["renamed"]


def test_tagged_objects_have_a_discriminator() -> None:
    properties = schema_of_request(Everything)["components"]["schemas"]["Everything"]["properties"]
    tagged, null = properties["colour"]["anyOf"]
    assert null == {"type": "null"}
    red = "#/components/schemas/Red"
    assert tagged["discriminator"] == {
        "propertyName": "type",
        "mapping": {"red": red, "crimson": red, "blue": "#/components/schemas/Blue"},
    }


@pytest.mark.parametrize(
    "value",
    [
        Written(id=TokenId(1), reason=FinishReason.LENGTH, logprob=-0.5),
        Written(id=TokenId(1), reason=FinishReason.EOS_TOKEN, logprob=-math.inf, maybe=0.1),
        Written(
            id=TokenId(1),
            reason=FinishReason.LENGTH,
            logprob=0.0,
            token=Token(TokenId(3), "a", None, True),
            extra="here",
        ),
    ],
)
def test_schema_of_an_answer_fits_what_is_written(value: Written) -> None:
    schema = schema_of_answer(Written)
    written = json.loads(dump(value))
    assert accepts(schema, written)
    for key in written:
        if key != "extra":
            assert not accepts(schema, {k: v for k, v in written.items() if k != key}), key
    assert not accepts(schema, {**written, "reason": "LENGTH"})
    assert not accepts(schema, {**written, "pair": [1]})


def test_class_cannot_be_described_both_as_read_and_as_written() -> None:
    schemas = Schemas()
    schemas.of_request(Red)
    with pytest.raises(ValueError, match="Red"):
        schemas.of_answer(Red)


def test_two_classes_of_one_name_are_refused() -> None:
    schemas = Schemas()
    schemas.of_request(Red)
    other = attrs.make_class("Red", ["a"])
    with pytest.raises(ValueError, match="Red"):
        schemas.of_request(other)


def test_every_rule_of_a_request_s_class_is_described() -> None:
    modules = [
        importlib.import_module(f"tgi_llama.wire.{module.name}")
        for module in pkgutil.iter_modules(tgi_llama.wire.__path__)
    ]
    with_rules = {
        t
        for module in modules
        for t in vars(module).values()
        if is_attrs_class(t) and "__attrs_post_init__" in vars(t)
    }
    assert with_rules == set(CLASS_RULES)
