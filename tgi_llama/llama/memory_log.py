"""The memory figures in llama.cpp's log of making a model and a context.

They are the only ones there are: its C interface does not tell them.
"""

import re
from collections.abc import Iterable

import attrs

_BUFFER = re.compile(r"^\w+: +(\S+) +(.*?) ?buffer size = +([0-9.]+) MiB")
"""For example ``sched_reserve:        CPU compute buffer size =    37.51 MiB``."""

_CELLS = re.compile(r"^llama_kv_cache\w*: size = +([0-9.]+) MiB \(")
"""``llama_kv_cache: size =  192.00 MiB (  2048 cells, ..``; several where layers differ."""

_OFFLOADED = re.compile(r"offloaded (\d+)/(\d+) layers to GPU")

_ON_HOST = re.compile(r"CPU.*|.*_Host|AMX|BLAS")
"""Names of buffers in host memory."""


@attrs.frozen(kw_only=True)
class MemoryFigures:
    """Bytes, rounded by llama.cpp to a hundredth of a MiB."""

    cells: int = 0
    """The KV memory, wherever it is."""
    states: int = 0
    """States of recurrent layers and the like."""
    output: int = 0
    host_compute: int = 0
    gpu_compute: int = 0
    gpu_layers: float = 0.0
    """Share of the layers whose weights are in GPU memory."""
    cells_on_host: bool = True
    """Some of the KV memory is in host memory."""
    cells_on_gpu: bool = False
    is_repacked: bool = False
    """Some weights are kept in an order of their own in place of the file's."""


def read_figures(lines: Iterable[str]) -> MemoryFigures:
    """The figures in the lines; zeros for what they do not mention."""
    sums = {"cells": 0.0, "states": 0.0, "output": 0.0, "host_compute": 0.0, "gpu_compute": 0.0}
    cell_places: set[bool] = set()
    gpu_layers, is_repacked = 0.0, False
    for line in lines:
        if found := _CELLS.match(line):
            sums["cells"] += float(found[1])
        elif found := _OFFLOADED.search(line):
            gpu_layers = int(found[1]) / max(1, int(found[2]))
        elif found := _BUFFER.match(line):
            name, kind, on_host = found[1], found[2], _ON_HOST.fullmatch(found[1]) is not None
            if kind == "model":
                is_repacked |= "REPACK" in name
            elif kind == "KV":
                cell_places.add(on_host)
            elif kind == "compute":
                sums["host_compute" if on_host else "gpu_compute"] += float(found[3])
            else:
                sums["output" if kind == "output" else "states"] += float(found[3])
    return MemoryFigures(
        **{name: int(value * 2**20) for name, value in sums.items()},
        gpu_layers=gpu_layers,
        cells_on_host=cell_places != {False},
        cells_on_gpu=False in cell_places,
        is_repacked=is_repacked,
    )
