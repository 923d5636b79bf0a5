"""A short way into the Trio thread: work is done where Trio would go to sleep.

To wake a task for each step of the decode thread takes a turn of Trio's loop: its own wait, a
system call that registers the descriptor again, the scheduler, the task. That is some 80 µs a step
with the cold caches that a decode leaves, more than all the rest but the sockets. ``BeforeIoWait``
waits in Trio's place, for the same descriptors, and handles what concerns it without a task.

It is only ever a short cut. A task waits for the descriptor as well, in the ordinary way, and is
woken whenever the short cut is not taken: while other tasks are busy, and on systems without
``/proc`` or epoll.
"""

import os
import re
import select
from collections.abc import Callable, Sized
from contextlib import suppress
from time import monotonic
from types import TracebackType
from typing import Self

import trio

_SHORTEST_S = 0.1
"""Shorter waits are left to Trio. Its test clocks look for waits that end without an event, and
ours ends with one."""

_MAX_ROUNDS = 64
"""After so many rounds Trio has its turn: with a decode thread that posts faster than we work,
nobody else's descriptors would be seen. Steps of real models leave time for hundreds."""


class BeforeIoWait(trio.abc.Instrument):
    """While entered, calls ``work`` instead of waking the task that waits for ``descriptor``.

    ``pending``: what there is to do; appended to before the descriptor becomes readable. ``work``
    empties it, makes the descriptor unreadable, and does not raise. It may wake tasks, but must not
    bring a deadline forward: Trio has read the clock already.
    """

    def __init__(self, descriptor: int, pending: Sized, work: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._pending = pending
        self._work = work
        self._wait: select.poll | None = None
        """For everything that Trio waits for."""
        self._has_looked = False
        self._woke_task = False
        self._token = trio.lowlevel.current_trio_token()

    def __enter__(self) -> Self:
        trio.lowlevel.add_instrument(self)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with suppress(KeyError):  # Trio drops an instrument that raises, and logs it
            trio.lowlevel.remove_instrument(self)

    @property
    def is_short(self) -> bool:
        """Whether there is a short way on this system; known after Trio's first long wait."""
        return self._wait is not None

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002  # Trio's hook
        """Trio tells that a task will run."""
        self._woke_task = True

    def before_io_wait(self, timeout: float) -> None:
        """Trio's hook: ``timeout`` is how many seconds it would wait."""
        if timeout < _SHORTEST_S:
            return
        if self._wait is None:
            if self._has_looked:
                return
            self._has_looked = True
            self._wait = _poll_of_epoll(self._descriptor)
            if self._wait is None:
                return
        self._wait_in_place(self._wait, timeout)

    def _wait_in_place(self, wait: "select.poll", timeout: float) -> None:
        """Returns when Trio has something to do, and sees to it that its own wait ends at once."""
        self._woke_task = False
        deadline = monotonic() + timeout
        for _ in range(_MAX_ROUNDS):
            if not wait.poll(max(0.0, deadline - monotonic()) * 1e3):
                break  # a deadline of Trio's has come
            if not self._pending:
                return  # one of Trio's own descriptors, so that its wait ends anyway
            self._work()
            if self._woke_task:
                break
        self._token.run_sync_soon(_nothing)


def _nothing() -> None:
    pass


def _poll_of_epoll(descriptor: int) -> "select.poll | None":
    """Waits for all that the epoll instance waits for which watches ``descriptor``. It is found by
    what the kernel tells about it (proc(5)), because Trio does not; None where that fails."""
    try:
        candidates = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        return None
    for candidate in candidates:
        try:
            if os.readlink(f"/proc/self/fd/{candidate}") != "anon_inode:[eventpoll]":
                continue
            with open(f"/proc/self/fdinfo/{candidate}") as file:
                watched = re.findall(r"^tfd:\s*(\d+)", file.read(), re.MULTILINE)
        except OSError:  # closed meanwhile: listing the folder opens it, for one
            continue
        if str(descriptor) in watched:
            found = select.poll()
            found.register(candidate, select.POLLIN)
            return found
    return None
