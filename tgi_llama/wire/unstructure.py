"""Wire types to what ``orjson`` writes, with functions that cattrs generates once per class.

One event of a stream passes here per token, so the cost is a few microseconds and no reflection.
"""

from collections.abc import Callable
from typing import Annotated, get_args, get_origin

import attrs
import cattrs
import numpy as np
from cattrs.gen import make_dict_unstructure_fn

from tgi_llama.generation import Token

from .fields import OMIT_WHEN_DEFAULT, SinglePrecision


def dump_converter() -> cattrs.Converter:
    """A converter whose ``unstructure`` gives dicts in the order of keys on the wire."""
    converter = cattrs.Converter()
    converter.register_unstructure_hook(Token, token_keys)
    converter.register_unstructure_hook_func(_is_single, np.float32)
    converter.register_unstructure_hook_factory(
        lambda t: isinstance(t, type) and attrs.has(t) and t is not Token,
        lambda t: _object_hook(t, converter),
    )
    return converter


def _is_single(t: object) -> bool:
    return get_origin(t) is Annotated and any(isinstance(a, SinglePrecision) for a in get_args(t))


def token_keys(token: Token) -> dict[str, object]:
    """The token object of the wire."""
    logprob = token.logprob
    return {
        "id": token.id,
        "text": token.text,
        # orjson writes numpy's single precision with the fewest digits that give the number back.
        "logprob": None if logprob is None else np.float32(logprob),
        "special": token.special,
    }


def _object_hook(t: type, converter: cattrs.Converter) -> Callable[[object], dict[str, object]]:
    with_all_keys: Callable[[object], dict[str, object]] = make_dict_unstructure_fn(t, converter)
    omitted = [
        (field.name, field.default)
        for field in attrs.fields(t)
        if field.metadata.get(OMIT_WHEN_DEFAULT, False)
    ]
    if not omitted:
        return with_all_keys

    def without_defaults(value: object) -> dict[str, object]:
        # cattrs can omit defaults too, but moves such keys behind all others when they are there.
        result = with_all_keys(value)
        for name, default in omitted:
            if getattr(value, name) == default:
                del result[name]
        return result

    return without_defaults
