"""The memory figures in llama.cpp's log of making a model and a context.

They are the only ones there are: its C interface does not tell them.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TypeVar

import attrs

_Key = TypeVar("_Key", int, str)

_BUFFER = re.compile(r"^\w+: +(\S+) +(.*?) ?buffer size = +([0-9.]+) MiB")
"""For example ``sched_reserve:        CPU compute buffer size =    37.51 MiB``."""

_CELLS = re.compile(r"^llama_kv_cache\w*: size = +([0-9.]+) MiB \(")
"""``llama_kv_cache: size =  192.00 MiB (  2048 cells, ..``; several where layers differ."""

_CELL_LAYER = re.compile(r"^llama_kv_cache\w*: layer +(\d+): dev = (\S+)")
"""Before the line with the size: where a layer's cells are."""

_LAYER = re.compile(r"^load_tensors: layer +\d+ assigned to device ([^,]+),")

_STATES = re.compile(r"^llama_memory_recurrent, layer +(\d+): dev = (\S+)")

_ON_HOST = re.compile(r"CPU.*|.*_Host|AMX|BLAS")
"""Names of buffers in host memory, and of the devices that compute in it."""


@attrs.frozen(kw_only=True)
class MemoryFigures:
    """Bytes, rounded by llama.cpp to a hundredth of a MiB."""

    cells: int = 0
    """The KV memory, wherever it is."""
    states: int = 0
    """States of recurrent layers and the like."""
    output: int = 0
    host_compute: int = 0
    gpu_compute: Mapping[str, int] = attrs.field(factory=dict)
    """By device."""
    layers: tuple[str, ...] = ()
    """The devices that the layers' weights are on, the output last."""
    layer_cells: Mapping[int, int] = attrs.field(factory=dict)
    """By layer. llama.cpp tells their sum for layers of the same kind, which is shared out."""
    cells_on: Mapping[str, int] = attrs.field(factory=dict)
    """By device."""
    layer_states: Mapping[int, int] = attrs.field(factory=dict)
    """As for cells."""
    states_on: Mapping[str, int] = attrs.field(factory=dict)
    is_repacked: bool = False
    """Some weights are kept in an order of their own in place of the file's."""

    @property
    def compute(self) -> int:
        """Wherever it is."""
        return self.host_compute + sum(self.gpu_compute.values())

    @property
    def n_gpu_layers(self) -> int:
        """Layers on GPUs, the output counted as one."""
        return sum(not is_host(name) for name in self.layers)


def is_host(name: str) -> bool:
    """Whether llama.cpp's name of a device or buffer is one of host memory."""
    return _ON_HOST.fullmatch(name) is not None


def read_figures(lines: Iterable[str]) -> MemoryFigures:
    """The figures in the lines; zeros for what they do not mention."""
    reader = _Reader()
    for line in lines:
        reader.read(line)
    return reader.figures()


@attrs.define(eq=False)
class _Reader:
    """Sums, in MiB."""

    _layers: list[str] = attrs.field(factory=list)
    _sums: dict[str, float] = attrs.field(factory=lambda: defaultdict(float))
    _gpu_compute: dict[str, float] = attrs.field(factory=lambda: defaultdict(float))
    _layer_cells: dict[int, float] = attrs.field(factory=lambda: defaultdict(float))
    _cells_on: dict[str, float] = attrs.field(factory=lambda: defaultdict(float))
    _layer_states: dict[int, float] = attrs.field(factory=lambda: defaultdict(float))
    _states_on: dict[str, float] = attrs.field(factory=lambda: defaultdict(float))
    _places: dict[int, str] = attrs.field(factory=dict)
    """By layer, of the memory whose size comes next."""
    _is_repacked: bool = False

    def read(self, line: str) -> None:
        if found := _CELL_LAYER.match(line) or _STATES.match(line):
            self._places[int(found[1])] = found[2]
        elif found := _CELLS.match(line):
            size = float(found[1])
            self._sums["cells"] += size
            self._share_out(size, self._places, self._layer_cells, self._cells_on)
            self._places = {}
        elif found := _LAYER.match(line):
            self._layers.append(found[1])
        elif found := _BUFFER.match(line):
            self._read_buffer(found[1], found[2], float(found[3]))

    def _read_buffer(self, name: str, kind: str, size: float) -> None:
        if kind == "model":
            self._is_repacked |= "REPACK" in name
        elif kind == "compute":
            if is_host(name):
                self._sums["host_compute"] += size
            else:
                self._gpu_compute[name] += size
        elif kind == "output":
            self._sums["output"] += size
        elif kind == "RS" or kind.endswith("state"):
            self._sums["states"] += size
            here = {layer: place for layer, place in self._places.items() if place == name}
            self._share_out(size, here, self._layer_states, self._states_on)
            self._places = {key: at for key, at in self._places.items() if at != name}

    @staticmethod
    def _share_out(
        size: float,
        places: Mapping[int, str],
        by_layer: dict[int, float],
        by_device: dict[str, float],
    ) -> None:
        for layer, place in places.items():
            by_layer[layer] += size / len(places)
            by_device[place] += size / len(places)

    def figures(self) -> MemoryFigures:
        return MemoryFigures(
            cells=_bytes(self._sums["cells"]),
            states=_bytes(self._sums["states"]),
            output=_bytes(self._sums["output"]),
            host_compute=_bytes(self._sums["host_compute"]),
            gpu_compute=_all_bytes(self._gpu_compute),
            layers=tuple(self._layers),
            layer_cells=_all_bytes(self._layer_cells),
            cells_on=_all_bytes(self._cells_on),
            layer_states=_all_bytes(self._layer_states),
            states_on=_all_bytes(self._states_on),
            is_repacked=self._is_repacked,
        )


def _bytes(mib: float) -> int:
    return int(mib * 2**20)


def _all_bytes(sums: Mapping[_Key, float]) -> dict[_Key, int]:
    return {key: _bytes(mib) for key, mib in sums.items()}
