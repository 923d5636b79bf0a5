"""Limits for the rendering of a chat template.

Theory of operation
-------------------
A template comes with a model, so it may be hostile, and a thread that renders cannot be stopped. So
the code that is made of a template asks, in every loop and before whatever may take long, whether
there is time left; and no value may grow so large that one step on it, which nobody interrupts and
which keeps Python's lock, takes long. What would grow a value is foreseen where the steps are small
and looked at afterwards where the result is at most a few times what went in.

Sizes are in characters; an element of a list counts ``_ELEMENT``. A value's *weight* is its size
when written out, all that is in it each time it is in it: nested lists that share their parts are
small in memory and endless in print. What a rendering *creates* is counted too, in bytes, and not
given back: it bounds the memory.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from time import monotonic, thread_time
from types import GeneratorType
from typing import Any

import attrs
import jinja2

_ELEMENT = 16

LOOKED_AT = 256
"""Texts shorter than this are counted only where a list or an object keeps them: a step that makes
one takes longer than it is worth."""

_MAX_BITS = 4096
"""Of whole numbers."""

_MAX_FIELD = 9999
"""Widths and precisions when values are formatted."""

_MAX_SCANS = 2 * 10**8
"""Characters that one search may compare."""

_KEPT_WEIGHT = 512
"""Containers that weigh less are weighed anew each time."""

_MAX_DEPTH = 1000
"""Of lists in lists. Python goes through some of these without a look at its stack."""

_WIDE_FIELD = re.compile(r"[-%#0-9 +.)]\*|\d{5,}")
"""In the text on the left of ``%``. Which field a number belongs to is not looked into."""

_LARGE_NUMBER = re.compile(r"\d{3}")


_OBJECT_BYTES = 64

_ITEM_BYTES = 8
"""Of a list: the reference alone."""

_MAX_STRETCH = 5

_MIN_EXTENSION_S = 1e-3

_SMALL = frozenset((bool, float, type(None)))

_CONTAINERS = (list, tuple, dict)


@attrs.frozen(kw_only=True)
class TemplateLimits:
    """For one rendering, whatever it takes to find out what the template wants."""

    timeout_s: float = 2.0
    """Of the thread's own time: others may have the processor. The longest conversations that a
    server takes are rendered in a tenth of it. By the clock it is at most ``_MAX_STRETCH`` times
    as long."""
    max_characters: int = 8 * 2**20
    """Of any text, the prompt too, and the weight of any other value."""
    max_created_bytes: int = 128 * 2**20
    """All texts and values that are made on the way, about."""


class LimitExceeded(jinja2.TemplateRuntimeError):
    """The template takes too long or makes too much."""


class Meter:
    """Of one rendering, in one thread. All methods raise LimitExceeded."""

    __slots__ = (
        "_clock_end",
        "_depths",
        "_max",
        "_n_left",
        "_thread_end",
        "_weights",
        "deadline",
        "limits",
        "now",
    )

    def __init__(self, limits: TemplateLimits) -> None:
        self.limits = limits
        self.now = monotonic
        started = monotonic()
        self.deadline = started + limits.timeout_s
        """When to look whether the time is over, by the clock, which is quick to read."""
        self._clock_end = started + _MAX_STRETCH * limits.timeout_s
        self._thread_end = thread_time() + limits.timeout_s
        self._max = limits.max_characters
        self._n_left = limits.max_created_bytes
        self._weights: dict[int, tuple[object, int]] = {}
        """By identity, with what has it, so that it stays the only one of this identity."""
        self._depths: dict[int, int] = {}
        """Of lists in lists, by identity, since they were weighed."""

    # Time

    def tick(self) -> None:
        if monotonic() > self.deadline:
            self.expired()

    def expired(self) -> None:
        """At the deadline, which moves where the thread has not had all of its time yet."""
        now = monotonic()
        left_s = min(self._clock_end - now, self._thread_end - thread_time())
        if left_s <= 0:
            raise LimitExceeded(f"the template takes longer than {self.limits.timeout_s:g} s")
        self.deadline = now + max(left_s, _MIN_EXTENSION_S)

    def ticking(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items, while there is time."""
        for item in items:
            if monotonic() > self.deadline:
                self.expired()
            yield item

    # Sizes

    def allow(self, n_characters: int) -> None:
        """Whether a text, or the weight of a value, may be so large."""
        if n_characters > self._max:
            raise LimitExceeded(f"the template makes more than {self._max} characters")

    def allow_scan(self, n: int, m: int) -> None:
        """Whether a text of ``n`` characters may be searched for one of ``m``, which takes as many
        steps as both multiplied."""
        if n * m > _MAX_SCANS:
            raise LimitExceeded("the template searches for too much in too long a text")

    def weight(self, value: object) -> int:
        """Of anything: how large it is when written out."""
        kind = type(value)
        if issubclass(kind, str):
            return len(value)  # type: ignore[arg-type]
        if not issubclass(kind, _CONTAINERS):
            return _ELEMENT
        known = self._weights.get(id(value))
        return known[1] if known is not None else self._weigh(value)

    def checked(self, value: Any) -> Any:
        """The value, which was just made and is at most a few times as large as it may be. Where it
        comes bit by bit, what comes checks the time."""
        kind = type(value)  # a namespace answers for its __class__ slowly
        if kind is str:
            if len(value) >= LOOKED_AT:
                self._created_text(value)
        elif kind is int:
            if value.bit_length() > _MAX_BITS:
                raise LimitExceeded(f"the template makes numbers of more than {_MAX_BITS} bits")
        elif kind in _SMALL:
            pass
        elif issubclass(kind, _CONTAINERS):
            self.weight(value)
            self._created(_bytes_of(value))
        elif issubclass(kind, str):
            if len(value) >= LOOKED_AT:
                self._created_text(value)
        elif kind is GeneratorType:
            self._created(_OBJECT_BYTES)
            return self._coming(value)
        return value

    def _coming(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            if isinstance(item, _CONTAINERS):
                self._created(_OBJECT_BYTES + _ITEM_BYTES * len(item))
            elif monotonic() > self.deadline:
                self.expired()
            yield item

    def _weigh(self, value: Any) -> int:
        items: Iterable[object] = value
        if isinstance(value, dict):
            items = (*value.keys(), *value.values())
        n = _ELEMENT
        depth = 1
        for item in items:
            kind = type(item)
            if kind is str:
                n += _ELEMENT + len(item)  # type: ignore[arg-type]
            elif kind is int or kind is bool or item is None:
                n += _ELEMENT
            else:
                n += self.weight(item)
                if issubclass(kind, _CONTAINERS):
                    depth = max(depth, self._depths[id(item)] + 1)
            if n > self._max:
                self.allow(n)
        if depth > _MAX_DEPTH:
            raise LimitExceeded(f"the template nests values more than {_MAX_DEPTH} deep")
        self._depths[id(value)] = depth
        if n >= _KEPT_WEIGHT:
            self._weights[id(value)] = (value, n)
        return n

    def _created_text(self, text: str) -> None:
        self.allow(len(text))
        self._created(text.__sizeof__())

    def _created(self, n_bytes: int) -> None:
        self._n_left -= n_bytes
        if self._n_left < 0:
            n = self.limits.max_created_bytes
            raise LimitExceeded(f"the template makes more than {n} bytes on its way")
        self.tick()

    def taken_apart(self, text: str) -> None:
        """Into parts that nobody looks at one by one."""
        if len(text) >= LOOKED_AT:
            self._created(text.__sizeof__())

    # Operators, as the template's code calls them

    def add(self, left: Any, right: Any) -> Any:
        """Of lists: templates collect messages, one after the other, in ever longer ones."""
        result = left + right
        if result.__class__ is not list:
            return self.checked(result)
        n = self.weight(left) + self.weight(right)
        self.allow(n)
        self._depths[id(result)] = max(self._depths[id(left)], self._depths[id(right)])
        if n >= _KEPT_WEIGHT:
            self._weights[id(result)] = (result, n)
        self._created(_OBJECT_BYTES + _ITEM_BYTES * len(result))
        return result

    def multiply(self, left: Any, right: Any) -> Any:
        for times, value in ((left, right), (right, left)):
            if isinstance(times, int) and isinstance(value, str | list | tuple):
                self.allow(max(times, 0) * self.weight(value))
        if isinstance(left, int) and isinstance(right, int):
            self._allow_bits(left.bit_length() + right.bit_length() - 1)
        return self.checked(left * right)

    def power(self, left: Any, right: Any) -> Any:
        if isinstance(left, int) and isinstance(right, int) and right > 0:
            self._allow_bits((abs(left) - 1).bit_length() * right)
        return self.checked(left**right)

    def modulo(self, left: Any, right: Any) -> Any:
        """Also the ``%`` that formats."""
        if left.__class__ is int and right.__class__ is int:
            return left % right
        if isinstance(left, str):
            self._allow_format(left, right)
        return self.checked(left % right)

    def _allow_bits(self, n_bits: int) -> None:
        if n_bits > _MAX_BITS:
            raise LimitExceeded(f"the template makes numbers of more than {_MAX_BITS} bits")

    def _allow_format(self, text: str, values: Any) -> None:
        if _WIDE_FIELD.search(text):
            raise LimitExceeded("the template formats with widths that are too large or unknown")
        n_fields = text.count("%")
        widest = _MAX_FIELD if _LARGE_NUMBER.search(text) else 99
        n_values = n_fields if isinstance(values, Mapping) else 1
        self.allow(len(text) + n_fields * widest + n_values * self.weight(values))

    def cut(self, value: Any, start: Any, stop: Any, step: Any) -> Any:
        """``value[start:stop:step]``"""
        result = value[start:stop:step]
        if isinstance(result, str):
            if len(result) >= LOOKED_AT:
                self._created_text(result)
        elif isinstance(result, list | tuple):
            self._created(_OBJECT_BYTES + _ITEM_BYTES * len(result))
        return result

    def join(self, values: Sequence[Any]) -> str:
        """The operator ``~``."""
        return self.concat([v if v.__class__ is str else self.text(v) for v in values])

    # Output

    def text(self, value: Any) -> str:
        """A value as it is printed."""
        text = str(value)
        if len(text) >= LOOKED_AT:
            self._created_text(text)
        return text

    def concat(self, pieces: list[str]) -> str:
        """The text of a macro, or of a block that is assigned or filtered."""
        self.allow(sum(map(len, pieces)))
        text = "".join(pieces)
        if len(text) >= LOOKED_AT:
            self._created_text(text)
        return text


def _bytes_of(container: list[Any] | tuple[Any, ...] | dict[Any, Any]) -> int:
    """What a new container takes, with those things in it that may be as new and that nobody has
    counted yet."""
    n = _OBJECT_BYTES + _ITEM_BYTES * len(container)
    items: Iterable[object] = container
    if isinstance(container, dict):
        n += _OBJECT_BYTES * len(container)
        items = (*container.keys(), *container.values())
    for item in items:
        kind = type(item)
        if kind is str:
            n_characters = len(item)  # type: ignore[arg-type]
            if n_characters < LOOKED_AT:
                n += _OBJECT_BYTES + 4 * n_characters
        elif kind is tuple:  # no conversation has any
            n += _OBJECT_BYTES
        elif kind is int or kind is float:
            n += _OBJECT_BYTES // 2
    return n


def bounded_concat(pieces: Iterable[str], limits: TemplateLimits) -> str:
    """The text of a whole template or of a block in it, as far as it is not too long."""
    pieces = iter(pieces)
    n_left = limits.max_characters
    texts: list[str] = []
    while some := list(islice(pieces, 256)):
        n_left -= sum(map(len, some))
        if n_left < 0:
            raise LimitExceeded("the template writes too long a text")
        texts += some
    return "".join(texts)
