"""What a model and its context will need, found out before they take it.

llama.cpp can make a model and a context of it without their memory, which is how its own ``--fit``
finds sizes. That is exact for every architecture, where a formula of ours would not be, and costs
the reading of the vocabulary.
"""

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import attrs
import llama_cpp.llama_cpp as native

from tgi_llama.config import Config
from tgi_llama.engine.kv_cache import KvPlan
from tgi_llama.errors import ConfigError, StartError
from tgi_llama.host_memory import available_bytes, most_bytes
from tgi_llama.llama.backend import NativeLog
from tgi_llama.llama.cell_state import suited
from tgi_llama.llama.context_params import context_params
from tgi_llama.llama.devices import Device
from tgi_llama.llama.gpu_needs import GpuNeeds
from tgi_llama.llama.memory_log import MemoryFigures, read_figures
from tgi_llama.llama.model import check_generates, failure_reason, model_params
from tgi_llama.llama.offload import Offload, asked_offload

_log = logging.getLogger(__name__)

LOWER_CONTEXT = (
    "--max-batch-size, --max-total-tokens, --max-batch-total-tokens,"
    " --max-physical-batch-total-tokens, or --type-k and --type-v (q8_0)"
)
"""The options that the size of the context follows from."""

_CACHE_SHARE = 4
"""The host cache gets this part of what is available, if nothing else was asked for."""

_MAX_CACHE = 8 * 2**30
"""Bytes. Of that default only: whoever wants more should have decided so."""

TABLE_BYTES = 52
"""Host memory that llama.cpp keeps for each cell beside its keys and values: position, owners. It
takes them for real also when it only measures. (67 million cells: 3.3 GiB.)"""


ShareOut = Callable[[MemoryFigures], tuple[GpuNeeds, ...]]
Look = Callable[[native.llama_model_p], None]


@attrs.frozen(kw_only=True)
class MemoryNeeds:
    """In bytes."""

    weights: int
    """The tensors in the GGUF file."""
    is_mapped: bool
    """The file is mapped: what is not used for a while can be dropped and read again."""
    output: int
    """The most rows of logits that a step may ask for."""
    tables: int
    """What llama.cpp notes of the cells."""
    cache: int | None
    """The host cache's limit, where one was asked for."""
    n_slots: int
    """That each have a part of it."""
    figures: MemoryFigures
    adapters: int = 0
    """LoRA adapters that are loaded at the start."""
    gpus: tuple[GpuNeeds, ...] = ()
    """Of the GPUs in use, in llama.cpp's order."""

    @property
    def host_at_least(self) -> int:
        """Host memory without which there is no start."""
        weights = 0 if self.is_mapped else self._host_weights
        adapters = self.adapters - sum(gpu.adapters for gpu in self.gpus)
        context = self._host_cells + self.tables + self.figures.host_compute + self.output
        return weights + adapters + context

    @property
    def host(self) -> int:
        """Host memory for work at full speed, without the host cache. About."""
        weights = self._host_weights if self.is_mapped else 0
        return self.host_at_least + weights

    def cache_limit(self, room: "Room") -> int:
        """The host cache's limit: as asked for, else a share of what is available, but no more than
        all the rest leaves of it."""
        if self.cache is not None:
            return self.cache
        return max(0, min(default_cache(room), room.host - self.host))

    @property
    def _host_weights(self) -> int:
        return max(0, self.weights - sum(gpu.weights - gpu.copied for gpu in self.gpus))

    @property
    def _host_cells(self) -> int:
        on_gpus = sum(gpu.cells + gpu.states for gpu in self.gpus)
        return self.figures.cells + self.figures.states - on_gpus


@attrs.frozen(kw_only=True)
class Room:
    """What there is, in bytes."""

    host: int
    """Host memory that can be had without harm."""
    host_at_most: int
    """... with swapping and without any page cache."""
    gpus: Mapping[str, int] = attrs.field(factory=dict)
    """Free memory by GPU, of those that tell."""

    def is_short_of(self, gpu: GpuNeeds) -> bool:
        """Whether the GPU has less free than is needed of it, as far as is known."""
        return gpu.total > self.gpus.get(gpu.name, gpu.total)

    def free_text(self, gpu: GpuNeeds) -> str:
        """For people: what the GPU has free."""
        n_free = self.gpus.get(gpu.name)
        return "nobody knows what is" if n_free is None else size_text(n_free)


def asked_cache(config: Config) -> int | None:
    """The host cache's limit in bytes, where one was asked for."""
    return config.cache_ram if config.prefix_cache else 0


def default_cache(room: Room) -> int:
    """Bytes, where none was."""
    return min(room.host // _CACHE_SHARE, _MAX_CACHE)


def check_tables(plan: KvPlan) -> None:
    """Raises StartError where measuring alone would exhaust the memory."""
    n_at_most = most_bytes()
    if plan.n_cells * TABLE_BYTES > n_at_most:
        raise StartError(
            f"not enough memory for {plan.n_cells} cells: {size_text(n_at_most)} can be had at"
            f" most. Lower {LOWER_CONTEXT}"
        )


def measure_needs(
    path: Path,
    config: Config,
    plan: KvPlan,
    log: NativeLog,
    *,
    offload: Offload | None = None,
    share: ShareOut = lambda _: (),
    look: Look = lambda _: None,
) -> MemoryNeeds:
    """Asks llama.cpp, with the layers of ``offload`` on GPUs (None: as ``Model``). ``share`` makes
    the needs on each GPU of the figures; ``look`` is shown the model, which has no weights.

    Raises ConfigError where the file or the options are wrong in some other way. Changes nothing
    that stays.
    """
    params = model_params(config, asked_offload(config) if offload is None else offload)
    params.no_alloc = True
    params.load_mode = native.LLAMA_LOAD_MODE_NONE  # it asserts that nothing is mapped
    with log.captured() as lines, log.quiet():
        model = native.llama_model_load_from_file(os.fsencode(path), params)
        if not model:
            raise ConfigError(failure_reason(lines))
        try:
            look(model)
            return _measure(model, config, plan, lines, share)
        finally:
            native.llama_model_free(model)


def _measure(
    model: native.llama_model_p, config: Config, plan: KvPlan, lines: list[str], share: ShareOut
) -> MemoryNeeds:
    vocab = native.llama_model_get_vocab(model)
    check_generates(
        has_encoder=native.llama_model_has_encoder(model),
        has_vocabulary=native.llama_vocab_type(vocab) != native.LLAMA_VOCAB_TYPE_NONE,
    )
    n_vocab = native.llama_vocab_n_tokens(vocab)
    plan = suited(plan, model)
    params = context_params(config, plan, n_vocab=n_vocab)
    context = native.llama_init_from_model(model, params)
    if not context:
        raise ConfigError(failure_reason(lines))
    native.llama_free(context)
    figures = read_figures(lines)
    return MemoryNeeds(
        weights=native.llama_model_size(model),
        is_mapped=config.use_mmap and not config.use_mlock,
        output=params.n_outputs_max * n_vocab * 4,
        tables=plan.n_cells * TABLE_BYTES,
        cache=asked_cache(config),
        n_slots=plan.n_slots,
        figures=figures,
        gpus=share(figures),
    )


def measure_room(gpus: Iterable[Device]) -> Room:
    """Free memory now, on these GPUs when they were listed."""
    return Room(
        host=available_bytes(),
        host_at_most=most_bytes(),
        gpus={gpu.name: gpu.free_bytes for gpu in gpus if gpu.total_bytes},
    )


def announce_needs(needs: MemoryNeeds, room: Room, plan: KvPlan) -> None:
    """Logs what is needed and what there is.

    Warns where it may not fit, and raises StartError where it cannot; both name the options to
    lower.
    """
    _log.info("%s", describe_needs(needs, room, plan))
    or_map = "" if needs.is_mapped else ", or map the file (--use-mmap, no --use-mlock)"
    if needs.host_at_least > room.host_at_most:
        raise StartError(
            f"not enough memory: at least {size_text(needs.host_at_least)} are needed"
            f" ({_parts(needs, plan)}), and {size_text(room.host_at_most)} can be had at most."
            f" Lower {LOWER_CONTEXT}{or_map}"
        )
    if needs.host > room.host:
        _log.warning(
            "memory may run out: about %s are needed and %s are available. Lower %s",
            *(size_text(needs.host), size_text(room.host), LOWER_CONTEXT),
        )
    elif needs.host + needs.cache_limit(room) > room.host:
        _log.warning(
            "memory may run out when the host cache fills up: lower --cache-ram to %s",
            f"{(room.host - needs.host) // 2**20}MiB",
        )
    for gpu in needs.gpus:
        if room.is_short_of(gpu):
            _log.warning(
                "GPU memory may run out: about %s are needed on %s and %s are free. Lower"
                " --n-gpu-layers (auto: as many as fit), %s",
                *(size_text(gpu.total), gpu.name, room.free_text(gpu), LOWER_CONTEXT),
            )


def describe_needs(needs: MemoryNeeds, room: Room, plan: KvPlan) -> str:
    """One line for the log."""
    cache = size_text(needs.cache_limit(room))
    text = f"memory needed: {_parts(needs, plan)}, host cache up to {cache}"
    used = ", ".join(
        f"{gpu.name} {size_text(gpu.total)} ({gpu.n_layers} layers; {room.free_text(gpu)} free)"
        for gpu in needs.gpus
        if gpu.total
    )
    on_gpus = f"; about this of it on GPUs: {used}" if used else ""
    return f"{text}{on_gpus}; {size_text(room.host)} of host memory are available"


def _parts(needs: MemoryNeeds, plan: KvPlan) -> str:
    figures = needs.figures
    weights = f"weights {size_text(needs.weights)}"
    notes = ["mapped"] if needs.is_mapped else []
    notes += ["in part copied for speed"] if figures.is_repacked else []
    parts = [f"{weights} ({', '.join(notes)})" if notes else weights]
    if needs.adapters:
        parts.append(f"adapters {size_text(needs.adapters)}")
    if figures.cells:
        share = (
            f"{size_text(figures.cells // plan.n_cells)} a cell"
            if plan.unified
            else f"{size_text(figures.cells // needs.n_slots)} for each of {needs.n_slots} slots"
        )
        parts.append(f"KV memory {size_text(figures.cells)} ({share})")
    if figures.states:
        share = f"{size_text(figures.states // needs.n_slots)} for each of {needs.n_slots} slots"
        parts.append(f"states {size_text(figures.states)} ({share})")
    if 100 * needs.tables > needs.host_at_least:
        parts.append(f"its tables {size_text(needs.tables)}")
    parts.append(f"compute buffers {size_text(figures.compute)}")
    parts.append(f"output rows {size_text(needs.output)}")
    return ", ".join(parts)


def log_reserved(lines: Iterable[str]) -> None:
    """Logs what llama.cpp says it did reserve for the context, from its log of making one."""
    figures = read_figures(lines)
    parts = {
        "KV memory": figures.cells,
        "states": figures.states,
        "compute buffers": figures.compute,
    }
    shown = (f"{name} {size_text(n_bytes)}" for name, n_bytes in parts.items() if n_bytes)
    _log.info("memory reserved: %s", ", ".join(shown))


def size_text(n_bytes: int) -> str:
    """For people: ``1.5 GiB``, ``192 MiB``, ``96 KiB``."""
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if n_bytes >= 2**power:
            value = n_bytes / 2**power
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{n_bytes} bytes"
