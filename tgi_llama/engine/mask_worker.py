"""Threads that compute masks while the decode thread waits for llama.cpp."""

import queue
import threading
from collections.abc import Sequence as Seq

import attrs

from tgi_llama.engine.guide import Guide

_N_THREADS = 2
"""Several rows at a time, and one pathological mask does not hold up all others. More would only
be in the way of the threads that llama.cpp computes with."""


@attrs.define(eq=False)
class MaskPool:
    """Owned by the decode loop: ``compute`` and ``close`` are called on its thread only. The
    threads start when the first mask is asked for, so who generates without grammars has none."""

    _lent: "queue.SimpleQueue[Guide | None]" = attrs.field(factory=queue.SimpleQueue, init=False)
    _threads: list[threading.Thread] = attrs.field(factory=list, init=False)

    def compute(self, guides: Seq[Guide]) -> None:
        """Lends the guides' states to the threads. To be called right before a decode: the threads
        need the interpreter lock to start, and there it is let go of for long."""
        if not self._threads:
            self._start()
        for guide in guides:
            guide.lend()
            self._lent.put(guide)

    def close(self) -> None:
        """Ends the threads, after what was lent. Waits for them."""
        for _ in self._threads:
            self._lent.put(None)
        while self._threads:
            self._threads.pop().join()

    def _start(self) -> None:
        # Daemons, so that a loop which nobody closed does not keep the process alive.
        self._threads = [
            threading.Thread(target=self._run, name=f"masks-{number}", daemon=True)
            for number in range(_N_THREADS)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while (guide := self._lent.get()) is not None:
            guide.compute_lent()
