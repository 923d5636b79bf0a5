"""Bytes of a body to a wire type and back. Any thread may call these functions."""

from collections.abc import Callable
from typing import Final, TypeVar

import orjson

from tgi_llama.generation import Token

from .json_text import load
from .structure import strict_converter
from .unstructure import dump_converter, token_keys

T = TypeVar("T")

# Immutable after import but for the hooks they generate on first use.
_READER: Final = strict_converter()
_WRITER: Final = dump_converter()


def parse(wire_type: type[T], body: bytes) -> T:
    """Reads ``body`` as the attrs class ``wire_type``. Unknown keys are ignored. Raises ParseError,
    and nothing else, whatever the body is."""
    return _READER.structure(load(body), wire_type)


def dump(value: object) -> bytes:
    """Writes a wire value, or a list or tuple of them, as compact JSON. NaN becomes null."""
    return orjson.dumps(_WRITER.unstructure(value), option=orjson.OPT_SERIALIZE_NUMPY)


dump_text: Final[Callable[[str], bytes]] = orjson.dumps
"""Writes a string: ``dump`` without what a string does not need."""


def dump_token(token: Token) -> bytes:
    """As ``dump``."""
    return orjson.dumps(token_keys(token), option=orjson.OPT_SERIALIZE_NUMPY)
