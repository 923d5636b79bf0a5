"""Two servers side by side: the ratio of every figure, with the range over the rounds."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from tgi_llama.bench.comparison import Compared, compare
from tgi_llama.bench.plan import Measurement

from .style import BLUE, INK, VERMILLION, new_figure, tidy

_MAX_PANELS = 4
_COLUMNS = 2
_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
_FINE_TICKS = (0.6, 0.8, 1, 1.25, 1.5)
"""For ratios that all lie close to 1."""


def draw_ratios(measurement: Measurement) -> Figure | None:
    """None where no round of both servers has run to its end."""
    plan = measurement.plan
    panels = [
        (point.load.label, list(compare(pairs, plan.workload.rows)))
        for index, point in enumerate(plan.points)
        if (pairs := measurement.pairs_of(index))
    ][-_MAX_PANELS:]
    if not panels:
        return None
    n_bars = max(len(figures) for _, figures in panels)
    a, b = plan.servers
    n_columns = min(len(panels), _COLUMNS)
    n_lines = -(-len(panels) // n_columns)
    figure = new_figure(
        1.5 + 5.5 * n_columns,
        0.8 + n_lines * (0.9 + 0.34 * n_bars),
        f"{plan.workload.name}: A / B",
        f"{a.label}   {b.label}   Median of the rounds' ratios; the line is their range.",
    )
    every_axes = list(figure.subplots(n_lines, n_columns, squeeze=False).flat)
    for axes, (title, figures) in zip(every_axes, panels, strict=False):
        _draw(axes, title, [one for one in figures if one.ratios])
    for axes in every_axes[len(panels) :]:
        axes.set_axis_off()
    return figure


def _draw(axes: Axes, title: str, figures: Sequence[Compared]) -> None:
    axes.set_xscale("log")
    labels = []
    for row, one in enumerate(figures):
        ratio = one.median_ratio or 1.0
        is_better = ratio <= 1 if one.unit == "ms" else ratio >= 1
        colour = BLUE if is_better else VERMILLION
        axes.barh(row, ratio - 1, left=1, height=0.55, color=colour, alpha=0.75)
        axes.plot([one.ratios[0], one.ratios[-1]], [row, row], color=INK, linewidth=1.2)
        axes.annotate(
            f"{ratio:.3g}", (max(ratio, one.ratios[-1], 1), row), xytext=(4, 0),
            textcoords="offset points", va="center", fontsize=8, color=INK,
        )  # fmt: skip
        labels.append(f"{one.name}\n{_medians(one)}")
    axes.axvline(1, color=INK, linewidth=1)
    axes.set_yticks(range(len(figures)), labels)
    axes.invert_yaxis()
    _set_limits(axes, figures)
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel("A / B   (blue: A is better, orange: B is better)")
    tidy(axes, grid="x")
    axes.tick_params(axis="y", labelsize=7.5)


def _medians(one: Compared) -> str:
    scale = 1e3 if one.unit == "ms" else 1.0
    return f"{one.median_a * scale:.4g} : {one.median_b * scale:.4g} {one.unit}"


def _set_limits(axes: Axes, figures: Sequence[Compared]) -> None:
    ratios = [ratio for one in figures for ratio in one.ratios if ratio > 0]
    low, high = min([0.8, *ratios]), max([1.25, *ratios])
    axes.set_xlim(low * 0.85, high * 1.45)
    is_narrow = low > 0.5 and high < 2
    ticks = [
        tick for tick in (_FINE_TICKS if is_narrow else _TICKS) if low * 0.85 <= tick <= high * 1.45
    ]
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.minorticks_off()
