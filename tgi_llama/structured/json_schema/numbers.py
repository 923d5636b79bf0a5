"""Numbers as llguidance can take them: doubles that stand for exactly what the schema says."""

import math
from fractions import Fraction

import attrs

from tgi_llama.errors import ValidationError

from .paths import child
from .shapes import Number

LARGEST = 2**53  # up to here a double holds every integer
MAX_POINTS = 64  # multiples that are written out one by one
LARGEST_STEP = 10_000  # llguidance's time and states grow with it: ten million took minutes


def written_number(shape: Number) -> dict[str, object]:
    """The schema of one number or range. Raises ValidationError where llguidance would be wrong."""
    step = shape.multiple_of
    integer = shape.integer or (step is not None and step.denominator == 1)
    if step is None or shape.low is None or shape.high is None:
        return _range(shape, integer=integer)
    count = (shape.high - shape.low) / step + 1
    if integer or count > MAX_POINTS:
        return _range(shape, integer=integer)
    # llguidance looks for multiples between bounds with doubles, and misses some.
    points = [shape.low + index * step for index in range(int(count))]
    return {"anyOf": [_range(attrs.evolve(shape, low=at, high=at), integer=False) for at in points]}


def _range(shape: Number, *, integer: bool) -> dict[str, object]:
    is_point = shape.low is not None and shape.low == shape.high
    if is_point and shape.low is not None:
        integer = shape.low.denominator == 1
    if not integer:
        shape = _without_open_ends(shape)
    found: dict[str, object] = {"type": "integer" if integer else "number"}
    found.update(written_bound(shape, "minimum"))
    found.update(written_bound(shape, "maximum"))
    if shape.multiple_of is not None and not is_point:
        found["multipleOf"] = written_step(shape.multiple_of, at=shape.at)
    return found


def _without_open_ends(shape: Number) -> Number:
    """llguidance lets an excluded whole bound through where both bounds have one integer part, as
    with 0 < x < 0.5. There the range begins (or ends) a hair beside it."""
    low, high = shape.low, shape.high
    if low is None or high is None or math.trunc(low) != math.trunc(high):
        return shape
    if low >= 0 and low.denominator == 1 and not shape.low_included:
        return attrs.evolve(shape, low=_beside(low, high, shape), low_included=True)
    if high <= 0 and high.denominator == 1 and not shape.high_included:
        return attrs.evolve(shape, high=-_beside(-high, -low, shape), high_included=True)
    return shape


def _beside(low: Fraction, high: Fraction, shape: Number) -> Fraction:
    """The smallest of a few decimals above ``low`` and below ``high`` that is exact as a double."""
    for digits in range(12, 0, -1):
        value = low + Fraction(1, 10**digits)
        if value < high and Fraction(repr(float(value))) == value:
            return value
    raise ValidationError("bounds so close to each other cannot be enforced", field=shape.at)


def written_bound(shape: Number, keyword: str) -> dict[str, object]:
    """``minimum`` or ``maximum`` (or the exclusive one) as members of a schema; none if there is no
    bound. A bound farther out than any double that is exact is brought in to the last that is."""
    is_low = keyword == "minimum"
    value = shape.low if is_low else shape.high
    is_included = shape.low_included if is_low else shape.high_included
    if value is None:
        return {}
    if abs(value) > LARGEST:
        if shape.low == shape.high:
            raise ValidationError("numbers beyond 2**53 cannot be enforced", field=shape.at)
        if (value < 0) is not is_low:
            raise ValidationError(
                f"a {keyword} beyond 2**53 cannot be enforced", field=child(shape.at, keyword)
            )
        value, is_included = Fraction(-LARGEST if is_low else LARGEST), True
    word = keyword if is_included else f"exclusive{keyword.capitalize()}"
    return {word: as_double(value, at=child(shape.at, keyword))}


def as_double(value: Fraction, *, at: str) -> float:
    """The integer or the double whose shortest decimal form is the value. Raises ValidationError if
    there is none."""
    if value.denominator == 1:
        return int(value)
    nearest = float(value)
    if Fraction(repr(nearest)) != value:
        raise ValidationError("numbers of more than 15 digits cannot be enforced", field=at)
    return nearest


def written_step(step: Fraction, *, at: str) -> float:
    """``multipleOf``. Raises ValidationError if llguidance would read it wrongly or work long."""
    at = child(at, "multipleOf")
    if _coefficient(step) > LARGEST_STEP:
        raise ValidationError(
            f"a multipleOf with digits that make a number above {LARGEST_STEP} cannot be enforced",
            field=at,
        )
    written = as_double(step, at=at)
    if not _is_read_exactly(written, step):
        raise ValidationError("this multipleOf cannot be enforced", field=at)
    return written


def _coefficient(step: Fraction) -> int:
    """The number's digits without the point: 25 for 0.25."""
    while step.denominator != 1 and step < LARGEST:
        step *= 10
    return int(step)


def _is_read_exactly(written: float, step: Fraction) -> bool:
    """llguidance multiplies the double by ten until it is whole; rounding may lead it astray."""
    value, scale = float(written), 0
    while not value.is_integer() and scale < 20:
        value, scale = value * 10, scale + 1
    return Fraction(int(value), 10**scale) == step
