"""What was compiled, by its content. Thread-safe."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

import attrs

T = TypeVar("T")


@attrs.define(eq=False)
class _Entry(Generic[T]):
    n_bytes: int
    future: "Future[T]" = attrs.field(factory=Future)


@attrs.define(eq=False)
class CompiledCache(Generic[T]):
    """The last used results; several threads that want the same make it once."""

    max_entries: int
    """0 keeps nothing; who wants the same at the same time shares it all the same."""
    max_bytes: int
    """Of all keys' contents together."""
    is_usable: Callable[[T], bool] = attrs.field(kw_only=True)
    """Asked at every look-up; what is not usable any more is made anew."""
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    _entries: "OrderedDict[bytes, _Entry[T]]" = attrs.field(factory=OrderedDict, init=False)
    """Least recently used first."""
    _n_bytes: int = attrs.field(default=0, init=False)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: bytes) -> bool:
        """Whether ``get`` would have it at once."""
        with self._lock:
            entry = self._entries.get(key)
            return entry is not None and entry.future.done() and self._can_use(entry)

    def get(self, key: bytes, make: Callable[[], T], *, n_bytes: int) -> tuple[T, bool]:
        """What ``make`` returned for the key, now or before, and whether it was there already.

        Waits where another thread is making it. What ``make`` raises is raised to all who wait for
        it, and not kept.
        """
        entry, found = self._take(key, n_bytes)
        if found:
            return entry.future.result(), True
        try:
            result = make()
        except BaseException as error:
            self._drop(key, entry)
            entry.future.set_exception(error)
            raise
        entry.future.set_result(result)
        self._shrink()
        return result, False

    def _take(self, key: bytes, n_bytes: int) -> tuple[_Entry[T], bool]:
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and self._can_use(entry):
                self._entries.move_to_end(key)
                return entry, True
            if entry is not None:
                self._forget(key)
            entry = self._entries[key] = _Entry(n_bytes)
            self._n_bytes += n_bytes
            return entry, False

    def _can_use(self, entry: _Entry[T]) -> bool:
        return not entry.future.done() or self.is_usable(entry.future.result())

    def _drop(self, key: bytes, entry: _Entry[T]) -> None:
        with self._lock:
            if self._entries.get(key) is entry:
                self._forget(key)

    def _shrink(self) -> None:
        """Forgets the least recently used that are made."""
        with self._lock:
            for key in [key for key, entry in self._entries.items() if entry.future.done()]:
                if len(self._entries) <= self.max_entries and self._n_bytes <= self.max_bytes:
                    return
                self._forget(key)

    def _forget(self, key: bytes) -> None:
        self._n_bytes -= self._entries.pop(key).n_bytes
