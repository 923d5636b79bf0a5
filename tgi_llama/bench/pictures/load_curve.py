"""Latency and throughput over load, for sweeps."""

from collections.abc import Callable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tgi_llama.bench.load import Closed, Load
from tgi_llama.bench.plan import Measurement
from tgi_llama.bench.summary import RowSummary, Spread, Summary

from .style import MARKERS, SERIES, new_figure, tidy, use_log_where_wide

_TIMES: Mapping[str, Callable[[RowSummary], Spread | None]] = {
    "Time to first token": lambda row: row.ttft_s,
    "Inter-token latency": lambda row: row.inter_token_s,
    "End to end": lambda row: row.end_to_end_s,
}


def draw_load_curve(measurement: Measurement) -> Figure:
    """Of a measurement with several points."""
    plan = measurement.plan
    servers = "   ".join(server.label for server in plan.servers)
    figure = new_figure(10, 6.5, f"{plan.workload.name}: latency over load", servers)
    panels = figure.subplots(2, 2).flat
    for axes, (title, spread_of) in zip(panels, _TIMES.items(), strict=False):
        _draw_times(axes, measurement, title, spread_of)
    _draw_throughput(panels[-1], measurement)
    return figure


def _draw_times(
    axes: Axes,
    measurement: Measurement,
    title: str,
    spread_of: Callable[[RowSummary], Spread | None],
) -> None:
    drawn: list[float] = []
    for index, server in enumerate(measurement.plan.servers):
        points = [
            (x_of(load), spread)
            for load, summary in _summaries(measurement, index)
            if (spread := _first_spread(summary, spread_of)) is not None
        ]
        for mark, line in (("p50", "-"), ("p99", "--")):
            values = [getattr(spread, mark) * 1e3 for _, spread in points]
            axes.plot(
                [x for x, _ in points], values, line, color=SERIES[index],
                marker=MARKERS[index], markersize=5, label=f"{server.name} {mark}",
            )  # fmt: skip
            drawn += values
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_ylabel("milliseconds")
    use_log_where_wide(axes, drawn)
    _finish(axes, measurement)


def _draw_throughput(axes: Axes, measurement: Measurement) -> None:
    for index, server in enumerate(measurement.plan.servers):
        points = [
            (x_of(load), summary.generated_per_s)
            for load, summary in _summaries(measurement, index)
        ]
        axes.plot(
            [x for x, _ in points], [rate for _, rate in points], color=SERIES[index],
            marker=MARKERS[index], markersize=5, label=server.name,
        )  # fmt: skip
    axes.set_title("Generated tokens", loc="left", fontsize=11)
    axes.set_ylabel("tokens per second")
    axes.set_ylim(bottom=0)
    _finish(axes, measurement)


def _finish(axes: Axes, measurement: Measurement) -> None:
    loads = [point.load for point in measurement.plan.points]
    ticks = sorted({x_of(load) for load in loads})
    if ticks[-1] > 8 * ticks[0]:
        axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("clients" if isinstance(loads[0], Closed) else "requests per second")
    tidy(axes)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=8, frameon=False)


def _summaries(measurement: Measurement, index: int) -> Sequence[tuple[Load, Summary]]:
    server = measurement.plan.servers[index]
    found = [
        (point.load, measurement.summary(number, server))
        for number, point in enumerate(measurement.plan.points)
    ]
    return [(load, summary) for load, summary in found if summary is not None]


def _first_spread(
    summary: Summary, spread_of: Callable[[RowSummary], Spread | None]
) -> Spread | None:
    spreads = (spread_of(row) for row in summary.rows)
    return next((spread for spread in spreads if spread is not None), None)


def x_of(load: Load) -> float:
    return load.n_clients if isinstance(load, Closed) else load.rate
