"""JSON values to types: one kind of value for one kind of type, and a path to what is wrong."""

import json
from collections.abc import Mapping
from typing import Literal

import attrs
import pytest

from tgi_llama.wire.converter import parse
from tgi_llama.wire.fields import ALIASES, F32, I32, I64, NULL_IS_DEFAULT, U32, U64
from tgi_llama.wire.parse_error import ParseError


@attrs.frozen(kw_only=True)
class Red:
    type: Literal["red", "crimson"]
    shade: I32 = 0


@attrs.frozen(kw_only=True)
class Blue:
    type: Literal["blue"]
    depth: float


@attrs.frozen(kw_only=True)
class Everything:
    text: str = ""
    flag: bool = False
    nullable_flag: bool = attrs.field(default=True, metadata={NULL_IS_DEFAULT: True})
    small: U32 | None = None
    signed: I32 | None = None
    large: U64 | None = None
    large_signed: I64 | None = None
    plain: int = 0
    single: F32 | None = None
    double: float = 0.0
    words: tuple[str, ...] = ()
    nested: tuple[tuple[int, ...], ...] = ()
    either: str | tuple[str, ...] | None = None
    numbers: Mapping[str, F32] = attrs.field(factory=dict)
    colour: Red | Blue | None = None
    anything: object = None
    choice: Literal["a", "b"] = "a"
    renamed: int = attrs.field(default=0, metadata={ALIASES: ("old_name",)})

    def __attrs_post_init__(self) -> None:
        if self.text == "bad" and self.flag:
            raise ValueError("`text` and `flag` do not go together")


def read(**fields: object) -> Everything:
    return parse(Everything, json.dumps(fields).encode())


def refusal(body: bytes) -> str:
    with pytest.raises(ParseError) as caught:
        parse(Everything, body)
    assert caught.value.status == 422
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("text", "é"),
        ("flag", True),
        ("small", 2**32 - 1),
        ("signed", -(2**31)),
        ("large", 2**64 - 1),
        ("large_signed", -(2**63)),
        ("plain", 10**30),
        ("double", 1e300),
        ("anything", {"a": [1, None]}),
        ("anything", None),
        ("choice", "b"),
        ("either", "x"),
        ("small", None),
    ],
)
def test_parse_value_of_the_right_kind_is_kept(name: str, value: object) -> None:
    assert getattr(read(**{name: value}), name) == value


def test_parse_lists_become_tuples() -> None:
    value = read(words=["a", "b"], nested=[[1], []], either=["x"])
    assert (value.words, value.nested, value.either) == (("a", "b"), ((1,), ()), ("x",))


def test_parse_integer_in_float_field_becomes_a_float() -> None:
    value = read(double=2, single=1)
    assert isinstance(value.double, float)
    assert isinstance(value.single, float)


def test_parse_single_precision_field_is_rounded() -> None:
    assert read(single=0.1).single == 0.10000000149011612
    assert read(numbers={"a": 0.1}).numbers == {"a": 0.10000000149011612}


def test_parse_unknown_fields_are_ignored_even_twice() -> None:
    assert parse(Everything, b'{"new": 1, "new": 2, "text": "a"}').text == "a"


def test_parse_null_where_it_means_the_default_gives_the_default() -> None:
    assert read(nullable_flag=None).nullable_flag is True


def test_parse_alias_fills_the_field() -> None:
    assert read(old_name=3).renamed == 3


def test_parse_tagged_objects_are_told_apart_by_type() -> None:
    assert read(colour={"type": "crimson", "shade": 2}).colour == Red(type="crimson", shade=2)
    assert read(colour={"type": "blue", "depth": 2}).colour == Blue(type="blue", depth=2.0)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"3", "expected an object, got 3"),
        (b"[]", "expected an object, got a list"),
        (b'{"text": 1}', "text: expected a string, got 1"),
        (b'{"text": null}', "text: expected a string, got null"),
        (b'{"text": {}}', "text: expected a string, got an object"),
        (b'{"flag": "false"}', 'flag: expected a boolean, got "false"'),
        (b'{"flag": 0}', "flag: expected a boolean, got 0"),
        (b'{"flag": null}', "flag: expected a boolean, got null"),
        (b'{"small": "5"}', 'small: expected an integer, got "5"'),
        (b'{"small": 10.0}', "small: expected an integer, got 10.0"),
        (b'{"small": true}', "small: expected an integer, got true"),
        (b'{"small": -1}', "small: expected an integer from 0 to 4294967295, got -1"),
        (
            b'{"signed": 2147483648}',
            "signed: expected an integer from -2147483648 to 2147483647, got 2147483648",
        ),
        (b'{"double": "1"}', 'double: expected a number, got "1"'),
        (b'{"double": false}', "double: expected a number, got false"),
        (b'{"double": 1e400}', "double: expected a finite number, got Infinity"),
        (b'{"single": 1e39}', "single: expected a finite number, got 1e+39"),
        (b'{"words": "abc"}', 'words: expected a list, got "abc"'),
        (b'{"words": ["a", 1]}', "words[1]: expected a string, got 1"),
        (b'{"nested": [[], [1, {}]]}', "nested[1][1]: expected an integer, got an object"),
        (b'{"either": 1}', "either: expected a string or a list, got 1"),
        (b'{"either": [1]}', "either[0]: expected a string, got 1"),
        (b'{"numbers": []}', "numbers: expected an object, got a list"),
        (b'{"numbers": {"k": "x"}}', 'numbers.k: expected a number, got "x"'),
        (b'{"numbers": {"k": 1, "k": 2}}', "numbers.k: given twice"),
        (
            b'{"colour": {"type": "green"}}',
            'colour.type: expected "red" or "crimson" or "blue", got "green"',
        ),
        (b'{"colour": {}}', 'colour.type: expected "red" or "crimson" or "blue", got nothing'),
        (
            b'{"colour": {"type": []}}',
            'colour.type: expected "red" or "crimson" or "blue", got a list',
        ),
        (b'{"colour": {"type": "blue"}}', "colour.depth: missing, expected a number"),
        (b'{"colour": 1}', "colour: expected an object, got 1"),
        (b'{"choice": "c"}', 'choice: expected "a" or "b", got "c"'),
        (b'{"text": "a", "text": "a"}', "text: given twice"),
        (b'{"renamed": 1, "old_name": 1}', "old_name: given twice"),
        (b'{"text": "bad", "flag": true}', "`text` and `flag` do not go together"),
    ],
)
def test_parse_wrong_value_is_refused_with_path_and_expectation(body: bytes, message: str) -> None:
    assert refusal(body) == message


def test_parse_long_wrong_values_are_quoted_in_part() -> None:
    assert len(refusal(b'{"flag": "%s"}' % (b"x" * 1000))) < 100
    assert len(refusal(b'{"flag": %s}' % (b"9" * 1000))) < 100


def test_parse_huge_integer_in_float_field_is_refused() -> None:
    assert refusal(b'{"double": 1%s}' % (b"0" * 400)).startswith("double: expected a finite number")


def test_parse_error_knows_its_path() -> None:
    with pytest.raises(ParseError) as caught:
        parse(Everything, b'{"colour": {"type": "red", "shade": "x"}}')
    assert caught.value.path == "colour.shade"
    assert caught.value.message == 'expected an integer, got "x"'
