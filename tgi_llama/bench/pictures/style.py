"""What all pictures have in common. Needs matplotlib."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

# Okabe and Ito's colours: told apart by everybody, in grey too.
BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY = "#E69F00", "#56B4E9"
SERIES = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
MARKERS = ("o", "s")
WAITING, QUIET, INK = "#D9D9D9", "#F2F2F2", "#333333"
DPI = 150


def new_figure(width: float, height: float, title: str, subtitle: str) -> Figure:
    """Sizes in inches. Without pyplot, which keeps figures for ever."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
    if subtitle:
        # The layout makes room for a supxlabel, not for free text.
        figure.supxlabel(subtitle, x=0.01, ha="left", fontsize=8, color="#666666")
    return figure


def tidy(axes: Axes, *, grid: str = "y") -> None:
    """A light grid, no frame at the top and the right."""
    axes.grid(visible=True, axis=grid, color="#E5E5E5", linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#999999")
    axes.tick_params(colors=INK, labelsize=9)


def use_log_where_wide(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic y axis with plain numbers where the values span more than a factor of 20."""
    if values and min(values) > 0 and max(values) > 20 * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        axes.set_ylim(bottom=0)
