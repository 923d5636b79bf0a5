"""Slots and cells: who owns which part of the KV memory.

llama.cpp calls one token's keys and values a cell. A sequence needs a slot (its ``seq_id``) and one
cell per token. Two layouts exist:

* ``streams``: every slot owns the same number of cells. Attention of a sequence reads only its own
  cells. Sequences that run together must have consecutive slots to share a physical batch, which is
  why a slot next to busy ones is taken.
* ``unified``: all slots share one array of cells. More may be promised than there is; when cells
  run out, the newest sequence gives its own up and goes on later (``engine/placement.py``).

A slot is empty, busy (a sequence owns it), or idle: its sequence has ended, and its cells stay for
prompts that begin in the same way until somebody needs their place.
"""

import attrs

from tgi_llama.engine.model_runner import SlotId

CELL_ALIGNMENT = 256
"""llama.cpp pads the cells of a stream to a multiple of this (``src/llama-kv-cache.cpp``)."""

FEWEST_REUSED = 16
"""Shorter beginnings are computed: they cost less than a step more or less. A copy of any longer
one is cheaper than computing it, in both layouts (docs/performance.md)."""

MAX_SLOTS = 256
"""llama.cpp's ``LLAMA_MAX_SEQ``."""


@attrs.frozen(kw_only=True)
class KvPlan:
    """The shape of the KV memory, decided before the context is made."""

    unified: bool
    n_sequences: int
    """The most sequences that run at a time."""
    n_slots: int
    """In the unified layout there are more slots than sequences, since idle ones cost it nothing;
    but for models with recurrent states (``without_spare_slots``)."""
    n_cells: int
    """Cells in all."""
    cells_per_slot: int
    """The most cells one sequence can have."""

    @property
    def max_idle_cells(self) -> int:
        """Cells that ended sequences may keep. In the unified layout every token looks at all
        cells below the last one in use, so too many idle ones slow everybody down."""
        return self.n_cells // 4 if self.unified else self.n_cells

    def without_spare_slots(self) -> "KvPlan":
        """For a model that has a state for each slot, used or not."""
        return attrs.evolve(self, n_slots=self.n_sequences)


def plan_kv(*, layout: str, n_slots: int, cells_per_sequence: int, n_cells: int) -> KvPlan:
    """Lays out at least ``n_cells`` cells for ``n_slots`` sequences of ``cells_per_sequence``.

    ``layout`` is ``streams``, ``unified`` or ``auto``. ``auto`` takes streams, whose attention is
    cheaper at 16 sequences (docs/performance.md), unless the cells do not suffice for all slots.
    """
    enough_for_all = n_slots * cells_per_sequence <= n_cells
    unified = layout == "unified" or (layout == "auto" and not enough_for_all)
    if unified:
        total = _align(max(n_cells, cells_per_sequence))
        return KvPlan(
            unified=True,
            n_sequences=n_slots,
            n_slots=min(2 * n_slots, MAX_SLOTS),
            n_cells=total,
            cells_per_slot=total,
        )
    per_slot = _align(max(n_cells // n_slots, cells_per_sequence))
    return KvPlan(
        unified=False,
        n_sequences=n_slots,
        n_slots=n_slots,
        n_cells=per_slot * n_slots,
        cells_per_slot=per_slot,
    )


def _align(n_cells: int) -> int:
    return -(-n_cells // CELL_ALIGNMENT) * CELL_ALIGNMENT


@attrs.define(eq=False)
class SlotPool:
    """Which slots are empty, idle and busy. Pure bookkeeping: it never touches the native cells.
    Decode thread only."""

    n_slots: int
    _empty: set[SlotId] = attrs.field(init=False)
    _idle: dict[SlotId, None] = attrs.field(factory=dict, init=False)
    """The one that was used longest ago first."""
    _busy: set[SlotId] = attrs.field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self._empty = {SlotId(slot) for slot in range(self.n_slots)}

    @property
    def n_busy(self) -> int:
        return len(self._busy)

    @property
    def n_idle(self) -> int:
        return len(self._idle)

    @property
    def busy(self) -> frozenset[SlotId]:
        return frozenset(self._busy)

    def is_idle(self, slot: SlotId) -> bool:
        return slot in self._idle

    def available(self) -> tuple[SlotId, ...]:
        """Those that are not busy, ascending."""
        return tuple(sorted((*self._empty, *self._idle)))

    def gaps(self) -> tuple[SlotId, ...]:
        """Slots between busy ones that are not busy themselves, ascending."""
        between = range(min(self._busy, default=0), max(self._busy, default=0))
        return tuple(SlotId(slot) for slot in between if slot not in self._busy)

    def adjoining(self) -> tuple[SlotId, ...]:
        """Which slots can be taken so that the busy ones stand together, or nearly: one in a gap,
        else one below or above. Where none is busy, any."""
        if not self._busy:
            return self.available()
        gaps = self.gaps()
        if gaps:
            return gaps
        around = (min(self._busy) - 1, max(self._busy) + 1)
        return tuple(SlotId(slot) for slot in around if 0 <= slot < self.n_slots)

    def is_empty(self, slot: SlotId) -> bool:
        return slot in self._empty

    def an_empty(self) -> SlotId | None:
        """The lowest empty slot."""
        return min(self._empty, default=None)

    def idle_slots(self) -> tuple[SlotId, ...]:
        """The one that was used longest ago first."""
        return tuple(self._idle)

    def take(self, slot: SlotId) -> None:
        """Makes an empty or idle slot busy. KeyError for another."""
        if slot in self._idle:
            del self._idle[slot]
        else:
            self._empty.remove(slot)
        self._busy.add(slot)

    def retire(self, slot: SlotId) -> None:
        """Makes a busy slot idle. KeyError for another."""
        self._busy.remove(slot)
        self._idle[slot] = None

    def touch(self, slot: SlotId) -> None:
        """Notes that an idle slot was of use."""
        del self._idle[slot]
        self._idle[slot] = None

    def relocate(self, idle: SlotId, empty: SlotId) -> None:
        """What the idle slot held is in the empty one now, and its last use stays what it was.
        KeyError where they are not idle and empty."""
        if idle not in self._idle:
            raise KeyError(idle)
        self._empty.remove(empty)
        self._idle = {empty if slot == idle else slot: None for slot in self._idle}
        self._empty.add(idle)

    def release(self, slot: SlotId) -> None:
        """Makes a busy or idle slot empty. KeyError for another."""
        if slot in self._idle:
            del self._idle[slot]
        else:
            self._busy.remove(slot)
        self._empty.add(slot)

    def check_invariants(self) -> None:
        """Raises AssertionError when a slot is lost or in two states."""
        slots = sorted([*self._empty, *self._idle, *self._busy])
        assert slots == list(range(self.n_slots)), f"slots out of balance: {slots}"
