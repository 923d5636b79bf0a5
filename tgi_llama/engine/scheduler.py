"""Which sequence gets what share of the next step. Pure state: no clock, no threads, no model.

Theory of operation
-------------------
A submitted sequence waits in a queue (first come, first served, but for what
``engine/waiting_queue.py`` says) until ``engine/placement.py`` finds a slot for it. From then on
every step serves it: a running sequence decodes one token, a new one has a chunk of its prompt
computed. What prompts may add to a step is a budget of measured milliseconds
(``engine/prefill_budget.py``), because every running stream waits for the whole step;
``max_prefill_tokens`` caps it. Where nobody decodes there is a bound as well, because whoever comes
next waits for the step too; only a prompt that has been alone for a few steps has whole batches.

While more prompts are about to be done than sequences decode, the latter are held up for a few
steps, and for ``_MOST_HELD_TARGETS`` times their target at most: most of those who wait then wait
for the prompts, and a decode costs nearly the same for one sequence as for many. So a burst of
requests soon decodes together, and nearly as fast as if all prompts had come in one batch; but the
first are answered long before the last.

Among prompts, the one with the fewest tokens left goes first, so that short ones pass long ones.
Every ``_TURNS``-th turn belongs to the one that has been running longest, so that none starves: a
prompt of n chunks is done after ``_TURNS + _MOST_HELD`` times n steps with prompts at most. A
prompt that others wait for counts as what is left to the nearest of them. Turns are not split: in
the streams layout each part of another length costs a physical batch of its own.

A prompt whose logprobs are wanted needs a row of logits per token, and the runner has rows for
every sequence and some more. Such prompts come in chunks that leave everybody else a row.

What a grammar forces a sequence to say next is known before it is computed: such a sequence may
decode several tokens in a step (``leaps``).

llama.cpp computes a decode with one LoRA adapter, so a step serves the sequences of one. Who has
his turn when is the business of ``engine/adapter_groups.py``; all of the above is about the group
whose turn it is. Where there are several, the first step of a turn always serves those that decode:
they have waited already. What steps cost is learned apart for the model alone and for adapters,
which make them longer.

A sequence that ends gives slot and cells back before the next step is planned, so a waiting request
joins at the very next step (continuous batching).
"""

from collections.abc import Iterator

import attrs

from tgi_llama.engine.adapter_groups import AdapterGroups, Group
from tgi_llama.engine.batch import Chunk, StepPlan
from tgi_llama.engine.leaps import Room, with_leaps
from tgi_llama.engine.model_runner import SlotId
from tgi_llama.engine.prefill_budget import StepBudget
from tgi_llama.engine.sequence import Phase, Sequence
from tgi_llama.engine.waiting_queue import WaitingQueue
from tgi_llama.generation import AdapterId, RequestId, TokenId

_TURNS = 4
"""Every so many turns one belongs to the prompt that has been running longest."""

_FEWEST_TOKENS = 8
"""Less of a budget that is left after one prompt is not worth a chunk of another, nor is less than
half of it, unless that finishes the other: in the streams layout each part of another length is a
physical batch of its own."""

_LONG = 4
"""A prompt that needs more than so many steps does not share one with others, whose clients would
wait for it."""

_SMALL_REST = 0.25
"""A rest of a prompt beyond the budget, but at most this share of it, is computed as well: a step
of its own would cost more."""

_SMALL_REST_BESIDE = 0.1
"""The same where streams wait for the step."""

_MOST_HELD = 8
"""After so many steps without them, sequences that decode have their turn."""

_MOST_HELD_TARGETS = 4
"""... and after so many times what a step beside them may take: the longest wait between two tokens
is that, and the step that decodes."""

_ALONE_AFTER = 2
"""A prompt that has been the only one for more than so many steps is computed in whole batches."""


@attrs.define(eq=False, kw_only=True)
class Scheduler:
    """Owns every sequence that has not finished. Decode thread only."""

    budget: StepBudget
    """Of steps of the model alone."""
    adapters_budget: StepBudget
    """Of steps with an adapter."""
    max_batch_tokens: int
    """Most tokens in a step; at least the number of sequences that may run."""
    max_prefill_tokens: int
    """Most prompt tokens in a step in which other sequences decode."""
    max_outputs: int
    """Most rows of logits in a step; more than the number of sequences that may run."""
    n_beside: int = 0
    """How many of a prompt's tokens a step beside decoding sequences takes on top of the budget:
    those that llama.cpp computes in one physical batch with the decoded tokens. The others are then
    as many as the budget says: 64 tokens are quicker than 63 (docs/performance.md)."""
    can_cut: bool = True
    """Whether any beginning of what is computed can be had later (``ModelRunner.can_cut``)."""
    fewest_leapt: int = 1
    """Forced tokens of a sequence that are worth a longer step for the others (``leaps``)."""
    _queue: WaitingQueue = attrs.field(factory=WaitingQueue, init=False)
    _running: dict[RequestId, Sequence] = attrs.field(factory=dict, init=False)
    """In order of admission."""
    groups: AdapterGroups = attrs.field(init=False)
    """The same, by adapter."""
    _n_reserved_cells: int = attrs.field(default=0, init=False)
    _n_moves: int = attrs.field(default=0, init=False)
    _n_held: int = attrs.field(default=0, init=False)
    """Steps in a row before the last plan in which sequences that decode were held up."""
    _held_s: float = attrs.field(default=0.0, init=False)
    """What those took."""
    _spent_s: float = attrs.field(default=0.0, init=False)
    """What had gone of the last plan's step."""
    _is_holding: bool = attrs.field(default=False, init=False)
    """Whether the last plan does that."""
    _n_alone: int = attrs.field(default=0, init=False)
    """Steps in a row in which there was one prompt to compute and nothing else to do."""
    _steady: StepPlan | None = attrs.field(default=None, init=False)
    """The plan of every step in which nobody comes, goes or computes a prompt: most steps."""

    def __attrs_post_init__(self) -> None:
        self.groups = AdapterGroups(self._step_cost, self._longest_s)

    @property
    def current_budget(self) -> StepBudget:
        """That of the group whose turn it is."""
        return self._budget_of(self.groups.adapter)

    @property
    def takes_turns(self) -> bool:
        """Whether running sequences have different adapters."""
        return len(self.groups) > 1

    @property
    def n_queued(self) -> int:
        return len(self._queue)

    @property
    def n_running(self) -> int:
        return len(self._running)

    @property
    def has_news(self) -> bool:
        """Whether the last plan is out of date: somebody came, went, or has a prompt to compute."""
        return self._steady is None

    @property
    def n_reserved_cells(self) -> int:
        """Cells that the running sequences may come to need."""
        return self._n_reserved_cells

    @property
    def is_idle(self) -> bool:
        return not self._queue and not self._running

    @property
    def head(self) -> Sequence | None:
        """Whose turn it is to get a slot."""
        return self._queue.head

    @property
    def n_moves(self) -> int:
        """Rises whenever somebody comes, gets a slot, loses it or ends."""
        return self._n_moves

    def passers(self) -> list[Sequence]:
        """Who may get a slot before the head, where that waits for cells: see ``WaitingQueue``."""
        return self._queue.passers()

    def running(self) -> tuple[Sequence, ...]:
        """Those with a slot, in order of admission."""
        return tuple(self._running.values())

    def sequences(self) -> Iterator[Sequence]:
        """All unfinished sequences, running ones first."""
        yield from self._running.values()
        yield from self._queue

    def submit(self, sequence: Sequence) -> None:
        """Appends to the queue."""
        self._steady = None
        self._n_moves += 1
        self._queue.append(sequence)

    def find(self, request_id: RequestId) -> Sequence | None:
        """The unfinished sequence of that request."""
        return self._running.get(request_id) or self._queue.find(request_id)

    def start(self, sequence: Sequence, slot: SlotId) -> None:
        """Gives a queued sequence, the head or one that passes it, its slot."""
        self._steady = None
        self._n_moves += 1
        self._queue.take(sequence)
        sequence.slot = slot
        sequence.phase = Phase.PREFILL
        self._running[sequence.request_id] = sequence
        self.groups.join(sequence)
        self._n_reserved_cells += sequence.n_cells_needed

    def requeue(self, sequence: Sequence) -> None:
        """Takes the slot from a running sequence, which goes on as soon as it gets another: before
        all that came after it."""
        self._steady = None
        self._leave(sequence)
        sequence.slot = None
        sequence.phase = Phase.QUEUED
        self._queue.put_back(sequence)

    def finish(self, sequence: Sequence) -> None:
        """Forgets the sequence."""
        self._steady = None
        self._n_moves += 1
        if sequence.phase is Phase.QUEUED:
            self._queue.remove(sequence)
        else:
            self._leave(sequence)
        sequence.slot = None
        sequence.phase = Phase.FINISHED

    def schedule(self, *, again: bool = False, spent_s: float = 0.0) -> StepPlan:
        """Plans the next step. An empty plan means: nothing to do. ``again``: instead of the plan
        before, which was not carried out and so was nobody's turn. ``spent_s``: what has gone of
        the step's time; streams wait for that as well."""
        if self._steady is not None:
            return self._steady
        group = self.groups.choose(again=again)
        if group is None:
            return StepPlan(())
        decoding = [s for s in group.members.values() if s.phase is Phase.DECODE]
        prefilling = [s for s in group.members.values() if s.phase is Phase.PREFILL]
        if not again:
            is_held = self._is_holding and not self.groups.is_new_turn
            self._n_held = self._n_held + 1 if is_held else 0
            self._held_s = self._held_s if is_held else 0.0
            is_alone = len(prefilling) == 1 and not decoding and not self._queue
            self._n_alone = self._n_alone + 1 if is_alone and not self.takes_turns else 0
        self._spent_s = spent_s
        urgent = self._urgent(prefilling, decoding)
        self._is_holding = bool(urgent)
        served = [] if urgent else decoding
        room = Room(
            n_tokens=self.max_batch_tokens - len(served),
            n_rows=self.max_outputs - len(group.members),
        )
        chunks = self._decode_chunks(served, room)
        n_leapt = sum(chunk.n_tokens for chunk in chunks) - len(served)
        budget = 0
        if prefilling:
            if decoding:
                room.n_tokens = min(room.n_tokens, self.max_prefill_tokens)
            budget = self._prefill_budget(served, prefilling, room, n_leapt=n_leapt)
            turns = self._turns(group, urgent or prefilling, is_urgent=bool(urgent), again=again)
            rest = _SMALL_REST_BESIDE if served else _SMALL_REST
            chunks += self._prefill_chunks(turns, budget, room, small_rest=rest)
        chunks.sort(key=_slot)
        plan = StepPlan(tuple(chunks), prefill_budget=budget, n_leapt=n_leapt)
        if len(decoding) == len(self._running) and not self._queue and not self._may_leap(decoding):
            self._steady = plan
        return plan

    def start_over(self, sequence: Sequence) -> None:
        """The sequence has lost its cells, and computes its tokens again."""
        self._steady = None
        sequence.n_cached = 0
        if sequence.phase is Phase.DECODE:
            sequence.phase = Phase.PREFILL

    def move(self, sequence: Sequence, slot: SlotId) -> None:
        """The sequence goes on in another slot."""
        self._steady = None
        sequence.slot = slot

    def advance(self, chunk: Chunk) -> None:
        """Notes that the chunk's tokens have cells now."""
        sequence = chunk.sequence
        sequence.n_cached += chunk.n_tokens
        if sequence.n_left == 0:
            sequence.phase = Phase.DECODE

    def note(self, *, n_decode: int, n_prefill: int, seconds: float) -> None:
        """The last plan was carried out, in ``seconds``: it decoded ``n_decode`` sequences and
        computed ``n_prefill`` tokens of prompts. Plans without prompts may be left out."""
        if self._is_holding:
            self._held_s += self._spent_s + seconds
        self.current_budget.note(n_decode=n_decode, n_prefill=n_prefill, seconds=seconds)

    def append(self, sequence: Sequence, token: TokenId) -> None:
        """Notes the token chosen for a sequence; the next step decodes it."""
        assert sequence.phase is Phase.DECODE
        sequence.tokens.append(token)

    def note_forced(self, sequence: Sequence) -> None:
        """The sequence has been given forced tokens. Most are computed one a step, for which the
        plan stays."""
        if sequence.n_forced >= self._fewest_leapt():
            self._steady = None

    def check_invariants(self) -> None:
        """Raises AssertionError when the books do not balance. For tests."""
        slots = [sequence.slot for sequence in self._running.values()]
        assert None not in slots
        assert len(set(slots)) == len(slots), "a slot has two owners"
        assert self._n_reserved_cells == sum(s.n_cells_needed for s in self._running.values())
        for sequence in self._running.values():
            assert sequence.phase in (Phase.WAITING, Phase.PREFILL, Phase.DECODE)
            assert 0 <= sequence.n_cached <= sequence.n_cells_needed
            if sequence.phase is Phase.DECODE:
                assert sequence.n_left == 1 + sequence.n_forced - sequence.ends_forced
                assert sequence.n_generated > 0
            if sequence.phase is Phase.WAITING:
                assert sequence.n_cached == 0
                assert sequence.leader is not None
            else:
                assert sequence.leader is None
                assert sequence.n_left > 0
        assert not {each.request_id for each in self._queue} & self._running.keys()
        self._queue.check_invariants()
        self.groups.check_invariants(self._running.values())

    def _leave(self, sequence: Sequence) -> None:
        """It runs no more."""
        self._n_moves += 1
        del self._running[sequence.request_id]
        self.groups.leave(sequence)
        self._n_reserved_cells -= sequence.n_cells_needed

    def _budget_of(self, adapter: AdapterId | None) -> StepBudget:
        return self.budget if adapter is None else self.adapters_budget

    def _step_cost(self, group: Group) -> float:
        return self._budget_of(group.adapter).step_s(len(group.members))

    def _longest_s(self) -> float:
        return self.current_budget.target_s(1)

    def _urgent(self, prefilling: list[Sequence], decoding: list[Sequence]) -> list[Sequence]:
        """The prompts that a step can finish, if more of them wait than sequences decode and these
        can wait for that step, so that it is theirs alone; else none."""
        if not prefilling or not decoding or self._n_held >= _MOST_HELD or self.groups.is_new_turn:
            return []
        budget = self.current_budget
        step_s = budget.target_s(0) * (1 + _SMALL_REST)
        target_s = budget.target_s(len(decoding), n_prompts=len(prefilling))
        if self._held_s + self._spent_s + step_s > _MOST_HELD_TARGETS * target_s:
            return []
        room = min(self.max_batch_tokens, self.max_prefill_tokens)
        most = min(room, int(budget.n_tokens(0) * (1 + _SMALL_REST)))
        short = [sequence for sequence in prefilling if sequence.n_left <= most]
        return short if len(short) > len(decoding) else []

    def _turns(
        self, group: Group, prompts: list[Sequence], *, is_urgent: bool, again: bool
    ) -> list[Sequence]:
        """Who goes first. ``prompts`` come in the order of admission."""
        if not again:
            group.n_turns = 1 if group.is_longest_turn else group.n_turns + 1
        group.is_longest_turn = group.n_turns >= _TURNS and not is_urgent
        nearest = self._nearest_joins()
        turns = sorted(prompts, key=lambda s: nearest.get(s, len(s.tokens)) - s.n_cached)
        if group.is_longest_turn:
            turns.remove(prompts[0])
            turns.insert(0, prompts[0])
        return turns

    def _decode_chunks(self, served: list[Sequence], room: Room) -> list[Chunk]:
        """A token of each, and more of those that have forced ones to compute, for which the others
        wait as for a prompt. Takes these from ``room``, but leaves every prompt a token."""
        if all(sequence.n_left == 1 for sequence in served):
            return [Chunk(sequence, 1) for sequence in served]
        n_most = self.max_batch_tokens - len(self._running)
        if len(served) > 1:
            budget = self.current_budget.n_tokens(len(served), spent_s=self._spent_s)
            n_most = min(n_most, self.max_prefill_tokens, budget)
        leaps = Room(n_tokens=n_most, n_rows=room.n_rows)
        chunks = with_leaps(served, fewest=self._fewest_leapt(), room=leaps)
        room.n_tokens -= n_most - leaps.n_tokens
        room.n_rows = leaps.n_rows
        return chunks

    def _fewest_leapt(self) -> int:
        return self.fewest_leapt if len(self._running) > 1 else 1

    def _may_leap(self, decoding: list[Sequence]) -> bool:
        """Whether one of them has forced tokens enough for a leap. A step may have had no time for
        it, and the next one has."""
        return any(sequence.n_left > self._fewest_leapt() for sequence in decoding)

    def _prefill_budget(
        self, served: list[Sequence], prefilling: list[Sequence], room: Room, *, n_leapt: int
    ) -> int:
        """Tokens of prompts that the step's time allows. ``n_leapt``: others that take time."""
        budget = self.current_budget
        if self._n_alone > _ALONE_AFTER:
            return room.n_tokens
        target_s = budget.target_s(len(served), n_prompts=len(prefilling))
        spent_s = max(0.0, target_s - self.groups.most_step_s)
        if served:
            spent_s += self._spent_s + budget.chunk_s(n_leapt)
        n_tokens = budget.n_tokens(len(served), n_prompts=len(prefilling), spent_s=spent_s)
        return min(room.n_tokens, n_tokens + (self.n_beside if served else 0))

    def _prefill_chunks(
        self, turns: list[Sequence], budget: int, room: Room, *, small_rest: float
    ) -> list[Chunk]:
        """The prompts' parts of a step: ``budget`` tokens, by that share more where it finishes a
        prompt, and never more than there is room for, which is taken from ``room``."""
        chunks: list[Chunk] = []
        whole, least = budget, max(_FEWEST_TOKENS, budget // 2)
        for sequence in turns:
            is_small = min(budget, room.n_tokens) < min(least, sequence.n_left)
            if chunks and (is_small or sequence.n_left > _LONG * whole):
                break
            most = min(room.n_tokens, int(budget * (1 + small_rest)))
            chunk = self._chunk(sequence, budget, most=most, n_spare_rows=room.n_rows)
            chunks.append(chunk)
            budget -= chunk.n_tokens
            room.n_tokens -= chunk.n_tokens
            room.n_rows -= max(0, chunk.n_outputs - 1)
        return chunks

    def _chunk(self, sequence: Sequence, budget: int, *, most: int, n_spare_rows: int) -> Chunk:
        n_tokens = min(sequence.n_left, max(budget, 1))
        if n_tokens < sequence.n_left <= most:
            n_tokens = sequence.n_left
        stop = self._next_stop(sequence)
        if stop is not None:
            n_tokens = min(n_tokens, stop - sequence.n_cached)
        n_outputs = Chunk(sequence, n_tokens).n_outputs
        return Chunk(sequence, n_tokens - max(0, n_outputs - 1 - n_spare_rows))

    def _next_stop(self, sequence: Sequence) -> int | None:
        """Where the next chunk has to end at the latest. Only memory that cannot be cut needs it:
        what is to be saved or copied must be there exactly."""
        if self.can_cut:
            return None
        stops = [*sequence.checkpoints, *(each.join_at for each in self._followers(sequence))]
        return min((stop for stop in stops if stop > sequence.n_cached), default=None)

    def _followers(self, sequence: Sequence) -> Iterator[Sequence]:
        return (each for each in self._running.values() if each.leader is sequence)

    def _nearest_joins(self) -> dict[Sequence, int]:
        """How many tokens those need computed whom others wait for, so that one of these can go
        on."""
        nearest: dict[Sequence, int] = {}
        for each in self._running.values():
            if each.leader is not None:
                nearest[each.leader] = min(each.join_at, nearest.get(each.leader, each.join_at))
        return nearest


def _slot(chunk: Chunk) -> int:
    slot = chunk.sequence.slot
    assert slot is not None
    return slot
