"""The cells in the slots: fetched, saved and given up, in llama.cpp and in the books at once.

``Placement`` decides; what it decides is done here. Between decodes only, on the decode thread.
"""

import logging
from collections.abc import Callable
from time import perf_counter

import attrs

from tgi_llama.engine.cell_ledger import CellLedger
from tgi_llama.engine.cell_limit import CellLimit
from tgi_llama.engine.host_cache import HostCache, HostEntry
from tgi_llama.engine.kv_cache import KvPlan, SlotPool
from tgi_llama.engine.model_runner import ModelRunner, SavedState, SlotId
from tgi_llama.engine.prefix_cache import PrefixCache, Resident, Stored
from tgi_llama.generation import TokenId

_log = logging.getLogger(__name__)

_SHARE_WORTH_SAVING = 0.1
"""A state is saved whole, so one of which most is known elsewhere is not worth its bytes."""

_FIRST_GUESS_BYTES_PER_S = 1e9
"""How fast cells are saved, until that has been measured."""

_FIRST_GUESS_S = 0.1
"""So much saving the guess counts for: one hiccup with a small state must not make all saving seem
too slow, for then it would not be measured again."""

_SPARE_BYTES = 64 * 2**20
"""Host memory that stays free beside what is saved whatever the limit: other parts of the server
need some too, and where there is none the system ends the process instead of refusing."""

_FADING = 0.9
"""How much each saving makes those before count less."""


@attrs.define(eq=False, kw_only=True)
class SlotCells:
    """What each slot holds."""

    runner: ModelRunner
    plan: KvPlan
    limit: CellLimit
    cache: PrefixCache
    patience_s: Callable[[], float | None]
    """How long the running streams may be held up now; None where there are none."""
    free_bytes: Callable[[], int]
    """Host memory that can be had now."""
    slots: SlotPool = attrs.field(init=False)
    ledger: CellLedger = attrs.field(init=False)
    _saved_bytes: float = attrs.field(default=_FIRST_GUESS_BYTES_PER_S * _FIRST_GUESS_S, init=False)
    _saving_s: float = attrs.field(default=_FIRST_GUESS_S, init=False)
    """What that took."""

    def __attrs_post_init__(self) -> None:
        self.slots = SlotPool(self.plan.n_slots)
        self.ledger = CellLedger(shared=self.plan.unified)

    @property
    def host(self) -> HostCache:
        return self.cache.host

    @property
    def n_busy(self) -> int:
        """Cells of busy slots, each counted once."""
        return self.ledger.n_used_by(self.slots.busy)

    # In

    def fetch(self, slot: SlotId, source: Resident | Stored) -> int:
        """Brings the source's cells into the slot, which is empty or the source itself. Returns how
        many there are now: all, or none after a failure."""
        is_there = self._restore(slot, source) if isinstance(source, Stored) else False
        if isinstance(source, Resident):
            is_there = self._take_from(source, slot)
        if not is_there:
            self.clear(slot)
            return 0
        return source.length

    def restore(self, slot: SlotId, entry: HostEntry) -> int:
        """Fills the empty slot with all that was saved. Returns how many cells there are now."""
        return self.fetch(slot, Stored(entry, entry.state.length))

    def move(self, source: SlotId, target: SlotId) -> bool:
        """Puts the cells of one slot into another, which is not busy. False, with nothing moved,
        when this memory cannot do it."""
        if self.slots.is_idle(target):
            self.make_way(target)
        length = self.ledger.length(source)
        if not self.runner.copy(source, target, length):
            return False
        self.ledger.share(source, target, length)
        self.clear(source)
        return True

    def make_way(self, slot: SlotId) -> None:
        """Empties an idle slot that somebody else is to have. What it holds moves to an empty slot
        where there is one, else to host memory."""
        if self.relocate(slot) is None:
            self.evict(slot)

    def relocate(self, slot: SlotId) -> SlotId | None:
        """Moves what an idle slot holds to an empty one. None, with nothing moved, where there is
        none, or where this memory cannot do it."""
        refuge = self.slots.an_empty()
        if refuge is None or not self.move(slot, refuge):
            return None
        self.cache.relocate(slot, refuge)
        self.slots.relocate(slot, refuge)
        return refuge

    def _take_from(self, source: Resident, slot: SlotId) -> bool:
        if source.slot == slot:
            self.ledger.truncate(slot, source.length)
            return self.runner.truncate(slot, source.length)
        if not self.runner.copy(source.slot, slot, source.length):
            return False
        self.ledger.share(source.slot, slot, source.length)
        if self.slots.is_idle(source.slot):
            if source.length == self.cache.n_tokens(source.slot):
                self.empty(source.slot)  # the new owner holds all of it
            else:
                self.slots.touch(source.slot)
        return True

    def _restore(self, slot: SlotId, source: Stored) -> bool:
        entry = source.entry
        with self.host.pinned(entry):
            if self.plan.unified and self.n_busy + entry.state.length > self.limit.n_cells:
                return False
            while not self.runner.restore(slot, entry.state):
                idle = [each for each in self.slots.idle_slots() if each != slot]
                if not idle or not self.plan.unified:
                    return False
                self.evict(idle[0])
            self.host.touch(entry)
        self.ledger.extend(slot, entry.state.length)
        if source.length == entry.state.length:
            return True
        self.ledger.truncate(slot, source.length)
        return self.runner.truncate(slot, source.length)

    # Out

    def evict(self, slot: SlotId) -> None:
        """Empties an idle slot, and saves what nobody else has."""
        self.save(slot, self.ledger.length(slot))
        self.empty(slot)

    def save(self, slot: SlotId, length: int, *, n_kept: int = 0) -> None:
        """Puts the slot's cells, which are ``length``, into host memory, if there is room and they
        are worth it. The first ``n_kept`` stay in the slot anyway."""
        if self.host.limit_bytes == 0 or length < self.cache.fewest_reused:
            return
        n_lost = length - max(n_kept, self.cache.n_known_elsewhere(slot, length))
        if n_lost < max(self.cache.fewest_reused, length * _SHARE_WORTH_SAVING):
            return
        n_bytes = self.runner.saved_size(slot)
        if self._takes_too_long(n_bytes) or not self.host.make_room(n_bytes, n_tokens=length):
            return
        state = self._state_of(slot)
        if state is not None:
            self.cache.store(slot, self.host.add(self.cache.tokens(slot)[:length], state))

    def save_reserved(self, slot: SlotId, tokens: tuple[TokenId, ...]) -> HostEntry | None:
        """Saves all that the slot holds, whatever the limit. None where there is no memory."""
        n_bytes = self.runner.saved_size(slot)
        self.host.make_room(n_bytes, n_tokens=len(tokens), reserved=True)
        if self.free_bytes() < n_bytes + _SPARE_BYTES:
            _log.warning("too little memory to save the %d cells of a slot", len(tokens))
            return None
        state = self._state_of(slot)
        return None if state is None else self.host.add_reserved(tokens, state)

    def empty(self, slot: SlotId) -> None:
        """Nobody has the slot any more, and there is nothing in it."""
        self.clear(slot)
        self.cache.forget(slot)
        self.slots.release(slot)

    def clear(self, slot: SlotId) -> None:
        """Frees the cells; the slot stays whose it is."""
        self.runner.clear(slot)
        self.ledger.clear(slot)

    def _state_of(self, slot: SlotId) -> SavedState | None:
        started = perf_counter()
        try:
            state = self.runner.save(slot)
        except MemoryError:
            _log.warning("no memory to save the %d cells of a slot", self.ledger.length(slot))
            return None
        if state is None:
            _log.warning("llama.cpp could not save the cells of slot %d", slot)
            return None
        self._saved_bytes = self._saved_bytes * _FADING + state.n_bytes
        self._saving_s = self._saving_s * _FADING + perf_counter() - started
        return state

    def _takes_too_long(self, n_bytes: int) -> bool:
        patience_s = self.patience_s()
        seconds = n_bytes / self._saved_bytes * self._saving_s
        return patience_s is not None and seconds > patience_s
