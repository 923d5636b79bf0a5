"""What a measurement shows while it runs: the figures of the round that is running. Pure."""

from collections import deque

import attrs

from .plan import Measurement
from .summary import Spread

_N_RECENT = 2000
"""Gaps that the live percentiles look back on: sorting them takes a millisecond."""
_RATE_WINDOW_S = 5.0


@attrs.frozen(kw_only=True)
class Snapshot:
    title: str
    """The server and the load."""
    n_rounds_begun: int
    n_rounds: int
    elapsed_s: float
    """Of this round."""
    n_running: int
    n_finished: int
    n_failed: int
    n_tokens: int
    """Events with text."""
    recent_per_s: float
    """Such events a second, of late."""
    ttft_s: Spread | None
    inter_token_s: Spread | None


@attrs.define(eq=False)
class Progress:
    """Takes snapshots and remembers what it needs for rates."""

    _measurement: Measurement
    _seen: "deque[tuple[float, int]]" = attrs.field(factory=deque)
    """Times and the tokens counted by then, of this round."""
    _n_rounds_seen: int = 0

    def snapshot(self, now: float) -> Snapshot | None:
        """None before the first round. ``now`` is a ``time.perf_counter`` reading."""
        measurement = self._measurement
        one = measurement.current
        if one is None:
            return None
        samples = list(one.samples)
        n_tokens = sum(len(sample.event_times) for sample in samples)
        recent: list[float] = []
        for sample in reversed(samples):
            recent += (gap for _, gap in sample.gaps())
            if len(recent) > _N_RECENT:
                break
        firsts = (sample.ttft_s for sample in samples)
        return Snapshot(
            title=f"{one.server.label}, {one.load.label}",
            n_rounds_begun=measurement.n_rounds_begun,
            n_rounds=measurement.n_rounds_planned,
            elapsed_s=now - one.started,
            n_running=sum(sample.ended is None for sample in samples),
            n_finished=sum(sample.is_finished for sample in samples),
            n_failed=sum(sample.failure is not None for sample in samples),
            n_tokens=n_tokens,
            recent_per_s=self._rate(now, n_tokens),
            ttft_s=Spread.of(first for first in firsts if first is not None),
            inter_token_s=Spread.of(recent),
        )

    def _rate(self, now: float, n_tokens: int) -> float:
        n_rounds = self._measurement.n_rounds_begun
        if n_rounds != self._n_rounds_seen:
            self._seen.clear()
            self._n_rounds_seen = n_rounds
        self._seen.append((now, n_tokens))
        while now - self._seen[0][0] > _RATE_WINDOW_S:
            self._seen.popleft()
        then, n_then = self._seen[0]
        return (n_tokens - n_then) / (now - then) if now > then else 0.0
