"""Slots and cells: who owns which part of the KV memory.

llama.cpp calls one token's keys and values a cell. A sequence needs a slot (its ``seq_id``) and one
cell per token. Two layouts exist:

* ``streams``: every slot owns the same number of cells. Attention of a sequence reads only its own
  cells. Sequences that run together must have consecutive slots to share a physical batch, which is
  why the lowest free slot is always taken first.
* ``unified``: all slots share one array of cells. More may be promised than there is; a request
  then waits until its worst case fits, so a running sequence never runs out.

A request's worst case is reserved before it starts, so a sequence that was admitted can finish.
"""

import heapq

import attrs

from tgi_llama.engine.model_runner import SlotId

CELL_ALIGNMENT = 256
"""llama.cpp pads the cells of a stream to a multiple of this (``src/llama-kv-cache.cpp``)."""

_CELLS_COPIED_PER_TOKEN = 1024
"""The streams layout copies a whole stream, however little is in it: 4096 cells of a model of 0.5 B
parameters in 5.5 ms, while a token of its prompt takes 5.6 ms on one thread. With more threads only
the latter gets faster, hence the quarter. The unified layout copies nothing: it notes an owner."""

MAX_SLOTS = 256
"""llama.cpp's ``LLAMA_MAX_SEQ``."""


@attrs.frozen(kw_only=True)
class KvPlan:
    """The shape of the KV memory, decided before the context is made."""

    unified: bool
    n_slots: int
    n_cells: int
    """Cells in all."""
    cells_per_slot: int
    """The most cells one sequence can have."""

    def is_worth_copying(self, n_tokens: int) -> bool:
        """Whether copying that many cells from slot to slot costs less than computing them."""
        return self.unified or n_tokens * _CELLS_COPIED_PER_TOKEN >= self.cells_per_slot


def plan_kv(*, layout: str, n_slots: int, cells_per_sequence: int, n_cells: int) -> KvPlan:
    """Lays out at least ``n_cells`` cells for ``n_slots`` sequences of ``cells_per_sequence``.

    ``layout`` is ``streams``, ``unified`` or ``auto``. ``auto`` takes streams, whose attention is
    cheaper at 16 sequences (docs/performance.md), unless the cells do not suffice for all slots.
    """
    enough_for_all = n_slots * cells_per_sequence <= n_cells
    unified = layout == "unified" or (layout == "auto" and not enough_for_all)
    if unified:
        total = _align(max(n_cells, cells_per_sequence))
        return KvPlan(unified=True, n_slots=n_slots, n_cells=total, cells_per_slot=total)
    per_slot = _align(max(n_cells // n_slots, cells_per_sequence))
    return KvPlan(
        unified=False, n_slots=n_slots, n_cells=per_slot * n_slots, cells_per_slot=per_slot
    )


def _align(n_cells: int) -> int:
    return -(-n_cells // CELL_ALIGNMENT) * CELL_ALIGNMENT


@attrs.define(eq=False)
class SlotPool:
    """Hands out slots, lowest first, and keeps count of the cells reserved for them.

    Pure bookkeeping: it never touches the native cells. Decode thread only.
    """

    plan: KvPlan
    _free: list[SlotId] = attrs.field(init=False)
    _reserved: dict[SlotId, int] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._free = [SlotId(slot) for slot in range(self.plan.n_slots)]

    @property
    def n_busy(self) -> int:
        return len(self._reserved)

    @property
    def n_reserved(self) -> int:
        """Cells reserved in all."""
        return sum(self._reserved.values())

    def reserve(self, n_cells: int) -> SlotId | None:
        """Takes the lowest free slot with room for ``n_cells``; None when that must wait."""
        if n_cells > self.plan.cells_per_slot:
            raise ValueError(f"{n_cells} cells asked of slots of {self.plan.cells_per_slot}")
        if not self._free:
            return None
        if self.plan.unified and self.n_reserved + n_cells > self.plan.n_cells:
            return None
        slot = heapq.heappop(self._free)
        self._reserved[slot] = n_cells
        return slot

    def release(self, slot: SlotId) -> None:
        """Gives the slot back. KeyError when it was not reserved."""
        del self._reserved[slot]
        heapq.heappush(self._free, slot)

    def check_invariants(self) -> None:
        """Raises AssertionError when a slot is lost or owned twice."""
        slots = sorted([*self._free, *self._reserved])
        assert slots == list(range(self.plan.n_slots)), f"slots out of balance: {slots}"
        if self.plan.unified:
            assert self.n_reserved <= self.plan.n_cells
