"""What templates may call: filters, tests and methods of values, each within the limits of
``template_meter``.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from itertools import islice
from types import BuiltinMethodType, MethodType
from typing import Any, cast

import jinja2
import jinja2.filters
import jinja2.runtime
import jinja2.tests
from jinja2.utils import pass_context
from markupsafe import Markup, soft_str

from .template_code import MeteredContext
from .template_meter import LOOKED_AT, LimitExceeded, Meter

Guard = Callable[..., object]
"""Called with the meter and what the method or filter gets; raises LimitExceeded."""

_MAX_SLOW = 20_000
"""Characters for filters that may take as many steps as their square."""

_MAX_DIGITS = 300

_MAX_TIME_FORMAT = 1000


# Methods


def _padded(meter: Meter, _text: str, /, width: object = 0, *_: object) -> None:
    if isinstance(width, int):
        meter.allow(width)


def _with_wide_tabs(meter: Meter, text: str, tabsize: object = 8) -> None:
    if isinstance(tabsize, int):
        meter.allow(len(text) + text.count("\t") * max(tabsize, 0))


def _stripped(meter: Meter, text: str, characters: object = None, *_: object) -> None:
    if isinstance(characters, str):
        meter.allow_scan(len(text), len(characters))


def _searched_backwards(meter: Meter, text: str, *args: object, **kwargs: object) -> None:
    for part in (*args, *kwargs.values()):
        if isinstance(part, str):
            meter.allow_scan(len(text), len(part))


def _replaced(
    meter: Meter, text: Any, old: Any = "", new: Any = "", *_: object, **__: object
) -> None:
    text, old, new = meter.text(text), meter.text(old), meter.text(new)
    if len(new) > len(old):
        meter.allow(len(text) + text.count(old) * (len(new) - len(old)))


def _joined(meter: Meter, separator: str, values: object = ()) -> None:
    if isinstance(values, str):
        _taken_apart(meter, values)
        meter.allow(len(separator) * len(values))
    elif isinstance(values, list | dict):
        meter.allow(len(separator) * len(values) + meter.weight(values))


# fmt: off
_SIMPLE_METHODS = (
    "capitalize", "casefold", "count", "endswith", "find", "index", "isalnum", "isalpha", "isascii",
    "isdecimal", "isdigit", "isidentifier", "islower", "isnumeric", "isprintable", "isspace",
    "istitle", "isupper", "lower", "partition", "removeprefix", "removesuffix", "split",
    "splitlines", "startswith", "swapcase", "title", "upper",
)
# fmt: on
"""Of texts: as many steps as characters, and little more characters than before."""

_TEXT_METHODS: Mapping[str, Guard | None] = {
    **dict.fromkeys(_SIMPLE_METHODS),
    **dict.fromkeys(("center", "ljust", "rjust", "zfill"), _padded),
    **dict.fromkeys(("strip", "lstrip", "rstrip"), _stripped),
    **dict.fromkeys(("rfind", "rindex", "rpartition", "rsplit"), _searched_backwards),
    "expandtabs": _with_wide_tabs,
    "join": _joined,
    "replace": _replaced,
}
"""Without those for bytes and tables, which no template uses. ``format`` is the environment's."""

_METHODS: Mapping[type, Mapping[str, Guard | None]] = {
    str: _TEXT_METHODS,
    list: dict.fromkeys(("copy", "count", "index")),
    tuple: dict.fromkeys(("count", "index")),
    dict: dict.fromkeys(("copy", "get", "items", "keys", "values")),
    float: dict.fromkeys(("is_integer",)),
}


_LONG = (str, list, tuple, dict)


def is_method(kind: type, name: str) -> bool:
    """Whether values of exactly this type have a method of this name that ``call_method`` takes."""
    return name in _METHODS.get(kind, ())


def may_call(method: BuiltinMethodType | MethodType) -> bool:
    """Whether ``call_method`` takes it."""
    return method.__name__ in _methods_of(method.__self__)


def call_method(
    meter: Meter,
    method: BuiltinMethodType | MethodType,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> object:
    """One of a value that is not ours."""
    owner = method.__self__
    guard = _methods_of(owner)[method.__name__]
    if guard is None:
        if isinstance(owner, _LONG) and len(owner) >= LOOKED_AT:
            meter.tick()
    else:
        if guard is _joined and args and not isinstance(args[0], str | dict):
            args = (list(meter.ticking(args[0])), *args[1:])
        guard(meter, owner, *args, **kwargs)
    result = method(*args, **kwargs)
    if isinstance(owner, str) and isinstance(result, list | tuple):
        meter.taken_apart(owner)
    return meter.checked(result)


def _methods_of(owner: object) -> Mapping[str, Guard | None]:
    names = _METHODS.get(owner.__class__)
    if names is None:
        names = _TEXT_METHODS if isinstance(owner, str) else {}
    return names


# Filters


def _taken_apart(meter: Meter, value: object, *_: object, **__: object) -> None:
    """A list of a text has its characters."""
    if isinstance(value, str):
        meter.allow(16 * len(value))


def _rounded(
    _meter: Meter, value: object, /, precision: object = 0, *_: object, **__: object
) -> None:
    if not isinstance(value, int | float):
        raise TypeError(f"type {type(value).__name__} cannot be rounded")
    if isinstance(precision, int) and abs(precision) > _MAX_DIGITS:
        raise LimitExceeded(f"the template rounds to more than {_MAX_DIGITS} digits")


def _filled(meter: Meter, value: object, /, *args: object, **kwargs: object) -> None:
    _taken_apart(meter, value)
    for n in (*args, *kwargs.values()):
        if isinstance(n, int):
            meter.allow(n * 64)


def _indented(meter: Meter, text: Any, width: Any = 4, *_: object, **__: object) -> None:
    text = meter.text(text)
    n = width if isinstance(width, int) else meter.weight(width)
    meter.allow(len(text) + (text.count("\n") + text.count("\r") + 2) * n)


def _slow(meter: Meter, *args: object, **kwargs: object) -> None:
    if sum(map(meter.weight, (*args, *kwargs.values()))) > _MAX_SLOW:
        raise LimitExceeded(f"the template uses a slow filter on more than {_MAX_SLOW} characters")
    for value in (*args, *kwargs.values()):
        if isinstance(value, int):
            meter.allow(value)


def _formatted(meter: Meter, text: Any, *args: Any, **kwargs: Any) -> None:
    meter.modulo(meter.text(text), kwargs or args)


_FILTER_GUARDS: Mapping[str, Guard] = {
    "batch": _filled,
    "center": _padded,
    "format": _formatted,
    "indent": _indented,
    "replace": _replaced,
    "round": _rounded,
    "slice": _filled,
    **dict.fromkeys(("groupby", "list", "max", "min", "sort"), _taken_apart),
    **dict.fromkeys(
        ("pprint", "striptags", "title", "urlencode", "urlize", "wordcount", "wordwrap", "xmlattr"),
        _slow,
    ),
}

_UNGUARDED = frozenset(
    ("attr", "count", "d", "default", "first", "items", "last", "length", "random")
)
"""They look at their value and do nothing with it."""


def _join(context: MeteredContext, value: Any, d: Any = "", attribute: Any = None) -> object:
    _taken_apart(context.meter, value)
    items = list(context.meter.ticking(value))
    d = context.meter.text(d)
    context.meter.allow(len(d) * len(items) + context.meter.weight(items))
    return context.meter.checked(jinja2.filters.sync_do_join(context.eval_ctx, items, d, attribute))


def _sum(context: MeteredContext, iterable: Any, attribute: Any = None, start: Any = 0) -> object:
    """Each list is added to all before it, so there are more steps than elements."""
    if attribute is not None:
        get = jinja2.filters.make_attrgetter(context.environment, attribute)
        iterable = map(get, iterable)
    _taken_apart(context.meter, iterable)
    items = list(context.meter.ticking(iterable))
    if isinstance(start, int | float):
        for item in items:
            if not isinstance(item, int | float):
                break
        else:
            return context.meter.checked(sum(items, start))
    if isinstance(start, str):
        raise TypeError("sum() can't sum strings [use ''.join(seq) instead]")
    for item in items:
        start = context.meter.add(start, item)
    return start


def _unique(context: MeteredContext, value: Any, *args: Any, **kwargs: Any) -> object:
    items = context.meter.ticking(value)
    found = jinja2.filters.sync_do_unique(context.environment, items, *args, **kwargs)
    return context.meter.checked(found)


_PLAIN_JSON = json.JSONEncoder(ensure_ascii=False)


def _tojson(
    context: MeteredContext,
    value: object,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> object:
    """Jinja's own filter escapes for HTML and sorts keys."""
    if not (ensure_ascii or sort_keys) and indent is None and separators is None:
        return context.meter.checked(_PLAIN_JSON.encode(value))
    meter = context.meter
    if separators is not None:
        meter.allow(meter.weight(separators) * meter.weight(value) // 16)
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    if indent is not None:
        meter.allow(indent if isinstance(indent, int) else len(indent))
    if indent is None:
        return meter.checked(encoder.encode(value))
    # This is done in Python, in small pieces, and slow.
    n_at_once = _AT_ONCE if indent in _USUAL_INDENTS else 1
    pieces = iter(encoder.iterencode(value))
    texts: list[str] = []
    n = 0
    while some := "".join(islice(pieces, n_at_once)):
        n += len(some)
        meter.allow(n)
        meter.tick()
        texts.append(some)
    return meter.checked("".join(texts))


_AT_ONCE = 256

_USUAL_INDENTS = range(9)


def _trim(context: MeteredContext, value: object, chars: str | None = None) -> object:
    text = value if isinstance(value, str) else soft_str(value)
    if chars is not None:
        context.meter.allow_scan(len(text), len(chars))
    elif len(text) >= LOOKED_AT:
        context.meter.tick()
    return context.meter.checked(text.strip(chars))


def _string(context: MeteredContext, value: object) -> object:
    return value if value.__class__ is str else context.meter.checked(soft_str(value))


def _safe(context: MeteredContext, value: object) -> object:
    return context.meter.checked(Markup(value))


_OWN_FILTERS: Mapping[str, Callable[..., object]] = {
    "join": _join,
    "safe": _safe,
    "string": _string,
    "sum": _sum,
    "tojson": _tojson,
    "trim": _trim,
    "unique": _unique,
}
"""In place of Jinja's, with the context."""


def metered_filters() -> dict[str, Any]:
    """All of Jinja's."""
    filters: dict[str, Any] = {}
    for name, function in jinja2.filters.FILTERS.items():
        if name in _UNGUARDED:
            filters[name] = function
        elif name in _OWN_FILTERS:
            filters[name] = pass_context(_OWN_FILTERS[name])
        else:
            filters[name] = _metered(function, _FILTER_GUARDS.get(name))
    return filters


def _metered(function: Callable[..., Any], guard: Guard | None) -> Callable[..., object]:
    leading = _LEADING.get(str(getattr(function, "jinja_pass_arg", None)))

    @pass_context
    def metered(context: MeteredContext, /, *args: Any, **kwargs: Any) -> object:
        meter = context.meter
        meter.tick()
        if guard is not None:
            guard(meter, *args, **kwargs)
        if leading is None:
            return meter.checked(function(*args, **kwargs))
        return meter.checked(function(leading(context), *args, **kwargs))

    return metered


_LEADING: Mapping[str, Callable[[MeteredContext], object]] = {
    "_PassArg.context": lambda context: context,
    "_PassArg.eval_context": lambda context: context.eval_ctx,
    "_PassArg.environment": lambda context: context.environment,
}
"""What Jinja passes to a function besides its arguments, by the mark that it has."""


# Tests

_REMAINDERS: Mapping[str, Callable[[Meter, Any], bool]] = {
    "even": lambda meter, value: bool(meter.modulo(value, 2) == 0),
    "odd": lambda meter, value: bool(meter.modulo(value, 2) == 1),
}

# fmt: off
_LONG_TESTS = (
    "==", "eq", "equalto", "!=", "ne", ">", "gt", "greaterthan", ">=", "ge", "<", "lt", "lessthan",
    "<=", "le", "in", "lower", "upper",
)
# fmt: on
"""They look at all of a value."""


def metered_tests() -> dict[str, Any]:
    """All of Jinja's. What has ``%`` in it would format texts."""
    tests: dict[str, Any] = {**jinja2.tests.TESTS}
    for name in _LONG_TESTS:
        tests[name] = pass_context(_timed(tests[name]))
    for name, test in _REMAINDERS.items():
        tests[name] = pass_context(_with_meter(test))
    tests["divisibleby"] = pass_context(
        _with_meter(lambda meter, value, num: bool(meter.modulo(value, num) == 0))
    )
    return tests


def _timed(test: Callable[..., bool]) -> Callable[..., bool]:
    def timed(context: MeteredContext, /, *args: object, **kwargs: object) -> bool:
        context.meter.tick()
        return test(*args, **kwargs)

    return timed


def _with_meter(test: Callable[..., bool]) -> Callable[..., bool]:
    def metered(context: MeteredContext, *args: object) -> bool:
        return test(context.meter, *args)

    return metered


# Functions


def build_mapping(meter: Meter, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[Any, Any]:
    """``dict(*args, **kwargs)``. Keys that hash alike make each insertion take longer."""
    if len(args) > 1:
        raise TypeError(f"dict expected at most 1 argument, got {len(args)}")
    mapping: dict[Any, Any] = {}
    for pairs in args:
        items: Iterable[Any] = pairs.items() if isinstance(pairs, dict) else pairs
        for key, value in meter.ticking(items):
            mapping[key] = value
    mapping.update(kwargs)
    return cast("dict[Any, Any]", meter.checked(mapping))


def time_text(time: datetime, format: object) -> str:  # noqa: A002
    """``strftime``, which some systems let pad to any width."""
    if not isinstance(format, str):
        raise TypeError("strftime_now expects a text")
    if len(format) > _MAX_TIME_FORMAT or re.search(r"\d{3}", format):
        raise LimitExceeded("the template formats the time with too long a text")
    return time.strftime(format)
