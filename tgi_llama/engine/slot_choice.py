"""Which slot a sequence gets, and which it moves to.

In the streams layout sequences that are computed together should have consecutive slots: each gap
costs a physical batch more. While all that run have one adapter, a slot next to the busy ones is
taken, and where a sequence has ended between others that go on, the highest one moves into its
place. With several adapters ``engine/slot_order.py`` knows better places.
"""

import attrs

from tgi_llama.engine import slot_order
from tgi_llama.engine.kv_cache import KvPlan, SlotPool
from tgi_llama.engine.model_runner import SlotId
from tgi_llama.engine.prefix_cache import PrefixCache, Resident, Source
from tgi_llama.engine.scheduler import Scheduler
from tgi_llama.engine.sequence import Phase, Sequence
from tgi_llama.engine.slot_cells import SlotCells
from tgi_llama.engine.slot_order import Move, Owners
from tgi_llama.generation import AdapterId

_WORTH_MOVING = 8
"""Tokens that a sequence may still generate for a move to another slot to pay: a copy takes 0.1 to
1.6 ms, a gap 30 to 40 ms of each step (docs/engine.md), so a few are enough."""


@attrs.define(eq=False)
class SlotChoice:
    """Decode thread only."""

    plan: KvPlan
    scheduler: Scheduler
    cache: PrefixCache
    cells: SlotCells

    @property
    def _slots(self) -> SlotPool:
        return self.cells.slots

    def choose(self, sequence: Sequence, source: Source | None) -> SlotId:
        """The slot for a sequence that takes its beginning from there: the source itself where
        nothing of it would be lost, else an empty one, else the one that was used longest ago."""
        donor = source.slot if isinstance(source, Resident) else None
        places = self._places(sequence, donor)
        idle = [slot for slot in self._slots.idle_slots() if slot in places]
        if donor is not None and donor in idle and self._is_wholly(source, donor):
            return donor
        empty = next((slot for slot in places if self._slots.is_empty(slot)), None)
        if empty is not None:
            return empty
        return next((slot for slot in idle if slot != donor), idle[0])

    def close_gap(self) -> bool:
        """Streams layout: moves a sequence where one has ended, so that those that are computed
        together stand together. False when there is nothing to move."""
        if not self._has_groups():
            return self._close_gap_of_all()
        owners, movable = self._owners(), self._movable()
        move = slot_order.closing_move(owners, self._slots.available(), tuple(movable))
        return move is not None and self._move(movable[move.source], move)

    def _places(self, sequence: Sequence, donor: SlotId | None) -> tuple[SlotId, ...]:
        if self.plan.unified:
            return self._slots.available()
        adapter = sequence.request.adapter
        if not self._has_groups(adapter):
            return self._slots.adjoining()
        owners, movable, free = self._owners(), self._movable(), self._slots.available()
        # Of its own group nobody need move: the newcomer could have that place. So what it is to
        # copy, which has its adapter, stays where it is; and where it is idle nobody moves there.
        others = tuple(slot for slot in movable if owners[slot] != adapter)
        targets = [slot for slot in free if slot != donor]
        move = slot_order.move_for(owners, adapter, targets, others) if targets else None
        if move is not None and self._move(movable[move.source], move):
            return (move.source,)
        return slot_order.best_places(owners, adapter, free)

    def _has_groups(self, *adapters: AdapterId | None) -> bool:
        """Whether those that run, and one with that adapter, have different ones."""
        groups = self.scheduler.groups
        if len(groups) > 1:
            return True
        return bool(adapters) and len(groups) == 1 and adapters[0] not in groups

    def _owners(self) -> Owners:
        return {_slot_of(each): each.request.adapter for each in self.scheduler.running()}

    def _movable(self) -> dict[SlotId, Sequence]:
        """Those for whom a move pays."""
        running = {_slot_of(each): each for each in self.scheduler.running()}
        return {slot: each for slot, each in running.items() if _is_worth_moving(each)}

    def _close_gap_of_all(self) -> bool:
        target = next(iter(self._slots.gaps()), None)
        if target is None:
            return False
        highest = max(self.scheduler.running(), key=_slot_of)
        if not _is_worth_moving(highest):
            return False
        return self._move(highest, Move(_slot_of(highest), target))

    def _move(self, sequence: Sequence, move: Move) -> bool:
        """False, with nothing moved, when this memory cannot do it."""
        if not self.cells.move(move.source, move.target):
            return False
        self._slots.take(move.target)
        self.scheduler.move(sequence, move.target)
        self.cache.own(move.target, sequence)
        self.cells.empty(move.source)
        return True

    def _is_wholly(self, source: Source | None, donor: SlotId) -> bool:
        """Whether nothing that the donor holds is lost when the sequence takes it over."""
        return source is not None and source.length == self.cells.ledger.length(donor)


def _is_worth_moving(sequence: Sequence) -> bool:
    n_to_come = sequence.request.stopping.max_new_tokens - sequence.n_generated
    return sequence.phase is Phase.DECODE and n_to_come >= _WORTH_MOVING


def _slot_of(sequence: Sequence) -> SlotId:
    assert sequence.slot is not None
    return sequence.slot
