"""What is known of one measured request. Times are ``time.perf_counter`` readings."""

import itertools
from array import array
from collections.abc import Iterator

import attrs
import trio

from .dialects import Counts


@attrs.frozen
class Failure:
    kind: str
    """A short name under which failures are counted: ``connection``, ``http 429``, ``cut``, ..."""
    message: str


@attrs.define(eq=False)
class Milestone:
    """A number of events with text that somebody waits for."""

    n_events: int
    _reached: trio.Event = attrs.field(factory=trio.Event)

    def note(self, n_events: int) -> None:
        if n_events >= self.n_events:
            self._reached.set()

    def give_up(self) -> None:
        """The request has ended: nothing more will come."""
        self._reached.set()

    async def wait_reached(self) -> None:
        """Also returns when the request has ended before."""
        await self._reached.wait()


@attrs.define(eq=False, kw_only=True)
class Sample:
    """Mutated by ``streaming.measure`` while the request runs, then left alone."""

    group: str
    n_asked: int
    due: float
    """When it was to be sent; in an open loop the schedule says so, not the load generator."""
    sent: float | None = None
    """When it was sent in fact."""
    ended: float | None = None
    event_times: "array[float]" = attrs.field(factory=lambda: array("d"))
    """When each event with text came, the first included."""
    n_token_events: int = 0
    """Events that stand for a token, with or without text."""
    n_shared_reads: int = 0
    """Events that came in one read with an earlier one: the gap before them is not the server's."""
    counts: Counts = attrs.field(factory=Counts)
    finish_reason: str | None = None
    text: str = ""
    failure: Failure | None = None
    milestone: Milestone | None = None

    @property
    def is_finished(self) -> bool:
        """It has ended, and well."""
        return self.ended is not None and self.failure is None

    @property
    def ttft_s(self) -> float | None:
        return self.event_times[0] - self.due if self.event_times else None

    @property
    def end_to_end_s(self) -> float | None:
        return self.ended - self.due if self.ended is not None else None

    @property
    def n_generated(self) -> int:
        """Generated tokens: the server's count, or else the events that stand for one."""
        told = self.counts.n_generated
        return self.n_token_events if told is None else told

    @property
    def n_lost(self) -> int:
        """Tokens that were asked for and did not come, where the server says it went to the
        end: with ``length`` as the reason there must be as many as were asked for."""
        if not self.is_finished or self.finish_reason != "length":
            return 0
        return max(0, self.n_asked - self.n_generated)

    def gaps(self) -> Iterator[tuple[float, float]]:
        """Of every event but the first: when it came and how long after the one before."""
        return ((now, now - before) for before, now in itertools.pairwise(self.event_times))
