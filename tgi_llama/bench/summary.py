"""From samples to the figures of a report. Pure."""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import attrs

from .load import Round
from .sample import Sample
from .workloads import Row


def quantile(ordered: Sequence[float], share: float) -> float:
    """Of at least one value in ascending order, with straight lines between neighbours, as numpy's
    default."""
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


@attrs.frozen(kw_only=True)
class Spread:
    """How some times in seconds are distributed."""

    n: int
    mean: float
    p50: float
    p90: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread | None":
        """None where there are no values."""
        ordered = sorted(values)
        if not ordered:
            return None
        p50, p90, p99 = (quantile(ordered, share) for share in (0.5, 0.9, 0.99))
        mean = statistics.fmean(ordered)
        return cls(n=len(ordered), mean=mean, p50=p50, p90=p90, p99=p99, max=ordered[-1])


@attrs.frozen(kw_only=True)
class RowSummary:
    """One row of one or several rounds; None: nothing of that kind happened."""

    name: str
    ttft_s: Spread | None
    inter_token_s: Spread | None
    end_to_end_s: Spread | None
    """Of the requests that ended well."""


@attrs.frozen(kw_only=True)
class Summary:
    """One or several rounds of one load on one server. Rates are medians over the rounds."""

    n_rounds: int
    elapsed_s: float
    n_requests: int
    n_finished: int
    failures: Mapping[str, int]
    """By kind, most frequent first."""
    examples: Mapping[str, str]
    """A message for each kind."""
    n_prompt_tokens: int | None
    """As the server counts; None where it does not say for every request."""
    n_cached_tokens: int | None
    n_generated_tokens: int
    n_text_events: int
    n_shared_reads: int
    n_lost_tokens: int
    generated_per_s: float
    """Generated tokens a second."""
    tokens_per_s: float | None
    """Tokens of prompts and generated ones a second."""
    requests_per_s: float
    max_lag_s: float
    """The most that the load generator itself was late with a request."""
    rows: Sequence[RowSummary]


def summarise(rounds: Sequence[Round], rows: Sequence[Row]) -> Summary:
    """Of at least one round; times are pooled over all of them."""
    samples = [sample for one in rounds for sample in one.samples]
    failures = [sample.failure for sample in samples if sample.failure is not None]
    prompts = [_total([sample.counts.n_prompt for sample in _finished(one)]) for one in rounds]
    cached = [sample.counts.n_cached for sample in samples if sample.is_finished]
    generated = [sum(sample.n_generated for sample in one.samples) for one in rounds]
    in_all = [None if n is None else n + m for n, m in zip(prompts, generated, strict=True)]
    told = [n for n in in_all if n is not None]
    return Summary(
        n_rounds=len(rounds),
        elapsed_s=sum(_elapsed_s(one) for one in rounds),
        n_requests=len(samples),
        n_finished=sum(sample.is_finished for sample in samples),
        failures=dict(Counter(failure.kind for failure in failures).most_common()),
        examples={failure.kind: failure.message for failure in reversed(failures)},
        n_prompt_tokens=_total(prompts),
        n_cached_tokens=_total(cached),
        n_generated_tokens=sum(generated),
        n_text_events=sum(len(sample.event_times) for sample in samples),
        n_shared_reads=sum(sample.n_shared_reads for sample in samples),
        n_lost_tokens=sum(sample.n_lost for sample in samples),
        generated_per_s=_median_rate(rounds, generated),
        tokens_per_s=_median_rate(rounds, told) if len(told) == len(rounds) else None,
        requests_per_s=_median_rate(rounds, [len(_finished(one)) for one in rounds]),
        max_lag_s=max((one.sent - one.due for one in samples if one.sent is not None), default=0),
        rows=[_summarise_row(rounds, row) for row in rows],
    )


def _summarise_row(rounds: Sequence[Round], row: Row) -> RowSummary:
    members = [(one, sample) for one in rounds for sample in _members(one, row)]
    gaps = [gap for one, sample in members for gap in gaps_in(one, row, sample)]
    samples = [] if row.phase else [sample for _, sample in members]
    ends = [sample.end_to_end_s for sample in samples if sample.is_finished]
    return RowSummary(
        name=row.name,
        ttft_s=Spread.of(_known(sample.ttft_s for sample in samples)),
        inter_token_s=Spread.of(gaps),
        end_to_end_s=Spread.of(_known(ends)),
    )


def gaps_in(one: Round, row: Row, sample: Sample) -> Iterable[float]:
    """The gaps between the sample's events that count in the row."""
    if row.phase is None:
        return (gap for _, gap in sample.gaps())
    phases = [phase for phase in one.phases if phase.name == row.phase]
    return (
        gap
        for now, gap in sample.gaps()
        if any(phase.started < now <= phase.ended for phase in phases)
    )


def _members(one: Round, row: Row) -> Sequence[Sample]:
    if row.groups is None:
        return one.samples
    return [sample for sample in one.samples if sample.group in row.groups]


def _finished(one: Round) -> Sequence[Sample]:
    return [sample for sample in one.samples if sample.is_finished]


def _elapsed_s(one: Round) -> float:
    """From the start to the last answer's end, or to the interruption."""
    ends = [sample.ended for sample in one.samples if sample.ended is not None]
    ended = max(ends, default=one.started) if one.is_complete else one.ended or one.started
    return max(ended - one.started, 1e-9)


def _median_rate(rounds: Sequence[Round], amounts: Sequence[int]) -> float:
    rates = [n / _elapsed_s(one) for one, n in zip(rounds, amounts, strict=True)]
    return statistics.median(rates)


def _total(counts: Sequence[int | None]) -> int | None:
    known = [n for n in counts if n is not None]
    return sum(known) if len(known) == len(counts) else None


def _known(values: Iterable[float | None]) -> Iterable[float]:
    return (value for value in values if value is not None)
