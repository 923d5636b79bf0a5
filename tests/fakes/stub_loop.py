"""A decode loop without a model: every request gets the same number of tokens, one per step.

``Engine(StubLoop(n_tokens=20), ...)`` runs it on the engine's own thread, so that everything from
the publication of a step to the client's socket is the real thing. Requests beyond ``n_slots`` wait
for their turn, first come, first served.
"""

import queue
import time
from collections import deque
from collections.abc import Callable

import attrs

from tgi_llama.engine.commands import (
    Cancel,
    Command,
    CommandQueue,
    Publication,
    Publish,
    Stop,
    Submit,
)
from tgi_llama.generation import (
    Finish,
    FinishReason,
    RequestId,
    StepReport,
    Timings,
    Token,
    TokenEvent,
    TokenId,
)


@attrs.define(eq=False)
class StubLoop:
    """The ``n``-th token of every request has the id ``n``, from 0, and the text ``" token"``."""

    n_tokens: int
    n_slots: int = 2**31
    before_step: Callable[[], object] = lambda: None
    """Called on the engine's thread before each publication: sets the pace."""
    n_steps: int = attrs.field(default=0, init=False)
    _events: list[TokenEvent] = attrs.field(init=False)
    _waiting: deque[RequestId] = attrs.field(factory=deque, init=False)
    _running: dict[RequestId, int] = attrs.field(factory=dict, init=False)
    """Tokens that each has had."""

    def __attrs_post_init__(self) -> None:
        # Made once: the real thread makes its events inside a step, while nobody wants the lock.
        self._events = [_event(i, n_tokens=self.n_tokens) for i in range(self.n_tokens)]

    def __call__(
        self, commands: CommandQueue, publish: Publish, loaded: Callable[[], None]
    ) -> None:
        loaded()
        while self._take_commands(commands):
            self.before_step()
            n_joined = self._admit()
            publish(Publication(events=self._step(), report=self._report(n_joined)))
            self.n_steps += 1

    def _take_commands(self, commands: CommandQueue) -> bool:
        """False after ``Stop``."""
        while True:
            try:
                command = commands.get(block=not self._running and not self._waiting)
            except queue.Empty:
                return True
            if isinstance(command, Stop):
                return False
            self._apply(command)

    def _apply(self, command: Command) -> None:
        if isinstance(command, Submit):
            self._waiting += [request_id for request_id, _ in command.requests]
        elif isinstance(command, Cancel):
            self._running.pop(command.request_id, None)
            if command.request_id in self._waiting:
                self._waiting.remove(command.request_id)

    def _admit(self) -> int:
        n_before = len(self._running)
        while self._waiting and len(self._running) < self.n_slots:
            self._running[self._waiting.popleft()] = 0
        return len(self._running) - n_before

    def _step(self) -> tuple[tuple[RequestId, TokenEvent], ...]:
        events = tuple((request_id, self._events[n]) for request_id, n in self._running.items())
        left = ((request_id, n + 1) for request_id, n in self._running.items())
        self._running = {request_id: n for request_id, n in left if n < self.n_tokens}
        return events

    def _report(self, n_joined: int) -> StepReport:
        n = len(self._running)
        return StepReport(
            n_decode_sequences=n,
            n_prefill_sequences=0,
            n_prefill_tokens=0,
            n_generated_tokens=n,
            n_joined=n_joined,
            n_queued=len(self._waiting),
            n_running=n,
            n_reserved_cells=n,
            decode_failed=False,
            device_failed=False,
            step_s=1e-3,
            decode_s=5e-4,
            sampling_s=1e-4,
            text_s=1e-4,
        )


def _event(index: int, *, n_tokens: int) -> TokenEvent:
    now = time.perf_counter()
    timings = Timings(submitted=now, started=now, first_token=now, finished=now)
    finish = Finish(reason=FinishReason.LENGTH, n_generated=n_tokens, timings=timings)
    token = Token(TokenId(index), " token", -1.2345678, False)
    is_last = index == n_tokens - 1
    return TokenEvent(token=token, delta=" token", finish=finish if is_last else None)
