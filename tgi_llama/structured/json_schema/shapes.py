"""What a schema allows, as values: one class per JSON type, references and unions.

The keywords of a schema mean sets of JSON values. A shape is such a set, in a form in which sets
can be intersected and in which every part is something that llguidance enforces. Frozen values, any
thread. ``at`` is the JSON path that errors name; it does not count when shapes are compared.
"""

from collections.abc import Mapping
from fractions import Fraction

import attrs

from .pattern import Pattern


@attrs.frozen
class Anything:
    """Every JSON value."""


@attrs.frozen
class Never:
    """No value at all, and why."""

    reason: str = attrs.field(eq=False)
    at: str = attrs.field(eq=False)


@attrs.frozen
class Null:
    """``null``."""


@attrs.frozen
class Boolean:
    """One or both of the booleans; never an empty set."""

    values: frozenset[bool] = frozenset({True, False})


@attrs.frozen(kw_only=True)
class Number:
    """Numbers within bounds. For integers the bounds are whole and included."""

    integer: bool = False
    low: Fraction | None = None
    low_included: bool = True
    high: Fraction | None = None
    high_included: bool = True
    multiple_of: Fraction | None = None
    at: str = attrs.field(default="", eq=False)


@attrs.frozen(kw_only=True)
class Text:
    """Strings. Where there are ``literals`` nothing else is set."""

    min_length: int = 0
    max_length: int | None = None
    patterns: tuple[Pattern, ...] = ()
    """Each matches the whole string."""
    literals: tuple[str, ...] | None = None
    excluded: frozenset[str] = frozenset()
    at: str = attrs.field(default="", eq=False)


@attrs.frozen(kw_only=True)
class Array:
    """Arrays: the first items by position, then the rest. ``prefix`` says nothing about how many
    items there are."""

    min_items: int = 0
    max_items: int | None = None
    prefix: tuple["Shape", ...] = ()
    rest: "Shape" = Anything()
    at: str = attrs.field(default="", eq=False)


@attrs.frozen(kw_only=True)
class Object:
    """Objects. What ``patterns`` and ``additional`` say about a name that is in ``properties`` is
    part of its shape there already. Every required name is in ``properties``."""

    properties: Mapping[str, "Shape"] = attrs.field(factory=dict)
    required: frozenset[str] = frozenset()
    patterns: tuple[tuple[Pattern, "Shape"], ...] = ()
    additional: "Shape" = Anything()
    min_properties: int = 0
    max_properties: int | None = None
    at: str = attrs.field(default="", eq=False)


@attrs.frozen
class Reference:
    """What all these definitions allow. The keys are JSON paths of definitions."""

    targets: frozenset[str]


@attrs.frozen
class Union:
    """What any option allows. Two or more, none of which is a union, Anything or Never."""

    options: tuple["Shape", ...]


Shape = Anything | Never | Null | Boolean | Number | Text | Array | Object | Reference | Union
ANYTHING = Anything()
EVERY_TYPE: tuple[Shape, ...] = (Null(), Boolean(), Number(), Text(), Array(), Object())


def union_of(options: list[Shape], *, at: str) -> Shape:
    """The smallest form of the union; Never when nothing is left."""
    flat: list[Shape] = []
    for option in options:
        flat.extend(option.options if isinstance(option, Union) else (option,))
    if any(isinstance(option, Anything) for option in flat):
        return ANYTHING
    left = [option for option in flat if not isinstance(option, Never)]
    if not left:
        return next(
            (option for option in flat if isinstance(option, Never)), Never("no option is left", at)
        )
    return left[0] if len(left) == 1 else Union(tuple(left))


def options_of(shape: Shape) -> tuple[Shape, ...]:
    """The shape as a list of options, none of which is Anything or a union."""
    if isinstance(shape, Union):
        return shape.options
    if isinstance(shape, Anything):
        return EVERY_TYPE
    return () if isinstance(shape, Never) else (shape,)


def text_of_literals(literals: tuple[str, ...], *, at: str) -> Shape:
    """Strings that are one of these."""
    if not literals:
        return Never("no string is left", at)
    return Text(literals=literals, at=at)
