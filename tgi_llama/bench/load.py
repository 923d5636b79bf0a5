"""How requests follow one another: a number of clients, or arrivals at a rate."""

import time
from collections.abc import Callable
from typing import Literal

import attrs
import trio

from .dialects import Job
from .sample import Sample
from .server import Server
from .streaming import measure
from .words import PromptSource

Arrival = Literal["fixed", "poisson"]
_PAUSE_AFTER_FAILURE_S = 0.05
"""A server that refuses at once is not to be asked ten thousand times a second."""


@attrs.frozen
class Closed:
    """Clients that each send their next request when the one before has ended."""

    n_clients: int

    @property
    def label(self) -> str:
        return f"{self.n_clients} client{'s' if self.n_clients != 1 else ''}"


@attrs.frozen
class Open:
    """Requests that arrive whether or not earlier ones have ended, as users do."""

    rate: float
    """Arrivals a second."""
    arrival: Arrival

    @property
    def label(self) -> str:
        return f"{self.rate:g} requests/s, {self.arrival}"


Load = Closed | Open


@attrs.frozen(kw_only=True)
class Shape:
    """The sizes of a workload. None: it has no such size."""

    n_words: int
    """Of a prompt that is a request's own."""
    n_tokens: int
    """Generated for each of them."""
    n_clients: int
    n_requests: int | None = None
    """In all; 0: two for each client, at least six."""
    duration_s: float | None = None
    """Requests start for so long, instead of a number of them; 0: the number counts."""
    n_prefix_words: int | None = None
    """At the beginning of every prompt, the same for all."""
    n_turns: int | None = None
    """Questions in a chat."""
    n_long_prompts: int | None = None
    n_long_words: int | None = None
    n_long_tokens: int | None = None
    """Generated for a long prompt."""
    n_undisturbed: int | None = None
    """Tokens of each steady stream before the long prompts arrive."""


@attrs.frozen
class Phase:
    """A stretch of a round in which something was going on; ``time.perf_counter`` readings."""

    name: str
    started: float
    ended: float


@attrs.define(eq=False, kw_only=True)
class Round:
    """One run of a workload on one server."""

    server: Server
    load: Load
    shape: Shape
    prompts: PromptSource
    timeout_s: float
    number: int = 0
    samples: list[Sample] = attrs.field(factory=list)
    """In the order of their start, those that still run included."""
    phases: list[Phase] = attrs.field(factory=list)
    started: float = attrs.field(factory=time.perf_counter)
    ended: float | None = None
    is_complete: bool = False
    """It was not interrupted."""

    def restart_clock(self) -> None:
        """What was sent so far was preparation and does not count."""
        self.samples.clear()
        self.started = time.perf_counter()

    def begin(self, job: Job, *, due: float | None = None) -> Sample:
        """The sample of a request that is about to be sent, at ``due`` or now."""
        now = time.perf_counter() if due is None else due
        sample = Sample(group=job.group, n_asked=job.n_tokens, due=now)
        self.samples.append(sample)
        return sample

    async def send(self, job: Job) -> Sample:
        """Sends one request and waits for the end of its answer."""
        sample = self.begin(job)
        await self.measure(job, sample)
        return sample

    async def measure(self, job: Job, sample: Sample) -> None:
        await measure(self.server, job, sample, timeout_s=self.timeout_s)

    async def drive(self, make_job: Callable[[], Job]) -> None:
        """Sends requests as the load says, until their number or the time is used up, and waits
        for the last answer."""
        if isinstance(self.load, Closed):
            await self._drive_closed(self.load, make_job)
        else:
            await self._drive_open(self.load, make_job)

    @property
    def n_requests(self) -> int:
        """How many ``drive`` sends where no duration is set."""
        n_clients = self.load.n_clients if isinstance(self.load, Closed) else self.shape.n_clients
        return self.shape.n_requests or max(6, 2 * n_clients)

    async def _drive_closed(self, load: Closed, make_job: Callable[[], Job]) -> None:
        n_sent = 0

        async def client() -> None:
            nonlocal n_sent
            while self._is_more_wanted(n_sent, time.perf_counter() - self.started):
                n_sent += 1
                sample = await self.send(make_job())
                if sample.failure is not None:
                    await trio.sleep(_PAUSE_AFTER_FAILURE_S)

        async with trio.open_nursery() as nursery:
            for _ in range(load.n_clients):
                nursery.start_soon(client)

    async def _drive_open(self, load: Open, make_job: Callable[[], Job]) -> None:
        n_sent = 0
        offset_s = 0.0  # from the start: sums with the clock's reading would not be exact
        async with trio.open_nursery() as nursery:
            while self._is_more_wanted(n_sent, offset_s):
                job = make_job()
                due = self.started + offset_s
                await trio.sleep(max(0, due - time.perf_counter()))
                nursery.start_soon(self.measure, job, self.begin(job, due=due))
                n_sent += 1
                if load.arrival == "fixed":
                    offset_s = n_sent / load.rate
                else:
                    offset_s += self.prompts.gap_s(load.rate)

    def _is_more_wanted(self, n_sent: int, elapsed_s: float) -> bool:
        if self.shape.duration_s:
            return elapsed_s < self.shape.duration_s
        return n_sent < self.n_requests
