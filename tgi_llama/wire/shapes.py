"""The kinds of types that request fields may have, and how errors speak of them."""

import json
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

import attrs

from .parse_error import ParseError

_LONGEST_QUOTE = 40
"""How many characters of a wrong value an error repeats."""

_NAMES: Mapping[type, str] = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    list: "a list",
    dict: "an object",
}


def is_integer(t: object) -> bool:
    return t is int or (get_origin(t) is Annotated and get_args(t)[0] is int)


def is_float(t: object) -> bool:
    return t is float or (get_origin(t) is Annotated and get_args(t)[0] is float)


def is_literal(t: object) -> bool:
    return get_origin(t) is Literal


def is_tuple(t: object) -> bool:
    return get_origin(t) is tuple


def is_mapping(t: object) -> bool:
    return get_origin(t) is Mapping


def is_union(t: object) -> bool:
    return get_origin(t) in (Union, UnionType)


def is_attrs_class(t: object) -> bool:
    return isinstance(t, type) and attrs.has(t)


def json_type(t: object) -> type:
    """The Python type of the JSON values that ``t`` is read from."""
    if t in (str, bool):
        assert isinstance(t, type)
        return t
    if is_literal(t):
        return str
    if is_integer(t):
        return int
    if is_float(t):
        return float
    return list if is_tuple(t) else dict


def name(t: object) -> str:
    """What ``t`` expects, for people."""
    if t is object:
        return "a value"
    if is_literal(t):
        return one_of(get_args(t))
    if is_union(t):
        names = (name(member) for member in get_args(t) if member is not NoneType)
        return " or ".join(dict.fromkeys(names))
    return _NAMES[json_type(t)]


def one_of(choices: tuple[str, ...]) -> str:
    """A choice of strings, for people."""
    return " or ".join(json.dumps(choice) for choice in choices)


def describe(value: object) -> str:
    """What came, for people: short whatever the client sent."""
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, str) and len(value) > _LONGEST_QUOTE:
        return json.dumps(value[:_LONGEST_QUOTE], ensure_ascii=False) + "..."
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 2 * _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}..."


def mismatch(expected: object, value: object) -> ParseError:
    """``value`` is of another kind than the type ``expected`` is read from."""
    return ParseError(f"expected {name(expected)}, got {describe(value)}")
