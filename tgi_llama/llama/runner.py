"""``ModelRunner`` on llama.cpp: a model's context, opened and closed on the decode thread."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import attrs

from tgi_llama.config import Config
from tgi_llama.engine.kv_cache import KvPlan
from tgi_llama.engine.model_runner import Batch, Logits, SavedState, SlotId
from tgi_llama.errors import StartError
from tgi_llama.generation import AdapterFacts, AdapterId, ModelDescription
from tgi_llama.llama.backend import NativeLog, uses_numa
from tgi_llama.llama.cell_state import suited
from tgi_llama.llama.context import Context
from tgi_llama.llama.devices import devices
from tgi_llama.llama.memory_needs import LOWER_CONTEXT, log_reserved
from tgi_llama.llama.model import Model
from tgi_llama.llama.warm_up import Limits, warm_up

_log = logging.getLogger(__name__)


@attrs.define(eq=False)
class LlamaRunner:
    """Implements ``engine.model_runner.ModelRunner``."""

    description: ModelDescription
    _context: Context

    @property
    def plan(self) -> KvPlan:
        """The one that was asked for, with as many slots as suit the model."""
        return self._context.plan

    @property
    def n_slots(self) -> int:
        return self._context.plan.n_slots

    @property
    def max_batch_tokens(self) -> int:
        return self._context.facts.max_batch_tokens

    @property
    def max_outputs(self) -> int:
        return self._context.max_outputs

    def decode(self, batch: Batch) -> None:
        self._context.decode(batch)

    def load_adapter(self, adapter: AdapterId, path: Path, *, scale: float) -> AdapterFacts:
        return self._context.adapters.load(adapter, path, scale=scale)

    def free_adapter(self, adapter: AdapterId) -> None:
        self._context.adapters.free(adapter)

    @property
    def switch_s(self) -> float:
        return self._context.switch_s

    def logits(self, row: int) -> Logits:
        return self._context.logits(row)

    @property
    def can_cut(self) -> bool:
        return self._context.cells.can_cut

    def length(self, slot: SlotId) -> int:
        return self._context.cells.length(slot)

    def shortest_cut(self, slot: SlotId) -> int:
        return self._context.cells.shortest_cut(slot)

    def shortest_copy(self, slot: SlotId) -> int:
        return self._context.cells.shortest_copy(slot)

    def truncate(self, slot: SlotId, length: int) -> bool:
        return self._context.cells.truncate(slot, length)

    def clear(self, slot: SlotId) -> None:
        self._context.cells.clear(slot)

    def copy(self, source: SlotId, target: SlotId, length: int) -> bool:
        return self._context.cells.copy(source, target, length)

    def saved_size(self, slot: SlotId) -> int:
        return self._context.cells.saved_size(slot)

    def save(self, slot: SlotId) -> SavedState | None:
        return self._context.cells.save(slot)

    def restore(self, slot: SlotId, state: SavedState) -> bool:
        return self._context.cells.restore(slot, state)

    def abort(self) -> None:
        """``Context.abort``. Any thread."""
        self._context.abort()


@contextlib.contextmanager
def open_runner(
    model: Model, config: Config, *, plan: KvPlan, log: NativeLog
) -> Iterator[LlamaRunner]:
    """Makes the model's context and warms it up (``warm_up``).

    Raises StartError when the context cannot be made or the largest batch cannot be decoded.
    """
    with contextlib.ExitStack() as stack:
        with log.captured() as lines:
            suiting = suited(plan, model.pointer)
            context = stack.enter_context(_make_context(model, config, suiting, log))
        log_reserved(lines)
        if context.cells.kind.loses_window:
            _log.warning(
                "llama.cpp computes this model's sliding windows inexactly in the unified layout;"
                " --kv-layout streams is exact"
            )
        _warm_up(context)
        yield LlamaRunner(description=_describe(model, context, config), context=context)


def _make_context(model: Model, config: Config, plan: KvPlan, log: NativeLog) -> Context:
    try:
        return Context(model, config, plan, log)
    except StartError as error:
        if "alloc" not in str(error):
            raise
        lower = f"--n-gpu-layers, {LOWER_CONTEXT}" if model.gpu_layers else LOWER_CONTEXT
        raise StartError(f"not enough memory: {error}. Lower {lower}") from error


def _warm_up(context: Context) -> None:
    limits = Limits(
        n_slots=context.plan.n_sequences,
        cells_per_slot=context.plan.cells_per_slot,
        max_batch_tokens=context.facts.max_batch_tokens,
        max_outputs=context.max_outputs,
    )
    warm_up(context, limits)


def _describe(model: Model, context: Context, config: Config) -> ModelDescription:
    facts = context.facts
    used = [each.description for each in devices() if each.name in model.gpu_layers]
    return ModelDescription(
        architecture=model.metadata("general.architecture") or "unknown",
        description=model.description,
        n_parameters=model.n_parameters,
        size_bytes=model.size_bytes,
        n_vocab=model.n_vocab,
        n_context_train=model.n_context_train,
        n_cells=facts.n_cells,
        n_slots=facts.n_slots,
        kv_layout=facts.kv_layout,
        max_batch_tokens=facts.max_batch_tokens,
        physical_batch_tokens=facts.physical_batch_tokens,
        n_threads=facts.n_threads,
        n_threads_batch=facts.n_threads_batch,
        n_gpu_layers=model.gpu_layers.total(),
        split_mode=config.split_mode,
        backend=f"{len(used)}-{used[0]}" if used else "cpu",
        type_k=facts.type_k,
        type_v=facts.type_v,
        flash_attention=facts.flash_attention,
        mmap="mmap" in model.load_mode,
        mlock=model.locked,
        numa=config.numa if uses_numa() else "disabled",
        offload_kqv=config.offload_kqv,
        kv_device=facts.kv_device,
    )
