"""From the decode thread to the Trio thread, without giving the interpreter lock away.

``TrioToken.run_sync_soon`` wakes Trio by a ``socket.send``, which lets go of the lock: the Trio
thread takes it, handles all events of the step, and the decode thread stands still meanwhile, about
a millisecond per step at 8 streams. Here the waking write happens with the lock held. The Trio
thread gets it a moment later, when the decode thread enters ``llama_decode``.
"""

import ctypes
import os
from collections import deque
from typing import Generic, TypeVar

import attrs
import trio

T = TypeVar("T")

# Unlike CDLL, PyDLL keeps the interpreter lock during a call.
_write = ctypes.PyDLL(None).write
_write.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t)
_write.restype = ctypes.c_ssize_t

_DRAINED_BYTES = 4096


@attrs.define(eq=False)
class Mailbox(Generic[T]):
    """Items of one kind, in order. Close it when both sides are done."""

    _items: deque[T] = attrs.field(factory=deque, init=False)
    _readable: int = attrs.field(init=False)
    _writable: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._readable, self._writable = os.pipe()
        os.set_blocking(self._readable, False)
        os.set_blocking(self._writable, False)

    def post(self, item: T) -> None:
        """Any thread. Never blocks and never fails: a full pipe means that the reader is waking."""
        self._items.append(item)
        _write(self._writable, b"\0", 1)

    async def wait(self) -> None:
        """Returns when something was posted since the last ``wait``. Trio thread."""
        await trio.lowlevel.wait_readable(self._readable)
        os.read(self._readable, _DRAINED_BYTES)

    def take(self) -> T | None:
        """The oldest item, or None. Trio thread."""
        return self._items.popleft() if self._items else None

    def close(self) -> None:
        """Trio thread, when nobody posts or waits any more."""
        os.close(self._readable)
        os.close(self._writable)
