"""The pictures of a measurement, as files."""

from collections.abc import Iterator
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from tgi_llama.bench.plan import Measurement
from tgi_llama.errors import ConfigError

from .load_curve import draw_load_curve
from .ratios import draw_ratios
from .style import DPI
from .timeline import draw_timeline


def write_pictures(measurement: Measurement, path: Path) -> Iterator[Path]:
    """Writes ``NAME-timeline``, for a sweep ``NAME-load``, for two servers ``NAME-ratios``, next to
    ``path`` with its ending; yields each. Raises ConfigError where that is not possible."""
    for kind, figure in _figures(measurement):
        file = path.with_stem(f"{path.stem}-{kind}")
        try:
            # Text stays text in an SVG: smaller, and it can be searched.
            with matplotlib.rc_context({"svg.fonttype": "none"}):
                figure.savefig(file, dpi=DPI)
        except OSError as error:
            raise ConfigError(f"--plot {file}: {error.strerror}") from error
        yield file


def _figures(measurement: Measurement) -> Iterator[tuple[str, Figure]]:
    plan = measurement.plan
    if len(plan.points) > 1:
        yield "load", draw_load_curve(measurement)
    # The highest load that both came to: there is most to see.
    for index in reversed(range(len(plan.points))):
        rounds = [measurement.rounds_of(index, server) for server in plan.servers]
        if all(rounds):
            yield "timeline", draw_timeline(measurement, [of_server[0] for of_server in rounds])
            break
    if len(plan.servers) == 2 and (figure := draw_ratios(measurement)) is not None:
        yield "ratios", figure
