"""What is decided before the model is loaded: its layers on GPUs and the host cache's limit."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs
import llama_cpp.llama_cpp as native

from tgi_llama.config import Config
from tgi_llama.engine.kv_cache import KvPlan
from tgi_llama.errors import AdapterError, ConfigError
from tgi_llama.llama.adapter_file import read_adapter_file
from tgi_llama.llama.backend import NativeLog
from tgi_llama.llama.devices import Device, backends, devices, usable_gpus
from tgi_llama.llama.gguf_file import LayerWeights, layer_weights, read_gguf, with_adapters
from tgi_llama.llama.gpu_needs import GpuNeeds, gpu_needs
from tgi_llama.llama.gpu_options import check_gpu_options, gpus_in_use
from tgi_llama.llama.memory_log import MemoryFigures
from tgi_llama.llama.memory_needs import (
    MemoryNeeds,
    announce_needs,
    asked_cache,
    check_tables,
    default_cache,
    measure_needs,
    measure_room,
)
from tgi_llama.llama.model_facts import ModelFacts, read_model_facts
from tgi_llama.llama.offload import Offload, asked_offload, fit


@attrs.frozen(kw_only=True)
class StartPlan:
    offload: Offload
    cache_ram_bytes: int


def plan_start(
    path: Path, config: Config, plan: KvPlan, log: NativeLog, *, adapters: Sequence[Path] = ()
) -> StartPlan:
    """Decides, with these files of LoRA adapters in mind, and says what the model will need
    (``announce_needs``). After ``start_backend``, on the thread that loads.

    Raises ConfigError where GPUs were demanded that there are not, and StartError where the memory
    cannot suffice.
    """
    gpus = usable_gpus(devices())
    check_gpu_options(config, gpus, backends())
    check_tables(plan)
    meter = Meter(path, config, plan, log, gpus_in_use(config, gpus), adapters=adapters)
    offload = meter.choose()
    needs = meter.needs(offload)
    # Without figures the load fails too, and says why.
    room = measure_room(meter.gpus)
    if needs is None:
        asked = asked_cache(config)
        limit = default_cache(room) if asked is None else asked
    else:
        announce_needs(needs, room, plan)
        limit = needs.cache_limit(room)
    return StartPlan(offload=offload, cache_ram_bytes=limit)


@attrs.define(eq=False)
class Meter:
    """Measures one model with these options, with any number of its layers on GPUs."""

    _path: Path
    _config: Config
    _plan: KvPlan
    _log: NativeLog
    gpus: tuple[Device, ...]
    model: ModelFacts | None = attrs.field(default=None, init=False)
    """After the first measurement of a model that llama.cpp can make."""
    problem: str | None = attrs.field(default=None, init=False)
    """Why the last measurement failed."""
    _adapters: Sequence[Path] = attrs.field(default=(), kw_only=True)
    """Files of LoRA adapters, each as often as it is loaded."""
    _adapter_sizes: tuple[tuple[str, int], ...] = attrs.field(init=False)
    """Names of weights, and bytes that are beside each of them."""
    _with_facts: bool = attrs.field(default=False, kw_only=True)
    """Whether to read ``model``, which takes a while for a large vocabulary."""
    _weights: LayerWeights | None = attrs.field(default=None, init=False)
    """None where there is no GPU, or the file cannot be read, which its load will tell."""
    _known: dict[Offload, MemoryNeeds | None] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._adapter_sizes = tuple(
            size for path in self._adapters for size in _adapter_sizes(path, self._log)
        )
        if self.gpus:
            try:
                weights = layer_weights(read_gguf(self._path, self._log))
                self._weights = with_adapters(weights, self._adapter_sizes)
            except ConfigError:
                self._weights = None

    def choose(self) -> Offload:
        """What the options ask for; ``auto`` is measured. Nothing where there are no GPUs."""
        if not self.gpus:
            return Offload(0)
        if self._config.n_gpu_layers != "auto" or self._weights is None:
            return asked_offload(self._config)
        margin = self._config.gpu_memory_margin
        assert margin is not None  # the options work out its default
        return fit(self.needs, self.gpus, self._weights, margin=margin, split=self._split())

    def needs(self, offload: Offload) -> MemoryNeeds | None:
        """What it would take; None where it cannot be loaded, for the reason in ``problem``."""
        if offload not in self._known:
            self._known[offload] = self._measure(offload)
        return self._known[offload]

    def _measure(self, offload: Offload) -> MemoryNeeds | None:
        try:
            needs = measure_needs(
                *(self._path, self._config, self._plan, self._log),
                offload=offload,
                share=self._share,
                look=self._look,
            )
        except ConfigError as error:
            self.problem = str(error)
            return None
        return attrs.evolve(needs, adapters=sum(n_bytes for _, n_bytes in self._adapter_sizes))

    def _look(self, model: native.llama_model_p) -> None:
        if self._with_facts and self.model is None:
            self.model = read_model_facts(model)

    def _share(self, figures: MemoryFigures) -> tuple[GpuNeeds, ...]:
        if self._weights is None:
            return ()
        shares: Sequence[float] = self._split() if self._config.split_mode == "row" else ()
        return gpu_needs(self.gpus, figures, self._weights, row_shares=shares)

    def _split(self) -> tuple[float, ...]:
        """The proportions that are fixed. Rows are shared out by the size of the GPUs where nothing
        else was asked for, as llama.cpp's CUDA backend does."""
        asked = self._config.split_proportions
        if asked or self._config.split_mode != "row":
            return asked
        return tuple(float(gpu.total_bytes) for gpu in self.gpus)


def _adapter_sizes(path: Path, log: NativeLog) -> Iterable[tuple[str, int]]:
    """Nothing for a file that is no adapter, which its load will tell."""
    try:
        with log.quiet():
            return read_adapter_file(path).sizes.items()
    except AdapterError:
        return ()
