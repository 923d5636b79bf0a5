"""Bytes of a body to plain JSON values, as strict as the Rust parser that TGI uses."""

import json
from collections import Counter
from typing import NoReturn

from .parse_error import ParseError

_MAX_DEPTH = 128
"""Lists and objects inside each other; serde_json's limit. It also keeps every later walk over a
value, such as a template's, away from Python's recursion limit."""


class RepeatedKeys(dict[str, object]):
    """An object in which some keys came more than once; it holds the last value of each."""

    repeated: frozenset[str] = frozenset()


def load(body: bytes) -> object:
    """Parses one JSON value. Raises ParseError with status 400, also for what Python's parser would
    let pass: NaN, infinities, lone surrogates, bottomless nesting. Keys given twice are kept for
    the caller to judge, see ``RepeatedKeys``."""
    try:
        text = body.decode()
        value: object = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
        _check_depth(value, text)
        _check_surrogates(value, text)
    except RecursionError:
        _refuse("it is nested too deeply")
    except UnicodeDecodeError as error:
        _refuse(f"it is not UTF-8 at byte {error.start}")
    except ValueError as error:  # also JSONDecodeError, and integers of thousands of digits
        _refuse(str(error))
    return value


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) == len(pairs):
        return result
    counts = Counter(key for key, _ in pairs)
    with_repetitions = RepeatedKeys(result)
    with_repetitions.repeated = frozenset(key for key, count in counts.items() if count > 1)
    return with_repetitions


def _refuse(reason: str) -> NoReturn:
    raise ParseError(f"Failed to parse the request body as JSON: {reason}", status=400) from None


def _refuse_constant(name: str) -> NoReturn:
    _refuse(f"{name} is not a JSON number")


def _check_depth(value: object, text: str) -> None:
    # A text with few brackets cannot be deep: most bodies are not walked at all.
    if text.count("[") + text.count("{") <= _MAX_DEPTH:
        return
    level: list[object] = [value]
    for _ in range(_MAX_DEPTH + 1):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return
    _refuse(f"it is nested deeper than {_MAX_DEPTH} levels")


def _children(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _check_surrogates(value: object, text: str) -> None:
    # Surrogates can only come in through escapes, and pairs of them (emoji) are fine.
    if "\\u" not in text:
        return
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        _refuse("it contains half of a surrogate pair")
