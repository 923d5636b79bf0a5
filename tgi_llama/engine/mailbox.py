"""From the decode thread to the Trio thread, without giving the interpreter lock away.

``TrioToken.run_sync_soon`` wakes Trio by a ``socket.send``, which lets go of the lock: the Trio
thread takes it, handles all events of the step, and the decode thread stands still meanwhile, about
a millisecond per step at 8 streams. Here the waking write happens with the lock held. The Trio
thread gets it a moment later, when the decode thread enters ``llama_decode``.
"""

import ctypes
import os
from collections import deque
from collections.abc import Callable
from typing import Generic, Never, TypeVar

import attrs
import trio

from tgi_llama.engine.io_wait import BeforeIoWait

T = TypeVar("T")

# Unlike CDLL, PyDLL keeps the interpreter lock during a call.
_write = ctypes.PyDLL(None).write
_write.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t)
_write.restype = ctypes.c_ssize_t

_ONE = (1).to_bytes(8, "little")
"""Little endian wherever llama.cpp runs; on another machine it would be a large number, which wakes
as well."""


@attrs.define(eq=False)
class Mailbox(Generic[T]):
    """Items of one kind, in order. Close it when both sides are done."""

    _items: deque[T] = attrs.field(factory=deque, init=False)
    _bell: int = attrs.field(init=False)
    """An event descriptor: cheaper to write and to read than a pipe."""
    _error: BaseException | None = attrs.field(default=None, init=False)
    """Raised by the receiver before Trio went to wait."""

    def __attrs_post_init__(self) -> None:
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def post(self, item: T) -> None:
        """Any thread. Never blocks and never fails: a bell that has rung rings on."""
        self._items.append(item)
        _write(self._bell, _ONE, 8)

    async def deliver_to(self, receive: Callable[[T], None]) -> Never:
        """Gives every item to ``receive``, in order, until cancelled; what it raises ends this.
        Trio thread, one task at a time, and not in Trio's guest mode.

        Mostly no task runs for it: see ``BeforeIoWait``. ``receive`` may wake tasks and cancel
        scopes, but is not called from a task, and must not bring a deadline forward.
        """

        def receive_waiting() -> None:
            # An item whose bell has yet to ring comes early, and the task below wakes for nothing.
            self._silence()
            try:
                self.drain_to(receive)
            except BaseException as error:  # Trio would log it and go on without us
                self._error = error
                _write(self._bell, _ONE, 8)

        with BeforeIoWait(self._bell, self._items, receive_waiting):
            while True:
                await trio.lowlevel.wait_readable(self._bell)
                self._silence()
                if self._error is not None:
                    raise self._error
                self.drain_to(receive)

    def drain_to(self, receive: Callable[[T], None]) -> None:
        """Gives what is there to ``receive``. Trio thread."""
        items = self._items
        while items:
            receive(items.popleft())

    def close(self) -> None:
        """Trio thread, when nobody posts or waits any more."""
        os.close(self._bell)

    def _silence(self) -> None:
        try:  # noqa: SIM105  # ``suppress`` is three more functions, once per step
            os.eventfd_read(self._bell)
        except BlockingIOError:  # it has not rung
            pass
