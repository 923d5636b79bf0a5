"""The vocabulary in which wire types describe themselves to ``converter``.

Integer types carry the range that the wire contract gives them; a field's metadata says how it
behaves where JSON allows more than one reading.
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


U32 = Annotated[int, IntegerRange(0, 2**32 - 1)]
I32 = Annotated[int, IntegerRange(-(2**31), 2**31 - 1)]
U64 = Annotated[int, IntegerRange(0, 2**64 - 1)]
I64 = Annotated[int, IntegerRange(-(2**63), 2**63 - 1)]
F32 = Annotated[float, SinglePrecision()]

NULL_IS_DEFAULT: Final = "null_is_default"
"""Metadata key of a request field: ``null`` means the same as an absent key. Without it ``null``
is accepted only by fields whose type allows ``None``."""

ALIASES: Final = "aliases"
"""Metadata key of a request field: other keys (a tuple of ``str``) under which it may come."""

OMIT_WHEN_DEFAULT: Final = "omit_when_default"
"""Metadata key of a response field: the key is left out while the value is the default."""
