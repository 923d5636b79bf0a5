"""Two servers side by side: medians of each and the rounds' ratios. Pure."""

import itertools
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import attrs

from .load import Round
from .summary import RowSummary, Spread, Summary, summarise
from .workloads import ALL, Row

_TIMES: Mapping[str, Callable[[RowSummary], Spread | None]] = {
    "time to first token": lambda row: row.ttft_s,
    "inter-token latency": lambda row: row.inter_token_s,
    "end to end": lambda row: row.end_to_end_s,
}
_MARKS: Mapping[str, Callable[[Spread], float]] = {
    "p50": lambda spread: spread.p50,
    "p99": lambda spread: spread.p99,
}


@attrs.frozen(kw_only=True)
class Compared:
    """One figure of both servers."""

    name: str
    unit: str
    values_a: Sequence[float]
    """Of each round, in order; seconds or a rate."""
    values_b: Sequence[float]

    @property
    def median_a(self) -> float:
        return statistics.median(self.values_a)

    @property
    def median_b(self) -> float:
        return statistics.median(self.values_b)

    @property
    def ratios(self) -> Sequence[float]:
        """A / B of each round, ascending; empty where B was ever zero."""
        if not all(self.values_b):
            return []
        return sorted(a / b for a, b in zip(self.values_a, self.values_b, strict=True))

    @property
    def median_ratio(self) -> float | None:
        return statistics.median(self.ratios) if self.ratios else None


def compare(pairs: Sequence[tuple[Round, Round]], rows: Sequence[Row]) -> Iterator[Compared]:
    """The figures that both servers have in every round, of at least one pair."""
    ours, theirs = ([summarise([one], rows) for one in side] for side in zip(*pairs, strict=True))
    for name, unit, figure in _figures(rows):
        a, b = [figure(one) for one in ours], [figure(one) for one in theirs]
        known_a, known_b = ([one for one in side if one is not None] for side in (a, b))
        if len(known_a) == len(known_b) == len(pairs):
            yield Compared(name=name, unit=unit, values_a=known_a, values_b=known_b)


def _figures(
    rows: Sequence[Row],
) -> Iterator[tuple[str, str, Callable[[Summary], float | None]]]:
    yield "generated tokens", "1/s", lambda one: one.generated_per_s
    yield "all tokens", "1/s", lambda one: one.tokens_per_s
    yield "requests", "1/s", lambda one: one.requests_per_s
    for index, row in enumerate(rows):
        prefix = "" if row.name == ALL else f"{row.name}: "
        for (title, spread_of), (mark, value_of) in itertools.product(
            _TIMES.items(), _MARKS.items()
        ):
            yield f"{prefix}{title} {mark}", "ms", partial(_time, index, spread_of, value_of)


def _time(
    index: int,
    spread_of: Callable[[RowSummary], Spread | None],
    value_of: Callable[[Spread], float],
    summary: Summary,
) -> float | None:
    spread = spread_of(summary.rows[index])
    return None if spread is None else value_of(spread)
