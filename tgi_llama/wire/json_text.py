"""Bytes of a body to plain JSON values, as strict as the Rust parser that TGI uses."""

import json
import sys
from collections import Counter
from typing import NoReturn

from .parse_error import ParseError

_MAX_DEPTH = 128
"""Lists and objects inside each other; serde_json's limit. It also keeps every later walk over a
value, such as a template's, away from Python's recursion limit."""


class NotJson(Exception):
    """The reason, in a few words, why a text is not acceptable as JSON."""


class RepeatedKeys(dict[str, object]):
    """An object in which some keys came more than once; it holds the last value of each."""

    repeated: frozenset[str] = frozenset()


def load(body: bytes) -> object:
    """Parses one JSON value. Raises ParseError with status 400, also for what Python's parser would
    let pass: NaN, infinities, lone surrogates, bottomless nesting. Keys given twice are kept for
    the caller to judge, see ``RepeatedKeys``."""
    try:
        return loads(body.decode())
    except UnicodeDecodeError as error:
        reason = f"it is not UTF-8 at byte {error.start}"
    except NotJson as error:
        reason = str(error)
    raise ParseError(f"Failed to parse the request body as JSON: {reason}", status=400)


def loads(text: str) -> object:
    """``load`` for JSON that stands inside a body as a string. Raises NotJson."""
    try:
        value: object = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
        _check_depth(value, text)
    except RecursionError:
        raise NotJson("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise NotJson(str(error)) from None
    except ValueError:
        # Python's own words tell how to allow integers of so many digits: nothing for clients.
        limit = sys.get_int_max_str_digits()
        raise NotJson(f"Exceeds the limit of {limit} digits for an integer") from None
    _check_surrogates(value, text)
    return value


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) == len(pairs):
        return result
    counts = Counter(key for key, _ in pairs)
    with_repetitions = RepeatedKeys(result)
    with_repetitions.repeated = frozenset(key for key, count in counts.items() if count > 1)
    return with_repetitions


def _refuse_constant(name: str) -> NoReturn:
    raise NotJson(f"{name} is not a JSON number")


def _check_depth(value: object, text: str) -> None:
    # A text with few brackets cannot be deep: most bodies are not walked at all.
    if text.count("[") + text.count("{") <= _MAX_DEPTH:
        return
    level: list[object] = [value]
    for _ in range(_MAX_DEPTH + 1):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return
    raise NotJson(f"it is nested deeper than {_MAX_DEPTH} levels")


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
        raise NotJson("it contains half of a surrogate pair") from None
