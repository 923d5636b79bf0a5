"""Progress on standard error: a live table on a terminal, elsewhere a line after each round.

The live table needs rich. It is drawn by a Trio task a few times a second, not by rich's own
thread, and costs about a hundredth of a core.
"""

import contextlib
import importlib.util
import sys
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import click
import trio

if TYPE_CHECKING:
    from rich.console import Group

from .load import Round
from .plan import Measurement
from .progress import Progress, Snapshot
from .summary import Spread, summarise

_REFRESH_S = 0.4


def is_live_possible() -> bool:
    """Standard error is a terminal and rich is installed."""
    return sys.stderr.isatty() and importlib.util.find_spec("rich") is not None


@contextlib.asynccontextmanager
async def lines(measurement: Measurement) -> AsyncIterator[None]:
    """A line after each round."""
    measurement.note_round = lambda one: click.echo(_line(measurement, one), err=True)
    yield


@contextlib.asynccontextmanager
async def live_table(measurement: Measurement) -> AsyncIterator[None]:
    """A table of the round that is running, with the lines of those before above it."""
    from rich.console import Console  # optional: not there without the extra `bench`
    from rich.live import Live

    progress = Progress(measurement)
    console = Console(stderr=True)
    with Live(console=console, auto_refresh=False, transient=True) as live:
        measurement.note_round = lambda one: console.print(_line(measurement, one), markup=False)

        async def refresh() -> None:
            while True:
                snapshot = progress.snapshot(time.perf_counter())
                if snapshot is not None:
                    live.update(_table(snapshot), refresh=True)
                await trio.sleep(_REFRESH_S)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refresh)
            yield
            nursery.cancel_scope.cancel()


def _table(snapshot: Snapshot) -> "Group":
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    table = Table(title=snapshot.title, title_justify="left")
    for name in ("ms", "p50", "p90", "p99", "max"):
        table.add_column(name, justify="left" if name == "ms" else "right", min_width=8)
    for name, spread in (
        ("time to first token", snapshot.ttft_s),
        ("inter-token latency", snapshot.inter_token_s),
    ):
        table.add_row(name, *_times(spread))
    state = (
        f"round {snapshot.n_rounds_begun} of {snapshot.n_rounds}, {snapshot.elapsed_s:.0f} s:"
        f" {snapshot.n_running} running, {snapshot.n_finished} finished,"
        f" {snapshot.n_failed} failed; {snapshot.n_tokens} tokens,"
        f" {snapshot.recent_per_s:.1f} tokens/s"
    )
    bar = ProgressBar(total=snapshot.n_rounds, completed=snapshot.n_rounds_begun - 1, width=60)
    return Group(table, state, bar)


def _times(spread: Spread | None) -> list[str]:
    if spread is None:
        return ["-"] * 4
    return [f"{time_s * 1e3:.1f}" for time_s in (spread.p50, spread.p90, spread.p99, spread.max)]


def _line(measurement: Measurement, one: Round) -> str:
    summary = summarise([one], measurement.plan.workload.rows)
    row = summary.rows[0]
    times = [
        f", {name} p50 {spread.p50 * 1e3:.1f} p99 {spread.p99 * 1e3:.1f} ms"
        for name, spread in (
            ("first token", row.ttft_s),
            ("inter-token", row.inter_token_s),
        )
        if spread is not None
    ]
    return (
        f"round {measurement.n_rounds_begun} of {measurement.n_rounds_planned}:"
        f" {one.server.name}, {one.load.label}: {summary.generated_per_s:.1f} tokens/s"
        f"{''.join(times)}, {sum(summary.failures.values())} errors"
    )
