"""What a shape leaves out, where that is a shape again: for ``not``, ``if`` and ``oneOf``."""

from tgi_llama.errors import ValidationError

from .algebra import Algebra, make_array, make_number, make_object, make_text
from .shapes import (
    ANYTHING,
    EVERY_TYPE,
    Anything,
    Array,
    Boolean,
    Never,
    Null,
    Number,
    Object,
    Shape,
    Text,
    options_of,
    text_of_literals,
    union_of,
)


class NotRepresentable(ValidationError):
    """No shape is the complement."""


def complement(algebra: Algebra, shape: Shape, *, at: str) -> Shape:
    """Every value that is not in the shape. Raises NotRepresentable."""
    with algebra.effort:
        shape = algebra.head(shape)
        if isinstance(shape, Anything):
            return Never("everything is excluded", at)
        if isinstance(shape, Never):
            return ANYTHING
        parts = [_of_option(algebra, option, at=at) for option in options_of(shape)]
        return algebra.all_of(parts, at=at)


def _of_option(algebra: Algebra, shape: Shape, *, at: str) -> Shape:
    others = [one for one in EVERY_TYPE if type(one) is not type(shape)]
    return union_of([*others, *_same_type(algebra, shape, at=at)], at=at)


def _same_type(algebra: Algebra, shape: Shape, *, at: str) -> list[Shape]:
    if isinstance(shape, Null):
        return []
    if isinstance(shape, Boolean):
        left = frozenset({True, False}) - shape.values
        return [Boolean(left)] if left else []
    if isinstance(shape, Number):
        return _numbers(shape, at=at)
    if isinstance(shape, Text):
        return _texts(shape, at=at)
    if isinstance(shape, Array):
        return _arrays(algebra, shape, at=at)
    if isinstance(shape, Object):
        return _objects(algebra, shape, at=at)
    raise AssertionError("heads are neither references nor unions")


def _numbers(shape: Number, *, at: str) -> list[Shape]:
    found: list[Shape] = []
    point = shape.low is not None and shape.low == shape.high
    if (shape.integer and not point) or shape.multiple_of is not None:
        raise NotRepresentable("numbers that are no multiple or no integer")
    if shape.low is not None:
        found.append(
            make_number(Number(high=shape.low, high_included=not shape.low_included, at=at))
        )
    if shape.high is not None:
        found.append(
            make_number(Number(low=shape.high, low_included=not shape.high_included, at=at))
        )
    return found


def _texts(shape: Text, *, at: str) -> list[Shape]:
    if shape.patterns:
        raise NotRepresentable("strings that do not match a pattern or format")
    if shape.literals is not None:
        return [Text(excluded=frozenset(shape.literals), at=at)]
    found: list[Shape] = []
    if shape.min_length > 0:
        found.append(make_text(Text(max_length=shape.min_length - 1, at=at)))
    if shape.max_length is not None:
        found.append(Text(min_length=shape.max_length + 1, at=at))
    if shape.excluded:
        found.append(text_of_literals(tuple(sorted(shape.excluded)), at=at))
    return found


def _arrays(algebra: Algebra, shape: Array, *, at: str) -> list[Shape]:
    closed = shape.max_items is not None and shape.max_items <= len(shape.prefix)
    if not isinstance(shape.rest, Anything) and not closed:
        raise NotRepresentable("arrays with an item that breaks a rule for all")
    found: list[Shape] = []
    if shape.min_items > 0:
        found.append(Array(max_items=shape.min_items - 1, at=at))
    if shape.max_items is not None:
        found.append(Array(min_items=shape.max_items + 1, at=at))
    for index, item in enumerate(shape.prefix):
        if not isinstance(item, Anything):
            wrong = complement(algebra, item, at=at)
            before: tuple[Shape, ...] = (ANYTHING,) * index
            found.append(make_array(Array(min_items=index + 1, prefix=(*before, wrong), at=at)))
    return found


def _objects(algebra: Algebra, shape: Object, *, at: str) -> list[Shape]:
    if shape.patterns or not isinstance(shape.additional, Anything):
        raise NotRepresentable("objects with a property that no list names")
    found: list[Shape] = [
        Object(properties={name: Never("it must be absent", at)}, at=at)
        for name in shape.properties
        if name in shape.required
    ]
    if shape.min_properties > 0:
        found.append(Object(max_properties=shape.min_properties - 1, at=at))
    if shape.max_properties is not None:
        found.append(Object(min_properties=shape.max_properties + 1, at=at))
    for name, value in shape.properties.items():
        if not isinstance(value, Anything):
            wrong = complement(algebra, value, at=at)
            found.append(
                make_object(Object(properties={name: wrong}, required=frozenset({name}), at=at))
            )
    return found


def exactly_one(algebra: Algebra, options: list[Shape], *, at: str) -> Shape:
    """``oneOf``. Raises NotRepresentable where options overlap and their difference is no shape."""
    found: list[Shape] = []
    for index, option in enumerate(options):
        rest = option
        for position, other in enumerate(options):
            if position != index and not algebra.are_disjoint(option, other, at=at):
                rest = algebra.intersect(rest, complement(algebra, other, at=at), at=at)
        found.append(rest)
    return union_of(found, at=at)
