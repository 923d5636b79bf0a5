"""Intersections of shapes, and the empty sets that come of contradictions."""

import math
from collections.abc import Callable
from fractions import Fraction

import attrs

from tgi_llama.errors import ValidationError

from . import pattern
from .shapes import (
    ANYTHING,
    Anything,
    Array,
    Boolean,
    Never,
    Null,
    Number,
    Object,
    Reference,
    Shape,
    Text,
    Union,
    options_of,
    text_of_literals,
    union_of,
)

MAX_WORK = 60_000  # shapes made and characters matched; half a second at most
MAX_DEPTH = 150  # of shapes in shapes, through references too; below Python's limit of recursion


@attrs.define(eq=False)
class Effort:
    """How much one schema may still cost. One for each call; not shared."""

    field: str
    left: int = MAX_WORK
    depth: int = 0

    def spend(self, amount: int = 1) -> None:
        self.left -= amount
        if self.left < 0:
            raise ValidationError("the schema is too complex", field=self.field)

    def __enter__(self) -> None:
        self.depth += 1
        self.spend()
        if self.depth > MAX_DEPTH:
            raise ValidationError("the schema is nested too deeply", field=self.field)

    def __exit__(self, *_: object) -> None:
        self.depth -= 1


@attrs.define(eq=False)
class Algebra:
    """Sets of JSON values. ``expand`` gives the shape behind a reference, never a reference."""

    expand: Callable[[Reference], Shape]
    effort: Effort

    def intersect(self, one: Shape, other: Shape, *, at: str) -> Shape:
        """What both allow. Properties keep the order of the first. ``at`` is for errors."""
        with self.effort:
            if isinstance(one, Anything) or isinstance(other, Never):
                return other
            if isinstance(other, Anything) or isinstance(one, Never):
                return one
            if isinstance(one, Reference) and isinstance(other, Reference):
                return Reference(one.targets | other.targets)
            if isinstance(one, Union) or isinstance(other, Union):
                return self._distributed(one, other, at=at)
            if isinstance(one, Reference):
                return self.intersect(self.expand(one), other, at=at)
            if isinstance(other, Reference):
                return self.intersect(one, self.expand(other), at=at)
            return self._of_one_type(one, other, at=at)

    def all_of(self, shapes: list[Shape], *, at: str) -> Shape:
        result: Shape = ANYTHING
        for shape in shapes:
            result = self.intersect(result, shape, at=at)
        return result

    def are_disjoint(self, one: Shape, other: Shape, *, at: str) -> bool:
        """True only if no value is in both."""
        one, other = self.head(one), self.head(other)
        return isinstance(self.intersect(one, other, at=at), Never)

    def head(self, shape: Shape) -> Shape:
        """The shape with no reference at its top."""
        with self.effort:
            if isinstance(shape, Reference):
                return self.head(self.expand(shape))
            if isinstance(shape, Union):
                return union_of([self.head(option) for option in shape.options], at="")
            return shape

    def _distributed(self, one: Shape, other: Shape, *, at: str) -> Shape:
        found = [
            self.intersect(left, right, at=at)
            for left in options_of(one)
            for right in options_of(other)
        ]
        kept = union_of(found, at=at)
        return Never("no option of anyOf, oneOf or type is left", at) if _is_never(kept) else kept

    def _of_one_type(self, one: Shape, other: Shape, *, at: str) -> Shape:
        if isinstance(one, Null) and isinstance(other, Null):
            return one
        if isinstance(one, Boolean) and isinstance(other, Boolean):
            values = one.values & other.values
            return Boolean(values) if values else Never("no boolean is left", at)
        if isinstance(one, Number) and isinstance(other, Number):
            return _numbers(one, other, at=at)
        if isinstance(one, Text) and isinstance(other, Text):
            return self._texts(one, other, at=at)
        if isinstance(one, Array) and isinstance(other, Array):
            return self._arrays(one, other, at=at)
        if isinstance(one, Object) and isinstance(other, Object):
            return self._objects(one, other, at=at)
        return Never("the types contradict each other", at)

    def _texts(self, one: Text, other: Text, *, at: str) -> Shape:
        if one.literals is None and other.literals is not None:
            one, other = other, one
        if one.literals is None:
            return make_text(
                Text(
                    min_length=max(one.min_length, other.min_length),
                    max_length=_smaller(one.max_length, other.max_length),
                    patterns=tuple(dict.fromkeys((*one.patterns, *other.patterns))),
                    excluded=one.excluded | other.excluded,
                    at=at,
                )
            )
        self.effort.spend(1 + len(one.literals) // 20)
        wanted = None if other.literals is None else set(other.literals)
        kept = tuple(
            word
            for word in one.literals
            if (word in wanted if wanted is not None else self.is_text(other, word))
        )
        return text_of_literals(kept, at=at)

    def _arrays(self, one: Array, other: Array, *, at: str) -> Shape:
        length = max(len(one.prefix), len(other.prefix))
        prefix = tuple(
            self.intersect(item_of(one, index), item_of(other, index), at=at)
            for index in range(length)
        )
        return make_array(
            Array(
                min_items=max(one.min_items, other.min_items),
                max_items=_smaller(one.max_items, other.max_items),
                prefix=prefix,
                rest=self.intersect(one.rest, other.rest, at=at),
                at=at,
            )
        )

    def _objects(self, one: Object, other: Object, *, at: str) -> Shape:
        names = dict.fromkeys((*one.properties, *other.properties))
        properties = {
            name: self.intersect(
                self.property_of(one, name, at=at), self.property_of(other, name, at=at), at=at
            )
            for name in names
        }
        return make_object(
            Object(
                properties=properties,
                required=one.required | other.required,
                patterns=self._patterns(one, other, at=at),
                additional=self.intersect(one.additional, other.additional, at=at),
                min_properties=max(one.min_properties, other.min_properties),
                max_properties=_smaller(one.max_properties, other.max_properties),
                at=at,
            )
        )

    def _patterns(
        self, one: Object, other: Object, *, at: str
    ) -> tuple[tuple[pattern.Pattern, Shape], ...]:
        """llguidance refuses patterns that overlap, so a name has one of them at most; what is not
        matched on the other side is additional there."""
        ours, theirs = dict(one.patterns), dict(other.patterns)
        return tuple(
            (
                key,
                self.intersect(
                    ours.get(key, one.additional), theirs.get(key, other.additional), at=at
                ),
            )
            for key in dict.fromkeys((*ours, *theirs))
        )

    def matches(self, one: pattern.Pattern, word: str) -> bool:
        """Whether the whole string matches."""
        return pattern.matches(one, word, self.effort.spend)

    def is_text(self, shape: Text, word: str) -> bool:
        """Whether the string is in the set."""
        if shape.literals is not None:
            return word in shape.literals
        return (
            shape.min_length <= len(word)
            and (shape.max_length is None or len(word) <= shape.max_length)
            and word not in shape.excluded
            and all(self.matches(one, word) for one in shape.patterns)
        )

    def property_of(self, shape: Object, name: str, *, at: str) -> Shape:
        """What the object allows under a name."""
        if name in shape.properties:
            return shape.properties[name]
        matching = [value for key, value in shape.patterns if self.matches(key, name)]
        nearly = [
            value for key, value in shape.patterns if key.wide and self.matches(key.wide, name)
        ]
        return self.all_of([*(matching or [shape.additional]), *nearly], at=at)


def item_of(shape: Array, index: int) -> Shape:
    """What the array allows at a position."""
    return shape.prefix[index] if index < len(shape.prefix) else shape.rest


def _is_never(shape: Shape) -> bool:
    return isinstance(shape, Never)


def _smaller(one: int | None, other: int | None) -> int | None:
    return min((bound for bound in (one, other) if bound is not None), default=None)


def make_text(shape: Text) -> Shape:
    """The shape, or Never if its lengths contradict each other or a pattern."""
    if shape.max_length is not None and shape.min_length > shape.max_length:
        return Never("minLength is above maxLength", shape.at)
    for one in shape.patterns:
        if shape.max_length is not None and one.shortest > shape.max_length:
            return Never("the pattern or format needs more than maxLength", shape.at)
        if one.longest is not None and one.longest < shape.min_length:
            return Never("the pattern or format allows less than minLength", shape.at)
    return shape


def make_array(shape: Array) -> Shape:
    """The shape with what can never be an item left out."""
    most = shape.max_items
    if isinstance(shape.rest, Never):
        most = _smaller(most, len(shape.prefix))
    for index, item in enumerate(shape.prefix):
        if isinstance(item, Never):
            most = _smaller(most, index)
            break
    if most is not None and shape.min_items > most:
        return Never(f"an array of {shape.min_items} items is never valid", shape.at)
    return attrs.evolve(shape, max_items=most)


def make_object(shape: Object) -> Shape:
    """The shape, or Never if a required property or a count of properties is impossible."""
    for name in shape.required:
        value = shape.properties[name]
        if isinstance(value, Never):
            return Never(f"the required property {name!r} is never valid", shape.at)
    most = shape.max_properties
    if isinstance(shape.additional, Never) and all(_is_never(value) for _, value in shape.patterns):
        possible = sum(not _is_never(value) for value in shape.properties.values())
        most = _smaller(most, possible)
    if most is not None and max(shape.min_properties, len(shape.required)) > most:
        return Never("more properties are required than are allowed", shape.at)
    return shape


def _lowest(one: Number, other: Number) -> Number:
    """The one whose lower bound is stricter."""
    if one.low is None or other.low is None:
        return other if one.low is None else one
    if one.low == other.low:
        return other if one.low_included else one
    return one if one.low > other.low else other


def _highest(one: Number, other: Number) -> Number:
    if one.high is None or other.high is None:
        return other if one.high is None else one
    if one.high == other.high:
        return other if one.high_included else one
    return one if one.high < other.high else other


def _numbers(one: Number, other: Number, *, at: str) -> Shape:
    low, high = _lowest(one, other), _highest(one, other)
    return make_number(
        Number(
            integer=one.integer or other.integer,
            low=low.low,
            low_included=low.low_included,
            high=high.high,
            high_included=high.high_included,
            multiple_of=_common_multiple(one.multiple_of, other.multiple_of),
            at=at,
        )
    )


def _common_multiple(one: Fraction | None, other: Fraction | None) -> Fraction | None:
    if one is None or other is None:
        return other if one is None else one
    return Fraction(
        math.lcm(one.numerator, other.numerator), math.gcd(one.denominator, other.denominator)
    )


def make_number(shape: Number) -> Shape:
    """The shape with bounds that are reached, or Never if no number is between them."""
    step = shape.multiple_of
    if shape.integer:
        step = _common_multiple(step, Fraction(1))
        shape = attrs.evolve(shape, multiple_of=None if step == 1 else step)
    low, high = shape.low, shape.high
    if step is not None:
        if low is not None:
            count = math.ceil(low / step)
            low = step * (count + (count * step == low and not shape.low_included))
        if high is not None:
            count = math.floor(high / step)
            high = step * (count - (count * step == high and not shape.high_included))
        shape = attrs.evolve(shape, low=low, low_included=True, high=high, high_included=True)
    if low is None or high is None:
        return shape
    if low > high or (low == high and not (shape.low_included and shape.high_included)):
        return Never("no number is within the bounds", shape.at)
    return shape
