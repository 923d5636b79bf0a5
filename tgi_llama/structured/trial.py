"""Tries grammars in another process before they are compiled in this one.

Theory of operation
-------------------
llguidance counts most of its work and stops at a limit, but not all: the intersection of a hundred
patterns or a ``multipleOf`` of a million takes minutes or gigabytes, and a thread that compiles
cannot be stopped. So each grammar that is not known is compiled by a child first. The child is
killed when it takes too long, may not take much memory, and what it reports is what compiling will
cost here, which must be little. After a moment the child gets a lower priority, so that running
streams keep most of their processors: with the lowest, what is accepted on an idle server would be
refused on a busy one. It cannot get the old one back, and is replaced after that job.
"""

import contextlib
import json
import logging
import os
import select
import subprocess
import sys
import threading
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self

import attrs

from .limits import GrammarLimits

_log = logging.getLogger(__name__)

_PROGRAM = Path(__file__).with_name("trial_process.py")

SPECIAL = "<[256]>"
"""The one special token that the child's vocabulary of bytes has for a grammar to name."""

_PATIENCE_S = 0.1
"""At the usual priority. 60 tools take a quarter of it."""

_LEAST_S = 0.3
"""For one grammar, whatever was spent on it before."""

_START_S = 10.0
"""Most that a child may take to start: usually 0.15 s."""

_LOW_PRIORITY = 5


class TooCostly(Exception):
    """The grammar was not compiled within the time and memory that there was; says why. Another
    time, on a machine with less to do, it may be."""


class _ChildDied(Exception):
    """It was killed, by its limits or by somebody."""


@attrs.frozen(kw_only=True)
class Verdict:
    """What the child found. ``error`` is the engine's, empty where there is none."""

    error: str
    compiled: bool
    """The error, if any, came after the grammar was compiled: in a rehearsal of its first steps."""
    compile_s: float
    """Processor time."""


@attrs.define(eq=False)
class Trial:
    """Any thread. Close it, or use it as a context manager: it owns its children."""

    limits: GrammarLimits
    timeout_s: float = 1.2
    """Wall time for one grammar."""
    command: tuple[str, ...] = (sys.executable, "-P", str(_PROGRAM))
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    _idle: "list[_Child]" = attrs.field(factory=list, init=False)
    _busy: "set[_Child]" = attrs.field(factory=set, init=False)
    _closed: bool = attrs.field(default=False, init=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def warm_up(self) -> None:
        """Starts a child ahead of the first grammar, without waiting for it."""
        try:
            child = self._take()
        except TooCostly:  # closed meanwhile
            return
        if child is not None:
            self._give_back(child)

    def judge(self, source: str, *, spent_s: float = 0.0) -> Verdict | None:
        """``source``: a list of grammars in llguidance's JSON, with ``SPECIAL`` for all tokens that
        it names by their ids. Blocks for ``timeout_s`` at most, less what the caller has
        ``spent_s`` on the grammar already. None where this system lets us have no child, or none
        that gets as far as reading a job.

        Raises TooCostly where the child took too long, too much memory, or died of the grammar
        twice: the first time somebody else may have killed it.
        """
        job = json.dumps({"grammar": source, "limits": self.limits.for_parser_dict()}).encode()
        timeout_s = max(_LEAST_S, self.timeout_s - spent_s)
        has_died = False
        for _attempt in range(2):
            child = self._take()
            if child is None:
                return None
            started = monotonic()
            try:
                child.wait_ready()
                started = monotonic()
                verdict = child.judge(job, timeout_s)
            except _ChildDied:
                has_died |= child.is_ready
                timeout_s = max(_LEAST_S, timeout_s - (monotonic() - started))
                self._discard(child)
                continue
            except BaseException:
                self._discard(child)
                raise
            if child.is_slowed:
                self._discard(child)
            else:
                self._give_back(child)
            return verdict
        if has_died or self._closed:
            raise TooCostly("compiling it takes too much memory or time")
        _log.warning("grammars are compiled without a trial: its process ends at its start")
        return None

    def close(self) -> None:
        """Ends all children, busy ones too: their callers get TooCostly."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            for child in self._busy:
                child.process.kill()  # the rest is up to the thread that reads from it
        for child in idle:
            child.end()

    def _take(self) -> "_Child | None":
        with self._lock:
            if self._closed:
                raise TooCostly("the server is shutting down")
            try:
                child = self._living_idle() or _Child.start(self.command)
            except OSError as error:
                _log.warning("grammars are compiled without a trial: %s", error)
                return None
            self._busy.add(child)
            return child

    def _living_idle(self) -> "_Child | None":
        """The last used one. Whoever killed others meant no grammar of ours."""
        while self._idle:
            child = self._idle.pop()
            if child.process.poll() is None:
                return child
            child.end()
        return None

    def _give_back(self, child: "_Child") -> None:
        with self._lock:
            self._busy.discard(child)
            if not self._closed:
                self._idle.append(child)
                return
        child.end()

    def _discard(self, child: "_Child") -> None:
        """Ends it, and starts another for the next grammar."""
        with self._lock:
            self._busy.discard(child)
            is_last = not self._idle
        child.end()
        if is_last:
            self.warm_up()


@attrs.define(eq=False)
class _Child:
    process: "subprocess.Popen[bytes]"
    is_ready: bool = attrs.field(default=False, init=False)
    is_slowed: bool = attrs.field(default=False, init=False)

    @classmethod
    def start(cls, command: tuple[str, ...]) -> "_Child":
        # A session of its own: an interrupt from the terminal is for the server to handle.
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )
        return cls(process)

    def wait_ready(self) -> None:
        """Until it has started, for which it keeps its priority. Raises _ChildDied."""
        if not self.is_ready:
            try:
                self._read_line(monotonic() + _START_S)
            except (OSError, TooCostly):
                raise _ChildDied from None
            self.is_ready = True

    def judge(self, job: bytes, timeout_s: float) -> Verdict:
        """Raises _ChildDied, and TooCostly after the time."""
        deadline = monotonic() + timeout_s
        try:
            self._send(len(job).to_bytes(8, "big") + job, deadline)
            line = self._read_line(deadline)
        except OSError:
            raise _ChildDied from None
        return Verdict(**json.loads(line))

    def end(self) -> None:
        """Kills it if it lives, and releases what it holds."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()

    def _send(self, data: bytes, deadline: float) -> None:
        assert self.process.stdin is not None
        descriptor = self.process.stdin.fileno()
        os.set_blocking(descriptor, False)
        view = memoryview(data)
        while view:
            self._wait(descriptor, select.POLLOUT, deadline)
            view = view[os.write(descriptor, view) :]

    def _read_line(self, deadline: float) -> bytes:
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        line = b""
        while not line.endswith(b"\n"):
            self._wait(descriptor, select.POLLIN, deadline)
            data = os.read(descriptor, 65_536)
            if not data:
                raise _ChildDied
            line += data
        return line

    def _wait(self, descriptor: int, events: int, deadline: float) -> None:
        """Until the descriptor is ready; slows the child down on the way. Raises TooCostly."""
        poll = select.poll()
        poll.register(descriptor, events)
        if self.is_ready and not self.is_slowed:
            if poll.poll(1e3 * min(_PATIENCE_S, max(0.0, deadline - monotonic()))):
                return
            with contextlib.suppress(OSError):  # a sandbox may forbid it
                os.setpriority(os.PRIO_PROCESS, self.process.pid, _LOW_PRIORITY)
                self.is_slowed = True
        if not poll.poll(1e3 * max(0.0, deadline - monotonic())):
            raise TooCostly("compiling it takes too long")
