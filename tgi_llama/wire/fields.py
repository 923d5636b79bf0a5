"""The vocabulary in which wire types describe themselves to ``converter``.

Integer types carry the range that the wire contract gives them, and numbers the range of values
that a request may have; a field's metadata says how it behaves where JSON allows more than one
reading.
"""

from typing import Annotated, Final

import attrs


@attrs.frozen
class IntegerRange:
    """Marks an ``int`` that must lie in ``[minimum, maximum]``."""

    minimum: int
    maximum: int


@attrs.frozen
class SinglePrecision:
    """Marks a ``float`` that is rounded to single precision when it is read, and written with the
    fewest digits that single precision needs."""


@attrs.frozen(kw_only=True)
class ValueRange:
    """Marks a number whose value is judged by ``validation``, after parsing and with TGI's texts;
    the API document shows it. Bounds that depend on how the server was started are not here."""

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    """Exclusive, as ``below``."""
    below: float | None = None


U32 = Annotated[int, IntegerRange(0, 2**32 - 1)]
I32 = Annotated[int, IntegerRange(-(2**31), 2**31 - 1)]
U64 = Annotated[int, IntegerRange(0, 2**64 - 1)]
I64 = Annotated[int, IntegerRange(-(2**63), 2**63 - 1)]
F32 = Annotated[float, SinglePrecision()]

PositiveF32 = Annotated[F32, ValueRange(above=0)]
PositiveI32 = Annotated[I32, ValueRange(above=0)]
PositiveU32 = Annotated[U32, ValueRange(above=0)]
PositiveU64 = Annotated[U64, ValueRange(above=0)]
Fraction = Annotated[F32, ValueRange(above=0, below=1)]
FractionOrOne = Annotated[F32, ValueRange(above=0, maximum=1)]
Penalty = Annotated[F32, ValueRange(minimum=-2, maximum=2)]

NULL_IS_DEFAULT: Final = "null_is_default"
"""Metadata key of a request field: ``null`` means the same as an absent key. Without it ``null``
is accepted only by fields whose type allows ``None``."""

ALIASES: Final = "aliases"
"""Metadata key of a request field: other keys (a tuple of ``str``) under which it may come."""

OMIT_WHEN_DEFAULT: Final = "omit_when_default"
"""Metadata key of a response field: the key is left out while the value is the default."""
