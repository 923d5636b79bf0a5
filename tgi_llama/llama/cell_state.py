"""What the slots hold: cut, copied, saved to host memory and restored, exactly or not at all.

Theory of operation
-------------------
llama.cpp has several kinds of memory behind one set of functions, and what those do with a part of
a sequence differs. Each kind is found out at start, the cut by trying it:

========================  =============================  =========================================
memory                    cut to a shorter length        copy without copying data (``seq_cp``)
========================  =============================  =========================================
plain                     always                         in the unified layout, any length
sliding window            while the window before the    in the unified layout, any length that can
                          new end is still there         be cut to; the window's cells are doubled
recurrent                 never                          as it is, in both layouts
hybrid                    never                          as it is, in the unified layout
========================  =============================  =========================================

Everything else that is copied goes through host memory, as ``save`` and ``restore`` do: a state is
the cells of one slot and nothing more, may be read whenever no decode runs and goes into any slot.

A window's cells are overwritten once the sequence is past them, in the unified layout by any other
sequence too and with ``swa_full`` as well. So what can be cut is asked of llama.cpp every time.
"""

import ctypes
import mmap
from collections.abc import Callable, Iterable

import attrs
import llama_cpp.llama_cpp as native
import numpy as np
from numpy.typing import NDArray

from tgi_llama.engine.kv_cache import KvPlan
from tgi_llama.engine.model_runner import SavedState, SlotId
from tgi_llama.errors import StartError

_WHOLE = 0
_PARTIAL = 1
"""``LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY``: only windows and recurrent states, which cannot be cut
back. Plain memories ignore it and give everything."""


Memory = NDArray[np.uint8]

_MAPPED_FROM = 2**16
"""Bytes. Smaller states are not worth a mapping of their own."""


@attrs.frozen(kw_only=True)
class MemoryKind:
    """What is known of a model's memory before it is tried."""

    is_recurrent: bool
    """Nothing but recurrent states."""
    is_hybrid: bool
    """Recurrent states in some layers, or beside the attention."""
    n_window: int
    """Positions of the sliding window; 0 without one, or where no sequence gets past it."""
    shares_window: bool
    """Whether a window's cells may belong to several slots for good. Such a cell is not given back
    when the sequences are past it, so the window's memory must be as large as the rest."""
    copies_are_notes: bool
    """Whether ``seq_cp`` only notes another owner."""
    loses_window: bool
    """Whether llama.cpp throws out cells of the sliding window that it still needs, where a batch
    takes several physical ones (docs/design.md, Traps)."""


def suited(plan: KvPlan, model: native.llama_model_p) -> KvPlan:
    """The plan for this model: recurrent states take as much memory as there are slots."""
    has_states = native.llama_model_is_recurrent(model) or native.llama_model_is_hybrid(model)
    return plan.without_spare_slots() if has_states else plan


def memory_kind(
    model: native.llama_model_p, plan: KvPlan, *, n_window_cells: int | None
) -> MemoryKind:
    """``n_window_cells``: the size of the sliding window's memory (of a stream of it in the streams
    layout); None where llama.cpp has made no such memory beside one of all positions."""
    n_window = native.llama_model_n_swa(model)
    is_recurrent = bool(native.llama_model_is_recurrent(model))
    is_hybrid = bool(native.llama_model_is_hybrid(model))
    is_known = n_window == 0 or n_window_cells is not None
    return MemoryKind(
        is_recurrent=is_recurrent,
        is_hybrid=is_hybrid,
        n_window=n_window if n_window < plan.cells_per_slot else 0,
        shares_window=n_window_cells is not None and n_window_cells >= plan.n_cells,
        copies_are_notes=is_recurrent or (plan.unified and is_known),
        loses_window=is_hybrid and plan.unified and 0 < n_window < plan.cells_per_slot,
    )


class CellState:
    """The slots of one context. Decode thread only.

    ValueError for what llama.cpp would end the process on, or take for something else.
    """

    def __init__(self, context: native.llama_context_p, plan: KvPlan, kind: MemoryKind) -> None:
        memory = native.llama_get_memory(context)
        if memory is None:
            raise StartError("this model has no KV memory, so it cannot generate text")
        self._context = context
        self._memory = memory
        self.kind = kind
        self._lengths = [0] * plan.n_slots
        self._can_be_cut = False
        self._copies_are_notes = kind.copies_are_notes

    @property
    def can_cut(self) -> bool:
        """See ``ModelRunner.can_cut``."""
        return self._can_be_cut and self.kind.n_window == 0

    def try_cut(self, slot: SlotId) -> None:
        """Finds out whether this memory can be cut, on a slot with two positions. It is empty
        afterwards."""
        cut = native.llama_memory_seq_rm(self._memory, slot, 1, -1)
        self._can_be_cut = cut and native.llama_memory_seq_pos_max(self._memory, slot) == 0
        if not (self._can_be_cut or self.kind.is_recurrent or self.kind.is_hybrid):
            # A kind of its own (DeepSeek 4's compressed cells, say): only states are safe.
            self._copies_are_notes = False
        self.clear(slot)

    def length(self, slot: SlotId) -> int:
        """See ``ModelRunner.length``."""
        return self._lengths[self._checked(slot)]

    def extend(self, ends: dict[int, int]) -> None:
        """Notes the slots' new lengths after a decode."""
        for slot, length in ends.items():
            self._lengths[slot] = length

    def reread(self, slots: Iterable[int], *, computed: bool) -> None:
        """After a failed decode of these slots. ``computed``: something may have been.

        llama.cpp takes the physical batch that failed out again, but a recurrent state has moved on
        for good and says nothing of it; states of other slots may have been underway from one
        place to another. So nothing that has such states is kept.
        """
        if computed and not self._can_be_cut:
            for slot in range(len(self._lengths)):
                self.clear(SlotId(slot))
            return
        for slot in slots:
            self._lengths[slot] = native.llama_memory_seq_pos_max(self._memory, slot) + 1

    def clear(self, slot: SlotId) -> None:
        """Frees all cells of the slot."""
        native.llama_memory_seq_rm(self._memory, self._checked(slot), -1, -1)
        self._lengths[slot] = 0

    def shortest_cut(self, slot: SlotId) -> int:
        """See ``ModelRunner.shortest_cut``."""
        length = self._lengths[self._checked(slot)]
        if not self._can_be_cut:
            return length
        first = 0
        if self.kind.n_window > 0:
            first = native.llama_memory_seq_pos_min(self._memory, slot)
        return min(length, first + self.kind.n_window if first > 0 else 1)

    def shortest_copy(self, slot: SlotId) -> int:
        """See ``ModelRunner.shortest_copy``."""
        length = self._lengths[self._checked(slot)]
        if not self._copies_are_notes and 0 < self.kind.n_window < length:
            return length  # a state holds the window at the end only
        return self.shortest_cut(slot)

    def truncate(self, slot: SlotId, length: int) -> bool:
        """See ``ModelRunner.truncate``."""
        present = self._lengths[self._checked(slot)]
        if length < 0:
            raise ValueError(f"slot {slot} cannot have {length} positions")
        if length == present:
            return True
        if length == 0:
            self.clear(slot)
            return True
        if not self.shortest_cut(slot) <= length < present:
            return False
        if not native.llama_memory_seq_rm(self._memory, slot, length, -1):
            return False
        self._lengths[slot] = length
        return True

    def copy(self, source: SlotId, target: SlotId, length: int) -> bool:
        """See ``ModelRunner.copy``.

        Streams go through host memory, although ``seq_cp`` can copy them. It copies all cells of
        a stream, used or not, and not before the next decode: until then the target's cells hold
        something else, and what is restored into either slot would be lost. Nor is it much faster:
        a copy of 100, 500 and 1000 positions takes 0.14, 0.7 and 1.3 ms here; ``seq_cp`` takes 1.1
        ms for a stream of 1024 cells and 0.5 ms for each further target, 3.4 and 2.9 ms with 4096
        cells (0.5 B parameters, 12 kB a cell), and the next decode must plan its graph anew.
        """
        present = self._lengths[self._checked(source)]
        if source == target or self._lengths[self._checked(target)] != 0:
            raise ValueError(f"slot {target} cannot take a copy of slot {source}: it is not empty")
        if not 0 < length <= present:
            raise ValueError(f"slot {source} has {present} positions, not {length}")
        if length < self.shortest_copy(source):
            return False
        if self._copies_are_notes:
            return self._note(source, target, length)
        try:
            data = self._read(source, _WHOLE, _scratch)
        except MemoryError:
            return False
        if data is None or not self._write(target, data, _WHOLE, length=present):
            return False
        if not self.truncate(target, length):
            self.clear(target)
            return False
        return True

    def _note(self, source: SlotId, target: SlotId, length: int) -> bool:
        """Makes the target an owner of the source's cells as well."""
        end = -1 if length == self._lengths[source] else length
        native.llama_memory_seq_cp(self._memory, source, target, -1, end)
        self._lengths[target] = length
        if self.kind.n_window == 0 or self.kind.shares_window:
            return True
        try:
            window = self._read(target, _PARTIAL, _scratch)
        except MemoryError:
            window = None
        if window is None:
            self.clear(target)
            return False
        return self._write(target, window, _PARTIAL, length=length)

    def saved_size(self, slot: SlotId) -> int:
        """See ``ModelRunner.saved_size``."""
        return int(native.llama_state_seq_get_size_ext(self._context, self._checked(slot), _WHOLE))

    def save(self, slot: SlotId) -> SavedState | None:
        """See ``ModelRunner.save``."""
        data = self._read(self._used(slot), _WHOLE, _kept)
        return None if data is None else SavedState(self._lengths[slot], data)

    def restore(self, slot: SlotId, state: SavedState) -> bool:
        """See ``ModelRunner.restore``."""
        if self._lengths[self._checked(slot)] != 0:
            raise ValueError(f"nothing can be restored into slot {slot}: it is not empty")
        return self._write(slot, state.data, _WHOLE, length=state.length)

    def _read(self, slot: SlotId, flags: int, allocate: Callable[[int], Memory]) -> Memory | None:
        """MemoryError when there is no room for it."""
        n_bytes = int(native.llama_state_seq_get_size_ext(self._context, slot, flags))
        data = allocate(n_bytes)
        written = native.llama_state_seq_get_data_ext(
            self._context, _address(data), n_bytes, slot, flags
        )
        data.flags.writeable = False
        return data if written == n_bytes > 0 else None

    def _write(self, slot: SlotId, data: Memory, flags: int, *, length: int) -> bool:
        """False after the slot was cleared, for want of cells."""
        n_bytes = data.nbytes
        read = native.llama_state_seq_set_data_ext(
            self._context, _address(data), n_bytes, slot, flags
        )
        end = native.llama_memory_seq_pos_max(self._memory, slot) + 1
        if read != n_bytes or end != length:
            self.clear(slot)  # of two memories, llama.cpp may have filled one
            return False
        self._lengths[slot] = length
        return True

    def _checked(self, slot: SlotId) -> SlotId:
        if not 0 <= slot < len(self._lengths):
            raise ValueError(f"slot {slot} is not in 0 <= slot < {len(self._lengths)}")
        return slot

    def _used(self, slot: SlotId) -> SlotId:
        if self._lengths[self._checked(slot)] == 0:
            raise ValueError(f"slot {slot} is empty")
        return slot


def _address(data: Memory) -> object:
    return ctypes.cast(data.ctypes.data, ctypes.POINTER(ctypes.c_uint8))


def _scratch(n_bytes: int) -> Memory:
    """Memory for a moment. It comes from the heap, where it has been used before."""
    return np.empty(n_bytes, np.uint8)


def _kept(n_bytes: int) -> Memory:
    """Memory for long: a mapping of its own, which the system has back in whole when it is freed,
    however many such states come and go. numpy would ask for huge pages too, and for 6 MB of those
    the first time takes 10 ms instead of 2.3."""
    if n_bytes < _MAPPED_FROM:
        return np.empty(n_bytes, np.uint8)
    try:
        mapping = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"{n_bytes} bytes for a slot's state: {error}") from error
    return np.frombuffer(mapping, np.uint8)
