"""Which layers go to GPUs: what was asked for, and as many as fit.

Nothing here knows llama.cpp: what it would take is asked of a function.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import attrs

from tgi_llama.config import Config
from tgi_llama.llama.devices import Device
from tgi_llama.llama.gguf_file import LayerWeights
from tgi_llama.llama.gpu_needs import GpuNeeds
from tgi_llama.llama.memory_log import MemoryFigures, is_host

_log = logging.getLogger(__name__)

_GUIDED_PROBES = 4
"""Measurements at the number that the last one predicts; then halves, whose number is bounded."""


@attrs.frozen
class Offload:
    """What llama.cpp is told."""

    n_layers: int | None = 0
    """The last ones of the model, the output counted as one. None: all."""
    split: tuple[float, ...] = ()
    """Proportions of the GPUs. Empty: llama.cpp goes by their free memory."""

    @property
    def n_asked(self) -> int:
        """As llama.cpp takes it, which does not mind more than there are."""
        return 2**31 - 1 if self.n_layers is None else self.n_layers


def asked_offload(config: Config) -> Offload:
    """What the options say. ``auto`` is no layer here: ``fit`` finds how many."""
    layers, split = config.n_gpu_layers, config.split_proportions
    if layers == "all":
        return Offload(None, split)
    return Offload(0 if layers == "auto" else int(layers), split)


class Needs(Protocol):
    """The part of ``MemoryNeeds`` that counts here."""

    @property
    def figures(self) -> MemoryFigures: ...
    @property
    def gpus(self) -> tuple[GpuNeeds, ...]: ...


Measure = Callable[[Offload], Needs | None]
"""What llama.cpp would take. None: it would fail for another reason, which the load will tell."""


def fit(
    measure: Measure,
    gpus: Sequence[Device],
    weights: LayerWeights,
    *,
    margin: int,
    split: tuple[float, ...] = (),
) -> Offload:
    """As many layers as leave ``margin`` bytes free on each of the GPUs.

    With a ``split`` the GPUs share the layers by it. Else llama.cpp's own way is taken where it
    fits, which is by free memory; where it does not, the GPUs are filled one after the other.
    """
    for each in gpus:
        if not each.total_bytes:
            _log.warning(
                "%s does not tell its memory: --n-gpu-layers auto leaves it out", each.name
            )
    search = _Search(measure, tuple(gpus), weights, margin, split)
    found = search.run()
    rooms = ", ".join(f"{each.name} ({each.description})" for each in gpus)
    n_all = len(weights.layers)
    n_found = n_all if found.n_layers is None else found.n_layers
    _log.info(
        "--n-gpu-layers auto: %d of %d layers fit on %s and leave %d MiB free",
        *(n_found, n_all, rooms, margin // 2**20),
    )
    return found


@attrs.define(eq=False)
class _Search:
    _measure: Measure
    _gpus: tuple[Device, ...]
    _weights: LayerWeights
    _margin: int
    _split: tuple[float, ...]
    _compute: list[int] = attrs.field(factory=list)
    """By GPU, as last measured: it follows from the layers in no simple way."""

    def run(self) -> Offload:
        if all(self._room(gpu) <= 0 for gpu in self._gpus):
            return Offload(0)  # llama.cpp cannot share out by free memory where there is none
        whole = Offload(None, self._split)
        needs = self._measure(whole)
        if needs is None:
            return self._halve() if self._measure(Offload(0)) is not None else whole
        if self._fits(needs):
            return whole
        costs = layer_costs(needs.figures, self._weights)
        self._compute = [each.compute for each in needs.gpus]
        best, n_probes = Offload(0), 0
        # ``low`` layers fit and ``high`` do not. All of them may fit in another order.
        low, high = 0, len(costs) + (1 if self._arranges and len(self._gpus) > 1 else 0)
        while high - low > 1:
            guess = self._predict(costs) if n_probes < _GUIDED_PROBES else (low + high) // 2
            n_layers = min(max(guess, low + 1), high - 1)
            candidate = self._candidate(costs, n_layers)
            n_probes += 1
            if candidate is not None and self._succeeds(candidate):
                best, low = candidate, n_layers
            else:
                high = n_layers
        return best

    def _halve(self) -> Offload:
        """Where all layers are too many even to measure: recurrent states are allocated for it."""
        low, high = 0, len(self._weights.layers)
        while high - low > 1:
            middle = (low + high) // 2
            if self._succeeds(Offload(middle, self._split)):
                low = middle
            else:
                high = middle
        return Offload(low, self._split)

    @property
    def _arranges(self) -> bool:
        """Whether the proportions are ours to choose."""
        return not self._split

    def _candidate(self, costs: Sequence[int], n_layers: int) -> Offload | None:
        if not self._arranges or len(self._gpus) == 1:
            return Offload(n_layers, self._split)
        counts = arrange(costs[len(costs) - n_layers :], self._rooms())
        return None if counts is None else Offload(n_layers, tuple(map(float, counts)))

    def _predict(self, costs: Sequence[int]) -> int:
        """How many layers fit if computing takes what it took the last time."""
        rooms = self._rooms()
        if not self._arranges:  # as if the memory were one
            rooms = [sum(rooms)]
        return max(
            (n for n in range(len(costs) + 1) if arrange(costs[len(costs) - n :], rooms)),
            default=0,
        )

    def _succeeds(self, candidate: Offload) -> bool:
        needs = self._measure(candidate)
        if needs is None:
            return False
        self._compute = [each.compute for each in needs.gpus]
        return self._fits(needs)

    def _rooms(self) -> list[int]:
        return [
            self._room(gpu) - compute
            for gpu, compute in zip(self._gpus, self._compute, strict=True)
        ]

    def _room(self, gpu: Device) -> int:
        return gpu.free_bytes - self._margin

    def _fits(self, needs: Needs) -> bool:
        return all(
            each.total <= max(0, self._room(gpu))
            for gpu, each in zip(self._gpus, needs.gpus, strict=True)
        )


def layer_costs(figures: MemoryFigures, weights: LayerWeights) -> list[int]:
    """Bytes that each layer takes of a GPU, from figures with all layers on GPUs. Cells that stay
    in host memory do not count."""
    cells_on_gpus = not all(is_host(name) for name in figures.cells_on)
    cells = figures.layer_cells if cells_on_gpus else {}
    return [
        n_bytes + cells.get(layer, 0) + figures.layer_states.get(layer, 0)
        for layer, n_bytes in enumerate(weights.with_adapters)
    ]


def arrange(costs: Sequence[int], rooms: Sequence[int]) -> list[int] | None:
    """How many of the layers each GPU takes, in their order, each as many as it has room for; None
    where some are left over."""
    counts, start = [], 0
    for room in rooms:
        end, used = start, 0
        while end < len(costs) and used + costs[end] <= room:
            used += costs[end]
            end += 1
        counts.append(end - start)
        start = end
    return counts if start == len(costs) else None
