"""What a model takes on each GPU: arithmetic on what was measured."""

from collections.abc import Sequence

import attrs

from tgi_llama.llama.devices import Device
from tgi_llama.llama.gguf_file import LayerWeights
from tgi_llama.llama.memory_log import MemoryFigures


@attrs.frozen(kw_only=True)
class GpuNeeds:
    """Bytes on one GPU. About: backends pad weights as they like."""

    name: str
    """The device's."""
    weights: int = 0
    adapters: int = 0
    """LoRA adapters that are loaded at the start."""
    cells: int = 0
    states: int = 0
    compute: int = 0
    n_layers: int = 0
    """The output counts as one."""
    copied: int = 0
    """Of the weights: what host memory has too."""

    @property
    def total(self) -> int:
        return self.weights + self.adapters + self.cells + self.states + self.compute


def gpu_needs(
    gpus: Sequence[Device],
    figures: MemoryFigures,
    weights: LayerWeights,
    *,
    row_shares: Sequence[float] = (),
) -> tuple[GpuNeeds, ...]:
    """The needs on each of the GPUs.

    ``row_shares``: with ``--split-mode row`` every matrix is shared out by these proportions; cells
    and computation stay with the GPU that has the layer.
    """
    placed = dict(enumerate(figures.layers))
    on_gpus = {layer: name for layer, name in placed.items() if name in {g.name for g in gpus}}
    n_bytes = sum(weights.layers[layer] for layer in on_gpus)
    output = len(weights.layers) - 1
    return tuple(
        GpuNeeds(
            name=gpu.name,
            weights=(
                int(n_bytes * row_shares[at] / sum(row_shares))
                if row_shares
                else sum(weights.layers[key] for key, name in on_gpus.items() if name == gpu.name)
            ),
            adapters=sum(
                n_bytes
                for layer, n_bytes in enumerate(weights.adapters)
                if on_gpus.get(layer) == gpu.name
            ),
            cells=figures.cells_on.get(gpu.name, 0),
            states=figures.states_on.get(gpu.name, 0),
            compute=figures.gpu_compute.get(gpu.name, 0),
            n_layers=sum(name == gpu.name for name in on_gpus.values()),
            copied=weights.copied if on_gpus.get(output) == gpu.name else 0,
        )
        for at, gpu in enumerate(gpus)
    )
