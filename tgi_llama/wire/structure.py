"""Plain JSON values to wire types, strictly.

cattrs' own hooks convert ("false" becomes True, "abc" a list of letters), so every kind of type a
request uses gets a hook here that accepts one kind of JSON value and nothing else. The first thing
that is wrong raises a ParseError that carries its JSON path.
"""

import math
import struct
from collections.abc import Callable, Mapping
from types import NoneType
from typing import get_args

import attrs
import cattrs

from .fields import ALIASES, NULL_IS_DEFAULT, IntegerRange, SinglePrecision
from .json_text import RepeatedKeys
from .parse_error import ParseError
from .shapes import (
    describe,
    is_attrs_class,
    is_float,
    is_integer,
    is_literal,
    is_mapping,
    is_tuple,
    is_union,
    json_type,
    mismatch,
    name,
    one_of,
)

Hook = Callable[[object, object], object]
"""What cattrs calls: a JSON value and the type it is to become, which our hooks know already."""


def strict_converter() -> cattrs.Converter:
    """A converter whose ``structure`` raises nothing but ParseError for any JSON value."""
    # Its own error groups would hide our paths.
    converter = cattrs.Converter(detailed_validation=False)
    add = converter.register_structure_hook_factory
    add(lambda t: t is object, lambda _: lambda value, _t: value)
    # cattrs looks for a class by itself before it asks any factory.
    converter.register_structure_hook(str, _string)
    converter.register_structure_hook(bool, _boolean)
    converter.register_structure_hook(int, _integer_hook(int))
    converter.register_structure_hook(float, _float_hook(float))
    add(is_integer, _integer_hook)
    add(is_float, _float_hook)
    add(is_literal, _literal_hook)
    add(is_tuple, lambda t: _tuple_hook(t, converter))
    add(is_mapping, lambda t: _mapping_hook(t, converter))
    add(is_union, lambda t: _union_hook(t, converter))
    add(is_attrs_class, lambda t: _object_hook(t, converter))
    return converter


# --- scalars --------------------------------------------------------------------------------------


def _string(value: object, _type: object) -> str:
    if isinstance(value, str):
        return value
    raise mismatch(str, value)


def _boolean(value: object, _type: object) -> bool:
    if isinstance(value, bool):
        return value
    raise mismatch(bool, value)


def _integer_hook(t: object) -> Hook:
    limits = next((a for a in get_args(t) if isinstance(a, IntegerRange)), None)

    def structure(value: object, _type: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise mismatch(int, value)
        if limits is not None and not limits.minimum <= value <= limits.maximum:
            expected = f"an integer from {limits.minimum} to {limits.maximum}"
            raise ParseError(f"expected {expected}, got {describe(value)}")
        return value

    return structure


def _float_hook(t: object) -> Hook:
    is_single = any(isinstance(a, SinglePrecision) for a in get_args(t))

    def structure(value: object, _type: object) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise mismatch(float, value)
        try:
            result = _single(float(value)) if is_single else float(value)
        except OverflowError:
            result = math.inf
        if not math.isfinite(result):
            raise ParseError(f"expected a finite number, got {describe(value)}")
        return result

    return structure


def _single(value: float) -> float:
    """The nearest single-precision number. Raises OverflowError beyond the largest one."""
    (rounded,) = struct.unpack("f", struct.pack("f", value))
    assert isinstance(rounded, float)
    return rounded


def _literal_hook(t: object) -> Hook:
    choices = get_args(t)

    def structure(value: object, _type: object) -> object:
        if isinstance(value, str) and value in choices:
            return value
        raise mismatch(t, value)

    return structure


# --- lists, maps and unions -----------------------------------------------------------------------


def _tuple_hook(t: object, converter: cattrs.Converter) -> Hook:
    member = get_args(t)[0]
    hook: Hook = converter.get_structure_hook(member)

    def structure(value: object, _type: object) -> tuple[object, ...]:
        if not isinstance(value, list):
            raise mismatch(t, value)
        items: list[object] = []
        try:
            for item in value:
                items.append(hook(item, member))
        except ParseError as error:
            raise error.under(len(items)) from None
        return tuple(items)

    return structure


def _mapping_hook(t: object, converter: cattrs.Converter) -> Hook:
    member = get_args(t)[1]
    hook: Hook = converter.get_structure_hook(member)

    def structure(value: object, _type: object) -> dict[str, object]:
        if not isinstance(value, dict):
            raise mismatch(t, value)
        if isinstance(value, RepeatedKeys):
            raise ParseError("given twice", path=min(value.repeated))
        key = ""
        result = {}
        try:
            for key, item in value.items():
                result[key] = hook(item, member)
        except ParseError as error:
            raise error.under(key) from None
        return result

    return structure


def _union_hook(t: object, converter: cattrs.Converter) -> Hook:
    """Picks the member by the kind of JSON value, and among objects by their ``type``."""
    members = [member for member in get_args(t) if member is not NoneType]
    objects = [member for member in members if json_type(member) is dict]
    hooks: dict[type, Hook] = {
        json_type(member): converter.get_structure_hook(member) for member in members
    }
    if len(objects) > 1:
        hooks[dict] = _tagged_hook(objects, converter)
    if float in hooks:
        hooks.setdefault(int, hooks[float])
    accepts_null = NoneType in get_args(t)

    def structure(value: object, _type: object) -> object:
        if value is None and accepts_null:
            return None
        hook = hooks.get(dict if isinstance(value, dict) else type(value))
        if hook is None:
            raise mismatch(t, value)
        return hook(value, t)

    return structure


def _tagged_hook(members: list[object], converter: cattrs.Converter) -> Hook:
    """For objects told apart by a ``type`` whose values the members list."""
    hooks: dict[str, Hook] = {}
    for member in members:
        assert isinstance(member, type)
        hook: Hook = converter.get_structure_hook(member)
        hooks |= dict.fromkeys(get_args(attrs.fields_dict(member)["type"].type), hook)

    def structure(value: object, _type: object) -> object:
        assert isinstance(value, dict)
        tag = value.get("type")
        if not isinstance(tag, str) or tag not in hooks:
            found = describe(tag) if "type" in value else "nothing"
            raise ParseError(f"expected {one_of(tuple(hooks))}, got {found}", path="type")
        return hooks[tag](value, None)

    return structure


# --- objects --------------------------------------------------------------------------------------


@attrs.frozen
class _Member:
    """One field of an attrs class, as its JSON key sees it."""

    name: str
    type: object
    hook: Hook
    null_is_default: bool


def _object_hook(t: object, converter: cattrs.Converter) -> Hook:
    assert isinstance(t, type)
    members = _members(t, converter)
    required = [f for f in attrs.fields(t) if f.default is attrs.NOTHING]

    def structure(value: object, _type: object) -> object:
        if not isinstance(value, dict):
            raise mismatch(t, value)
        arguments = _arguments(value, members)
        for field in required:
            if field.name not in arguments:
                raise ParseError(f"missing, expected {name(field.type)}", path=field.name)
        try:
            return t(**arguments)
        except ValueError as error:  # a rule of the class about several fields
            raise ParseError(str(error)) from None

    return structure


def _members(t: type, converter: cattrs.Converter) -> dict[str, _Member]:
    """The accepted keys of an attrs class."""
    members = {}
    for field in attrs.fields(t):
        hook: Hook = converter.get_structure_hook(field.type)
        null_is_default = field.metadata.get(NULL_IS_DEFAULT, False)
        member = _Member(field.name, field.type, hook, null_is_default)
        for key in (field.name, *field.metadata.get(ALIASES, ())):
            members[key] = member
    return members


def _arguments(value: dict[str, object], members: Mapping[str, _Member]) -> dict[str, object]:
    """The structured fields by name. Keys without a field are ignored."""
    repeated = value.repeated if isinstance(value, RepeatedKeys) else frozenset()
    arguments: dict[str, object] = {}
    taken: set[str] = set()
    for key, item in value.items():
        member = members.get(key)
        if member is None:
            continue
        if key in repeated or member.name in taken:
            raise ParseError("given twice", path=key)
        taken.add(member.name)
        if item is None and member.null_is_default:
            continue
        try:
            arguments[member.name] = member.hook(item, member.type)
        except ParseError as error:
            raise error.under(key) from None
    return arguments
