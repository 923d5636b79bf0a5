"""Values of keywords, checked; and instances (``const``, ``enum``) as shapes."""

import math
from fractions import Fraction

from tgi_llama.errors import ValidationError

from .algebra import Effort
from .document import Place
from .paths import child
from .shapes import (
    Array,
    Boolean,
    Never,
    Null,
    Number,
    Object,
    Shape,
    Text,
    union_of,
)


def wrong_type(keyword: str, expected: str, place: Place) -> ValidationError:
    return ValidationError(
        f"the schema is not valid: {keyword} must be {expected}", field=child(place.path, keyword)
    )


def members(node: dict[str, object], keyword: str, place: Place) -> list[tuple[str, Place]]:
    """An object's members as places; empty if the keyword is absent."""
    value = node.get(keyword, {})
    if not isinstance(value, dict):
        raise wrong_type(keyword, "an object", place)
    at = child(place.path, keyword)
    return [(key, Place(below, child(at, key), place.base)) for key, below in value.items()]


def items(node: dict[str, object], keyword: str, place: Place) -> list[Place]:
    """A list's items as places."""
    value = node.get(keyword, [])
    if not isinstance(value, list):
        raise wrong_type(keyword, "a list", place)
    at = child(place.path, keyword)
    return [Place(below, child(at, index), place.base) for index, below in enumerate(value)]


def member(node: dict[str, object], keyword: str, place: Place) -> Place:
    return Place(node[keyword], child(place.path, keyword), place.base)


def names(value: object, keyword: str, place: Place) -> list[str]:
    """A list of strings."""
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise wrong_type(keyword, "a list of strings", place)
    return list(value)


def count(node: dict[str, object], keyword: str, place: Place) -> int | None:
    """A natural number, or None if the keyword is absent."""
    value = node.get(keyword)
    if keyword not in node:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise wrong_type(keyword, "an integer of at least 0", place)
    return value


def number(node: dict[str, object], keyword: str, place: Place) -> Fraction | None:
    """A number, exactly as written in decimal; None if the keyword is absent."""
    if keyword not in node:
        return None
    value = node[keyword]
    if isinstance(value, bool) or not isinstance(value, int | float) or not is_finite(value):
        raise wrong_type(keyword, "a number", place)
    return exact(value)


def is_finite(value: float) -> bool:
    """Python's readers of JSON take Infinity and NaN; integers may be too large for a double."""
    return isinstance(value, int) or math.isfinite(value)


def exact(value: float) -> Fraction:
    """The number that the shortest decimal form of a double names."""
    return Fraction(value) if isinstance(value, int) else Fraction(repr(value))


def literals(values: list[Place], effort: Effort, *, at: str) -> Shape:
    """One of these instances. An instance that occurs twice counts once."""
    effort.spend(len(values) // 10)
    words = dict.fromkeys(place.node for place in values if isinstance(place.node, str))
    found: list[Shape] = []
    for place in values:
        if isinstance(place.node, str):
            if words:
                found.append(Text(literals=tuple(words), at=at))  # where the first one is
                words = {}
            continue
        one = literal(place, effort)
        if not isinstance(one, Text) and (len(values) > 50 or one not in found):
            found.append(one)
    return union_of(found, at=at)


def literal(place: Place, effort: Effort) -> Shape:
    """Exactly this instance."""
    with effort:
        value, at = place.node, place.path
        if value is None:
            return Null()
        if isinstance(value, bool):
            return Boolean(frozenset({value}))
        if isinstance(value, str):
            return Text(literals=(value,), at=at)
        if isinstance(value, int | float):
            return _number(value, at=at)
        if isinstance(value, list):
            parts = tuple(
                literal(Place(item, child(at, index), ""), effort)
                for index, item in enumerate(value)
            )
            nothing = Never("no more items", at)
            length = len(parts)
            return Array(min_items=length, max_items=length, prefix=parts, rest=nothing, at=at)
        assert isinstance(value, dict)
        properties = {
            key: literal(Place(item, child(at, key), ""), effort) for key, item in value.items()
        }
        nothing = Never("no more properties", at)
        return Object(
            properties=properties, required=frozenset(properties), additional=nothing, at=at
        )


def _number(value: float, *, at: str) -> Shape:
    if not is_finite(value):
        raise ValidationError("the number is not finite", field=at)
    wanted = exact(value)
    return Number(low=wanted, high=wanted, at=at)
