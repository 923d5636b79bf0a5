"""Whether pictures can be made, found out before anything is measured."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from tgi_llama.errors import ConfigError

from .plan import Measurement

_ENDINGS = (".png", ".svg")


def check_plot(path: Path) -> None:
    """Raises ConfigError where there is no matplotlib or the file cannot be a picture."""
    if path.suffix.lower() not in _ENDINGS:
        raise ConfigError(f"--plot: expected a name that ends with .png or .svg, got {str(path)!r}")
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError("--plot needs matplotlib: pip install 'tgi_llama[bench]'")


def plot(measurement: Measurement, path: Path) -> Iterator[Path]:
    """Writes the pictures; yields their files. Raises ConfigError."""
    from .pictures.write import write_pictures  # not at the top: matplotlib is optional, and slow

    yield from write_pictures(measurement, path)
