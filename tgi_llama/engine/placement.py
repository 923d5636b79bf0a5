"""Gives sequences their slots, with what is computed already, and takes cells back when needed.

Theory of operation
-------------------
``PrefixCache`` says where a prompt's beginning can come from, ``SlotPool`` which slots there are,
``CellLedger`` how many cells are in use, and ``HostCache`` what is saved. This module decides who
gets what of it, and has ``SlotCells`` move the cells; it is called between decodes.

A sequence that gets a slot takes over what an idle slot holds, has it copied from another slot, has
a saved state restored, or waits until another sequence has computed it. When it ends, its slot
stays idle with all its cells. Idle slots give way to whoever needs a slot or cells, the one that
was used longest ago first, and their cells go to host memory where there is room for them.

In the streams layout sequences that run together must have consecutive slots: each gap in the ids
costs a physical batch more, and so a pass over the weights. So a slot next to the busy ones is
taken, and a beginning that lies elsewhere is copied there; and where a sequence has ended between
others that go on, another moves into its place (``engine/slot_choice.py``). What an idle slot holds
that is in the way moves to an empty one, if there is any.

In the unified layout slots cost nothing, but cells are shared, and more may be promised than there
are. A sequence starts as soon as there is room for its known tokens and a little growth. While the
first in the queue waits for that, a few smaller ones may pass it. When the next step does not fit,
idle slots go first; then the newest sequence is saved to host memory, goes back to its place in the
queue, and goes on later from where it was. The oldest is never taken, so somebody always finishes,
and then there is room for the others.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from time import perf_counter

import attrs

from tgi_llama.engine.batch import StepPlan
from tgi_llama.engine.cell_ledger import CellLedger
from tgi_llama.engine.cell_limit import CellLimit
from tgi_llama.engine.checkpoints import checkpoints
from tgi_llama.engine.host_cache import HostCache, HostEntry
from tgi_llama.engine.kv_cache import KvPlan, SlotPool
from tgi_llama.engine.model_runner import ModelRunner, SlotId
from tgi_llama.engine.placement_log import PlacementLog
from tgi_llama.engine.prefix_cache import (
    Finding,
    Pending,
    PrefixCache,
    Resident,
    Source,
    Stored,
)
from tgi_llama.engine.scheduler import Scheduler
from tgi_llama.engine.sequence import Phase, Sequence, age
from tgi_llama.engine.slot_cells import SlotCells
from tgi_llama.engine.slot_choice import SlotChoice
from tgi_llama.generation import AdapterId, CacheOutcome, TokenId

_log = logging.getLogger(__name__)

_GROWTH = 16
"""Free cells that a sequence must find beyond its known tokens, for itself and for each other one
that runs, before it starts in the unified layout: otherwise it might have to leave at once."""

_MOST_LOOKUPS = 4
"""So many that have more tokens than there are free cells are looked up at a time, because others
may have computed most of them: a look-up goes through all tokens."""


@attrs.define(eq=False, kw_only=True)
class Placement:
    """Who is in which slot. Decode thread only."""

    runner: ModelRunner
    plan: KvPlan
    scheduler: Scheduler
    cache: PrefixCache
    ends_turn: Callable[[TokenId], bool]
    """Whether a message of a chat ends with this token."""
    free_bytes: Callable[[], int]
    """Host memory that can be had now."""
    cells: SlotCells = attrs.field(init=False)
    choice: SlotChoice = attrs.field(init=False)
    log: PlacementLog = attrs.field(init=False)
    limit: CellLimit = attrs.field(init=False)
    """Of all slots together, in the unified layout."""
    _is_short: bool = attrs.field(default=False, init=False)
    """llama.cpp has refused a batch for want of cells, and none has worked since."""
    _n_moves_known: int = attrs.field(default=-1, init=False)
    """``Scheduler.n_moves`` when nobody could pass the head."""

    def __attrs_post_init__(self) -> None:
        self.limit = CellLimit(self.plan.n_cells)
        self.cells = SlotCells(
            runner=self.runner,
            plan=self.plan,
            limit=self.limit,
            cache=self.cache,
            patience_s=self._patience_s,
            free_bytes=self.free_bytes,
        )
        self.choice = SlotChoice(self.plan, self.scheduler, self.cache, self.cells)
        self.log = PlacementLog(self.cells)

    @property
    def host(self) -> HostCache:
        return self.cache.host

    @property
    def slots(self) -> SlotPool:
        return self.cells.slots

    @property
    def ledger(self) -> CellLedger:
        return self.cells.ledger

    # Between two steps

    def plan_step(self) -> StepPlan:
        """Settles, and plans a step that finds its cells. What saving, restoring and copying have
        taken since the last plan is counted against the prompts' part of it."""
        self.settle()
        plan = self.make_room(self.scheduler.schedule(spent_s=self.cells.spent_s))
        self.cells.spent_s = 0.0
        return plan

    def save_ahead(self) -> bool:
        """For when nobody runs: see ``SlotCells.save_ahead``. Streams leave the less of a step the
        more they are, where it has a fixed target."""
        spare_s = self.scheduler.current_budget.spare_s
        is_more = self.cells.save_ahead(min(spare_s(1), spare_s(self.plan.n_sequences)))
        self.cells.spent_s = 0.0
        self.log.has_changed = True
        return is_more

    def settle(self) -> None:
        """Lets those go on that waited for another's cells, and gives slots to the queue, for as
        long as running streams may be held up."""
        if not self.scheduler.has_news:
            return
        self.log.has_changed = True
        self._follow_leaders()
        if self._is_short and self.scheduler.n_running > 0:
            return
        patience_s, started = self._patience_s(), perf_counter()
        while self._place_one():
            if patience_s is not None and perf_counter() - started > patience_s:
                break
        if self.plan.unified:
            self._trim_idle()
        else:
            while self.choice.close_gap():
                pass

    def _trim_idle(self) -> None:
        """Unified layout: everybody's attention passes over idle cells, so while sequences run
        there may be only so many."""
        while (
            self.scheduler.n_running > 0
            and self.slots.n_idle > 0
            and self.ledger.n_used - self.cells.n_busy > self.plan.max_idle_cells
        ):
            self.cells.evict(self.slots.idle_slots()[0])

    def out_of_cells(self, n_tokens: int) -> bool:
        """llama.cpp has fewer cells than the books say, and has refused a batch of ``n_tokens``.
        Makes somebody give way, and lets nobody in before a step has worked, for he might want the
        same cells. False when there is nobody."""
        self._is_short = True
        self.limit.refused(self.ledger.n_used, n_tokens)
        return self.relieve()

    def make_room(self, plan: StepPlan) -> StepPlan:
        """Sees to it that the step finds free cells, and returns it, or a smaller one."""
        while (
            self.plan.unified
            and self.ledger.n_used + plan.n_tokens > self.limit.n_cells
            and self.relieve()
        ):
            plan = self.scheduler.schedule(again=True, spent_s=self.cells.spent_s)
        return plan

    def relieve(self) -> bool:
        """Makes somebody give way: an idle slot, or the newest sequence if it is not the only one
        that has or wants cells. False when there is nobody."""
        idle = self.slots.idle_slots()
        if idle:
            self.cells.evict(idle[0])
            return True
        rivals = [each for each in self.scheduler.running() if each.phase is not Phase.WAITING]
        if len(rivals) < 2:
            return False
        self._preempt(max(rivals, key=age))
        return True

    def computed(self, sequence: Sequence, n_tokens: int) -> None:
        """The sequence has that many cells more."""
        slot = _slot_of(sequence)
        self.ledger.extend(slot, n_tokens)
        if sequence.checkpoints and sequence.n_cached in sequence.checkpoints:
            self.cells.save(slot, sequence.n_cached)

    def step_worked(self) -> None:
        """All cells of a step are computed."""
        self._is_short = False
        self.limit.worked(self.ledger.n_used)

    def rewind(self, sequence: Sequence) -> None:
        """Cuts off what a decode that was broken off may have added. Where that cannot be done, the
        sequence starts over from its tokens."""
        if not self.runner.truncate(_slot_of(sequence), sequence.n_cached):
            self._start_over(sequence)

    def drop_last(self, sequence: Sequence, n_kept: int) -> bool:
        """Cuts off the last token that a decode has just computed, before it is counted: behind the
        counted ones ``n_kept`` stay. False where that cannot be done."""
        return self.runner.truncate(_slot_of(sequence), sequence.n_cached + n_kept)

    def reconcile(self) -> None:
        """After a decode that failed midway: drops what is not what it was. Memories that cannot be
        cut may have lost the cells of slots that took no part, too."""
        for sequence in self.scheduler.running():
            if self.runner.length(_slot_of(sequence)) != sequence.n_cached:
                self._start_over(sequence)
        for slot in self.slots.idle_slots():
            if self.runner.length(slot) != self.ledger.length(slot):
                self.cells.empty(slot)

    def _start_over(self, sequence: Sequence) -> None:
        self.cells.clear(_slot_of(sequence))
        self.scheduler.start_over(sequence)

    def release(self, sequence: Sequence, *, cells_known: bool = True) -> None:
        """The sequence has ended. Its slot becomes idle, or empty where its cells are of no use."""
        slot, length = sequence.slot, sequence.n_cached
        self.log.has_changed = True
        self.scheduler.finish(sequence)
        sequence.leader = None
        if sequence.saved is not None:
            self.host.remove(sequence.saved)
            sequence.saved = None
        if slot is None:
            return
        if not cells_known or length < self.cache.fewest_reused or not self.cache.is_enabled:
            self.cells.empty(slot)
            return
        self.cache.retire(slot, length)
        self.cells.retire(slot)

    def forget_adapter(self, adapter: AdapterId) -> None:
        """Frees all cells that were computed with an adapter that no unfinished sequence has: idle
        slots and saved states."""
        self.log.has_changed = True
        for holder in self.cache.holders(adapter):
            if isinstance(holder, HostEntry):
                self.cache.drop(holder)
            else:
                self.cells.empty(holder)

    # Slots

    def _place_one(self) -> bool:
        """Gives the head of the queue a slot, or one that may pass it. False when all have to
        wait."""
        head = self.scheduler.head
        return head is not None and (self._place(head) or self._place_passer())

    def _place_passer(self) -> bool:
        """Unified layout: the head may wait for more cells than others need. Nobody is asked again
        before somebody has come or gone. False when there is nobody."""
        is_known = self._n_moves_known == self.scheduler.n_moves
        if not self.plan.unified or is_known or self.slots.n_busy >= self.plan.n_sequences:
            return False
        n_free, n_lookups = self._n_free(), 0
        for sequence in self.scheduler.passers():
            if len(sequence.tokens) > n_free:  # but for what it may share with those that run
                n_lookups += 1
                if sequence.saved is not None or n_lookups > _MOST_LOOKUPS:
                    continue
            if self._place(sequence):
                return True
        self._n_moves_known = self.scheduler.n_moves
        return False

    def _place(self, sequence: Sequence) -> bool:
        """Gives a queued sequence a slot. False when it has to wait."""
        if self.slots.n_busy >= self.plan.n_sequences:
            return False
        if sequence.saved is not None:
            return self._resume(sequence, sequence.saved)
        finding = self.cache.find(sequence)
        if not self._fits(sequence, finding.source):
            return False
        with self._held(finding.source):
            source = self._start(sequence, finding.source)
            self._attach(sequence, attrs.evolve(finding, source=source))
        self.cache.own(_slot_of(sequence), sequence)
        self.log.n_joined += not sequence.has_joined
        sequence.has_joined = True
        return True

    def _resume(self, sequence: Sequence, entry: HostEntry) -> bool:
        """Goes on with a sequence that had to leave from its saved cells, or, where they cannot be
        restored, from its tokens and what others have of them. False when it has to wait."""
        if not self._fits(sequence, None):
            return False
        self._start(sequence, None)
        slot = _slot_of(sequence)
        sequence.n_cached = self.cells.restore(slot, entry)
        sequence.saved = None
        self.host.remove(entry)
        if sequence.n_cached == 0:
            self._attach(sequence, self.cache.find(sequence))
        if sequence.n_left == 1 and sequence.n_generated > 0:
            sequence.phase = Phase.DECODE
        self.cache.own(slot, sequence)
        return True

    @contextlib.contextmanager
    def _held(self, source: Source | None) -> Iterator[None]:
        """Keeps what is to be restored from being evicted for what is saved meanwhile."""
        if isinstance(source, Stored):
            with self.host.pinned(source.entry):
                yield
        else:
            yield

    def _start(self, sequence: Sequence, source: Source | None) -> Source | None:
        """Gives the sequence its slot. Returns where the source is now: it may have moved."""
        slot = self.choice.choose(sequence, source)
        if self.slots.is_idle(slot):
            if isinstance(source, Resident) and source.slot == slot:
                source = self._spare(source)
            else:
                self.cells.make_way(slot)
        self.slots.take(slot)
        self.scheduler.start(sequence, slot)
        if not self.cache.can_cut and self.host.limit_bytes > 0:
            sequence.checkpoints = checkpoints(
                sequence.request.prompt_ids, self.ends_turn, fewest=self.cache.fewest_reused
            )
        return source

    def _spare(self, source: Resident) -> Resident:
        """The source is the slot that is taken. What it holds beyond the beginning goes with it to
        an empty slot, or else to host memory. Returns where the source is now."""
        length = self.ledger.length(source.slot)
        if length - source.length >= self.cache.fewest_reused:
            refuge = self.cells.relocate(source.slot)
            if refuge is not None:
                return Resident(refuge, source.length)
            self.cells.save(source.slot, length, n_kept=source.length)
        return source

    def _fits(self, sequence: Sequence, source: Source | None) -> bool:
        """Whether there are cells for the sequence to start with, the idle ones included."""
        if not self.plan.unified or self.scheduler.n_running == 0:
            return True
        is_shared = isinstance(source, Pending) or (
            isinstance(source, Resident) and not self.slots.is_idle(source.slot)
        )
        n_wanted = len(sequence.tokens) - (source.length if is_shared and source else 0)
        return n_wanted <= self._n_free()

    def _n_free(self) -> int:
        """Unified layout: cells that are neither in use nor promised to prompts nor wanted for
        growth, once one sequence more runs. Idle ones are free."""
        n_promised = sum(
            each.n_left - each.join_at
            for each in self.scheduler.running()
            if each.phase is not Phase.DECODE
        )
        n_growth = _GROWTH * (self.scheduler.n_running + 1)
        return self.limit.n_cells - self.cells.n_busy - n_promised - n_growth

    # Beginnings from elsewhere

    def _attach(self, sequence: Sequence, finding: Finding) -> None:
        """Gives a sequence with a slot what was found for it."""
        slot, source = _slot_of(sequence), finding.source
        sequence.leader, sequence.join_at, sequence.n_cached = None, 0, 0
        if isinstance(source, Pending):
            sequence.phase = Phase.WAITING
            sequence.leader, sequence.join_at = source.leader, source.length
            return
        sequence.phase = Phase.PREFILL
        outcome = finding.outcome
        length = self.cells.fetch(slot, source) if source is not None else 0
        if source is not None and length == 0:
            outcome = CacheOutcome.FAILED
        sequence.n_cached = length
        if not sequence.was_preempted:
            sequence.n_reused = length
            self.log.outcomes.append((outcome, length))

    def _follow_leaders(self) -> None:
        """Lets those go on that wait for others' cells, where these are there or will not be. Each
        once, and whom it waits for first: with the next step that one may be past the place, and
        cannot be cut."""
        waiting = {each: None for each in self.scheduler.running() if each.phase is Phase.WAITING}
        while waiting:
            chain = [next(iter(waiting))]
            del waiting[chain[-1]]
            while (leader := chain[-1].leader) is not None and leader in waiting:
                del waiting[leader]
                chain.append(leader)
            for sequence in reversed(chain):
                self._follow(sequence)

    def _follow(self, sequence: Sequence) -> None:
        """Lets a sequence that waits go on, if its leader has got there or will not."""
        leader = sequence.leader
        assert leader is not None
        if leader.phase is Phase.WAITING or (
            leader.phase is Phase.PREFILL and leader.n_cached < sequence.join_at
        ):
            return
        self._attach(sequence, self.cache.find(sequence))
        is_counted = sequence.n_reused > 0 and not sequence.was_preempted
        if sequence.phase is Phase.PREFILL and is_counted:
            sequence.started = max(sequence.submitted, leader.started)

    # Who gives way

    def _preempt(self, sequence: Sequence) -> None:
        """Takes slot and cells from a running sequence, which goes on later."""
        slot = _slot_of(sequence)
        _log.debug("request %d gives its cells up for older ones", sequence.request_id)
        if sequence.n_cached > 0:  # without its cells it will compute its tokens again
            tokens = tuple(sequence.tokens[: sequence.n_cached])
            sequence.saved = self.cells.save_reserved(slot, tokens)
        sequence.was_preempted = True
        self.scheduler.requeue(sequence)
        self.cells.empty(slot)
        self.log.n_preempted += 1

    def _patience_s(self) -> float | None:
        """How long those that decode may be held up now; None where there are none. What is moved
        between steps holds all of them up, whosever turn it is."""
        phases = [each.phase for each in self.scheduler.running()]
        n_decode, n_prompts = phases.count(Phase.DECODE), phases.count(Phase.PREFILL)
        budget = self.scheduler.current_budget
        return budget.spare_s(n_decode, n_prompts=n_prompts) if n_decode else None


def _slot_of(sequence: Sequence) -> SlotId:
    assert sequence.slot is not None
    return sequence.slot
