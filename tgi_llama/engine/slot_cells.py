"""The cells in the slots: fetched, saved and given up, in llama.cpp and in the books at once.

``Placement`` decides; what it decides is done here. Between decodes only, on the decode thread.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
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

_LONGEST_AHEAD_S = 0.5
"""A state that would take longer is not saved while nobody runs either, because whoever comes
meanwhile waits for it: llama.cpp saves a state in one piece. At 2.3 GB/s that is 1.2 GB."""

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
    """How long a step may hold up the running streams beside decoding; None where there are
    none."""
    free_bytes: Callable[[], int]
    """Host memory that can be had now."""
    slots: SlotPool = attrs.field(init=False)
    ledger: CellLedger = attrs.field(init=False)
    spent_s: float = attrs.field(default=0.0, init=False)
    """What moving cells has taken since somebody set this to 0: once a step."""
    _unsaved: dict[SlotId, None] = attrs.field(factory=dict, init=False)
    """Slots that have become idle and were not looked at by ``save_ahead``; some are so no more."""
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
        if not self._copy(source, target, length):
            return False
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
        if slot in self._unsaved:
            self._unsaved = {refuge if s == slot else s: None for s in self._unsaved}
        return refuge

    def _take_from(self, source: Resident, slot: SlotId) -> bool:
        if source.slot == slot:
            self.ledger.truncate(slot, source.length)
            return self.runner.truncate(slot, source.length)
        if not self._copy(source.slot, slot, source.length):
            return False
        if self.slots.is_idle(source.slot):
            if source.length == self.cache.n_tokens(source.slot):
                self.empty(source.slot)  # the new owner holds all of it
            else:
                self.slots.touch(source.slot)
        return True

    def _copy(self, source: SlotId, target: SlotId, length: int) -> bool:
        with self._timed():
            is_there = self.runner.copy(source, target, length)
        if is_there:
            self.ledger.share(source, target, length)
        return is_there

    def _restore(self, slot: SlotId, source: Stored) -> bool:
        entry = source.entry
        with self.host.pinned(entry):
            if self.plan.unified and self.n_busy + entry.state.length > self.limit.n_cells:
                return False
            while not self._is_restored(slot, entry):
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

    def _is_restored(self, slot: SlotId, entry: HostEntry) -> bool:
        with self._timed():
            return self.runner.restore(slot, entry.state)

    # Out

    def retire(self, slot: SlotId) -> None:
        """The slot's sequence has ended, and its cells stay."""
        self.slots.retire(slot)
        self._unsaved[slot] = None

    def evict(self, slot: SlotId) -> None:
        """Empties an idle slot, and saves what nobody else has."""
        self.save(slot, self.ledger.length(slot))
        self.empty(slot)

    def save(self, slot: SlotId, length: int, *, n_kept: int = 0) -> None:
        """Puts the slot's cells, which are ``length``, into host memory, if there is room and they
        are worth it. The first ``n_kept`` stay in the slot anyway."""
        if self._is_worth_saving(slot, length, n_kept=n_kept):
            n_bytes = self.runner.saved_size(slot)
            if not self._takes_too_long(n_bytes):
                self._save(slot, length, n_bytes)

    def save_ahead(self, beside_s: float) -> bool:
        """Looks at one idle slot, and saves it if it is worth that and would take longer than
        ``beside_s``, the time that there is beside streams: when its place is needed it may be too
        late. False when there is none left to look at. To be called while nobody runs."""
        slot = next(iter(self._unsaved), None)
        if slot is None:
            return False
        del self._unsaved[slot]
        length = self.ledger.length(slot)
        if self.slots.is_idle(slot) and self._is_worth_saving(slot, length):
            n_bytes = self.runner.saved_size(slot)
            if beside_s < self._seconds(n_bytes) <= _LONGEST_AHEAD_S:
                self._save(slot, length, n_bytes)
        return True

    def _is_worth_saving(self, slot: SlotId, length: int, *, n_kept: int = 0) -> bool:
        if self.host.limit_bytes == 0 or length < self.cache.fewest_reused:
            return False
        n_lost = length - max(n_kept, self.cache.n_known_elsewhere(slot, length))
        return n_lost >= max(self.cache.fewest_reused, length * _SHARE_WORTH_SAVING)

    def _save(self, slot: SlotId, length: int, n_bytes: int) -> None:
        if not self.host.make_room(n_bytes, n_tokens=length):
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
        seconds = perf_counter() - started
        self._saved_bytes = self._saved_bytes * _FADING + state.n_bytes
        self._saving_s = self._saving_s * _FADING + seconds
        self.spent_s += seconds
        return state

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        started = perf_counter()
        yield
        self.spent_s += perf_counter() - started

    def _seconds(self, n_bytes: int) -> float:
        """How long saving so much will take."""
        return n_bytes / self._saved_bytes * self._saving_s

    def _takes_too_long(self, n_bytes: int) -> bool:
        patience_s = self.patience_s()
        return patience_s is not None and self._seconds(n_bytes) > patience_s - self.spent_s
