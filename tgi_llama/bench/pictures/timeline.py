"""What every request went through over time, one round of each server."""

import math
import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from tgi_llama.bench.load import Round
from tgi_llama.bench.plan import Measurement
from tgi_llama.bench.sample import Sample

from .style import INK, ORANGE, PURPLE, SERIES, WAITING, new_figure, tidy

_MAX_LANES = 100
_LANE_INCHES = 0.16
_STALL = 5
"""A gap this many times the round's median gap is shown as a stall."""
_DISTURBED = "#FFF3D6"
_MAX_VECTOR_TICKS = 4000
"""More would make a large SVG; they become a bitmap inside it."""


def draw_timeline(measurement: Measurement, rounds: Sequence[Round]) -> Figure:
    """Of at least one round, below each other with the same time axis."""
    plan = measurement.plan
    lanes = [pack(one.samples)[:_MAX_LANES] for one in rounds]
    heights = [max(1.6, len(of_round) * _LANE_INCHES) for of_round in lanes]
    figure = new_figure(
        10,
        sum(heights) + 1.1 * len(rounds) + 0.9,
        f"{plan.workload.name}: requests over time",
        "One row per stream. Each tick is an event with text.",
    )
    panels = figure.subplots(
        len(rounds), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    groups = list(dict.fromkeys(sample.group for one in rounds for sample in one.samples))
    colours = {group: SERIES[index % 3] for index, group in enumerate(groups)}
    for axes, one, of_round in zip(panels.flat, rounds, lanes, strict=True):
        _draw_round(axes, one, of_round, colours)
    panels.flat[-1].set_xlabel("seconds since the start of the round")
    figure.legend(
        handles=_legend(colours, has_phases=any(one.phases for one in rounds)),
        loc="outside lower right",
        ncols=3,
        fontsize=8,
        frameon=False,
    )
    return figure


def pack(samples: Sequence[Sample]) -> Sequence[Sequence[Sample]]:
    """Rows of requests that do not overlap, group by group, in the order of their start."""
    lanes: list[list[Sample]] = []
    groups = list(dict.fromkeys(sample.group for sample in samples))
    for group in groups:
        own: list[list[Sample]] = []
        for sample in (one for one in samples if one.group == group):
            free = (
                lane for lane in own if (end := lane[-1].ended) is not None and end <= sample.due
            )
            lane = next(free, None)
            if lane is None:
                own.append([sample])
            else:
                lane.append(sample)
        lanes += own
    return lanes


def _draw_round(
    axes: Axes, one: Round, lanes: Sequence[Sequence[Sample]], colours: dict[str, str]
) -> None:
    gaps = [gap for sample in one.samples for _, gap in sample.gaps() if gap > 0]
    stall_s = _STALL * statistics.median(gaps) if gaps else 0.0
    n_ticks = sum(len(sample.event_times) for sample in one.samples)
    for row, lane in enumerate(lanes):
        for sample in lane:
            _draw_sample(
                axes, one, row, sample, colour=colours[sample.group], stall_s=stall_s,
                as_bitmap=n_ticks > _MAX_VECTOR_TICKS,
            )  # fmt: skip
    for phase in one.phases:
        if phase.name == "during":
            axes.axvspan(
                phase.started - one.started, phase.ended - one.started, color=_DISTURBED, zorder=0
            )
    axes.set_ylim(len(lanes) - 0.4, -0.6)
    axes.set_yticks([])
    axes.set_xlim(left=0)
    n_hidden = len(one.samples) - sum(map(len, lanes))
    hidden = f" ({n_hidden} requests not shown)" if n_hidden else ""
    axes.set_title(f"{one.server.label}, {one.load.label}{hidden}", loc="left", fontsize=10)
    axes.set_ylabel("streams")
    tidy(axes, grid="x")


def _draw_sample(
    axes: Axes, one: Round, row: int, sample: Sample, *, colour: str, stall_s: float,
    as_bitmap: bool,
) -> None:  # fmt: skip
    due = sample.due - one.started
    ended = (sample.ended or one.ended or sample.due) - one.started
    times = [time - one.started for time in sample.event_times]
    first = times[0] if times else ended
    axes.broken_barh([(due, first - due)], (row - 0.3, 0.6), color=WAITING, linewidth=0)
    stalls = [(now - one.started - gap, gap) for now, gap in sample.gaps() if gap > stall_s]
    axes.broken_barh(stalls, (row - 0.15, 0.3), color=ORANGE, alpha=0.55, linewidth=0)
    _draw_ticks(axes, row, times, colour=colour, as_bitmap=as_bitmap)
    if sample.failure is not None:
        axes.plot([ended], [row], marker="X", color=PURPLE, markersize=6, linestyle="none")
        axes.annotate(
            sample.failure.kind, (ended, row), xytext=(5, 0), textcoords="offset points",
            va="center", fontsize=7, color=INK,
        )  # fmt: skip


def _draw_ticks(
    axes: Axes, row: int, times: Sequence[float], *, colour: str, as_bitmap: bool
) -> None:
    """As one line with holes: a third of what single lines take in an SVG."""
    across = [x for time in times for x in (time, time, math.nan)]
    up = [row - 0.4, row + 0.4, math.nan] * len(times)
    axes.plot(across, up, color=colour, linewidth=0.6, solid_capstyle="butt", rasterized=as_bitmap)


def _legend(colours: dict[str, str], *, has_phases: bool) -> list[Patch]:
    ticks = [
        Patch(color=colour, label="tokens" if len(colours) == 1 else f"tokens, {group}")
        for group, colour in colours.items()
    ]
    phase = [Patch(color=_DISTURBED, label="long prompts are there")] if has_phases else []
    return [
        Patch(color=WAITING, label="until the first token"),
        *ticks,
        Patch(color=ORANGE, alpha=0.55, label=f"gap over {_STALL} times the median"),
        *phase,
    ]
