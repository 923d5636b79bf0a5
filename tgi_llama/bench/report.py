"""The tables at the end, as text."""

from collections.abc import Iterator, Sequence

from .comparison import Compared, compare
from .load import Load
from .plan import Measurement
from .server import Server
from .summary import Spread, Summary
from .workloads import ALL


def report(measurement: Measurement) -> Iterator[str]:
    """The lines of the report on what has been measured so far."""
    plan = measurement.plan
    for index, point in enumerate(plan.points):
        for server in plan.servers:
            summary = measurement.summary(index, server)
            if summary is not None:
                yield from _summary(summary, server, point.load)
        if len(plan.servers) == 2 and (pairs := measurement.pairs_of(index)):
            yield from _comparison(list(compare(pairs, plan.workload.rows)), len(pairs), point.load)


def _summary(summary: Summary, server: Server, load: Load) -> Iterator[str]:
    title = f"{server.label}, {load.label}"
    yield ""
    yield title
    yield "-" * len(title)
    yield from _totals(summary)
    lines = [["ms", "p50", "p90", "p99", "max", "mean", "count"]]
    for row in summary.rows:
        prefix = "" if row.name == ALL else f"{row.name}: "
        lines += [
            [f"{prefix}time to first token", *_cells(row.ttft_s)],
            [f"{prefix}inter-token latency", *_cells(row.inter_token_s)],
            [f"{prefix}end to end", *_cells(row.end_to_end_s)],
        ]
    yield from aligned([line for line in lines if len(line) > 1])


def _totals(summary: Summary) -> Iterator[str]:
    in_all = "" if summary.tokens_per_s is None else f", {summary.tokens_per_s:.1f} with prompts"
    yield (
        f"{summary.generated_per_s:.1f} tokens/s generated{in_all},"
        f" {summary.requests_per_s:.2f} requests/s"
    )
    rounds = "" if summary.n_rounds == 1 else f" and {summary.n_rounds} rounds"
    yield (
        f"{summary.n_finished} of {summary.n_requests} requests in {summary.elapsed_s:.1f} s"
        f"{rounds}, {summary.n_generated_tokens} tokens in {summary.n_text_events} events with"
        f" text, {summary.n_lost_tokens} lost"
    )
    if summary.n_prompt_tokens is not None:
        cached = summary.n_cached_tokens
        known = "" if cached is None else f", {cached} of them from the server's cache"
        yield f"{summary.n_prompt_tokens} tokens in prompts{known}"
    yield "errors: " + (
        "; ".join(f"{n} {kind} ({summary.examples[kind]})" for kind, n in summary.failures.items())
        or "none"
    )
    if summary.n_shared_reads:
        yield (
            f"note: {summary.n_shared_reads} events came in one read with the one before; their gap"
            " of 0 ms counts"
        )
    if summary.max_lag_s > _NOTED_LAG_S:
        yield f"note: the load generator was up to {_ms(summary.max_lag_s)} ms late with a request"


_NOTED_LAG_S = 0.02


def _cells(spread: Spread | None) -> list[str]:
    if spread is None:
        return []
    times = (spread.p50, spread.p90, spread.p99, spread.max, spread.mean)
    return [*(_ms(time) for time in times), str(spread.n)]


def _comparison(figures: Sequence[Compared], n_rounds: int, load: Load) -> Iterator[str]:
    title = f"A against B, {load.label}, {n_rounds} round{'s' if n_rounds != 1 else ''}"
    yield ""
    yield title
    yield "-" * len(title)
    lines = [["median", "A", "B", "A/B", "smallest", "largest"]]
    for one in figures:
        scale, digits = (1e3, 1) if one.unit == "ms" else (1, 2)
        medians = [f"{value * scale:.{digits}f}" for value in (one.median_a, one.median_b)]
        lines.append([f"{one.name}, {one.unit}", *medians, *_ratios(one)])
    yield from aligned(lines)


def _ratios(one: Compared) -> list[str]:
    if one.median_ratio is None:
        return ["-", "-", "-"]
    return [f"{value:.3f}" for value in (one.median_ratio, one.ratios[0], one.ratios[-1])]


def aligned(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *others in lines:
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        yield "  ".join([f"{first:<{widths[0]}}", *cells])


def _ms(time_s: float) -> str:
    milliseconds = time_s * 1e3
    return f"{milliseconds:.1f}" if milliseconds < 1000 else f"{milliseconds:.0f}"
