"""Objects of several kinds that nothing but their keys tells apart."""

from collections.abc import Mapping
from typing import Final, TypeVar

from .parse_error import ParseError
from .structure import strict_converter

T = TypeVar("T")

# Immutable after import but for the hooks it generates on first use. Any thread may use it.
_READER: Final = strict_converter()


def first_that_fits(value: object, kinds: Mapping[str, type[T]]) -> T | None:
    """``value`` (plain JSON) as the first of the ``kinds`` that it can be read as.

    ``kinds`` goes from the key that a kind cannot do without to its attrs class, in the order to
    try them; a kind whose key is missing is passed over. None where all keys are missing, or
    ``value`` is no object. Where none can be read, raises the ParseError about the first kind whose
    key is there.
    """
    if not isinstance(value, dict):
        return None
    first_error: ParseError | None = None
    for key, kind in kinds.items():
        if key not in value:
            continue
        try:
            return _READER.structure(value, kind)
        except ParseError as error:
            first_error = first_error or error
    if first_error is not None:
        raise first_error
    return None
