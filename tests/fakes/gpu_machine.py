"""Devices as llama.cpp would list them, and a model's needs on them by a simple formula."""

from collections.abc import Sequence

import attrs

from tgi_llama.llama.devices import Device, DeviceKind
from tgi_llama.llama.gguf_file import LayerWeights
from tgi_llama.llama.gpu_needs import GpuNeeds, gpu_needs
from tgi_llama.llama.memory_log import MemoryFigures
from tgi_llama.llama.offload import Offload


def gpu(name: str, free: int = 0, **facts: object) -> Device:
    values = {"description": f"card {name}", "kind": DeviceKind.GPU, "backend": "CUDA"}
    return Device(name=name, free_bytes=free, total_bytes=free, **(values | facts))  # type: ignore[arg-type]


@attrs.frozen
class Answer:
    """As ``MemoryNeeds``."""

    figures: MemoryFigures
    gpus: tuple[GpuNeeds, ...]


@attrs.define(eq=False)
class FakeModel:
    """Measures itself; the layers are placed as llama.cpp places them (``load_tensors``)."""

    gpus: Sequence[Device]
    weights: LayerWeights
    layer_cells: int = 0
    """Of each layer but the output."""
    compute: int = 0
    """On each GPU that has a layer."""
    compute_per_layer: int = 0
    """... more the more layers there are on all GPUs."""
    n_measurable: int = 10**6
    """More layers than these cannot be measured."""
    measured: list[Offload] = attrs.field(factory=list, init=False)

    def __call__(self, offload: Offload) -> Answer | None:
        self.measured.append(offload)
        n_all = len(self.weights.layers)
        n_layers = min(n_all, offload.n_asked)
        if n_layers > self.n_measurable:
            return None
        places = self._places(n_layers, offload.split)
        layers = ("CPU",) * (n_all - n_layers) + places
        cells = dict.fromkeys(range(n_all - 1), self.layer_cells)
        by_device: dict[str, int] = {}
        for layer, size in cells.items():
            by_device[layers[layer]] = by_device.get(layers[layer], 0) + size
        compute = self.compute + self.compute_per_layer * n_layers
        figures = MemoryFigures(
            layers=layers,
            layer_cells=cells,
            cells_on=by_device,
            gpu_compute=dict.fromkeys(set(places), compute),
        )
        return Answer(figures, gpu_needs(self.gpus, figures, self.weights))

    def _places(self, n_layers: int, split: Sequence[float]) -> tuple[str, ...]:
        shares = split or [float(each.free_bytes) for each in self.gpus]
        ends = [sum(shares[: end + 1]) / sum(shares) for end in range(len(shares))]
        return tuple(
            next(
                each.name
                for each, end in zip(self.gpus, ends, strict=True)
                if end > layer / n_layers
            )
            for layer in range(n_layers)
        )
