"""Which sequence gets what share of the next step. Pure state: no clock, no threads, no model.

Theory of operation
-------------------
A submitted sequence waits in a queue (first come, first served) until a slot with room for its
worst case is free. From then on every step serves it: a running sequence decodes one token, a new
one has a chunk of its prompt computed. Decoding sequences always come first. What prompts may add
to a step is bounded: up to the physical batch when nobody decodes, and ``max_prefill_tokens`` when
somebody does, because a running stream waits for the whole step. The oldest prompt is served first.

A prompt whose logprobs are wanted needs a row of logits per token, and the runner has rows for
every slot and some more. Such prompts come in chunks that leave everybody else a row.

Siblings (``sequence.Family``) have one prompt, and the one that gets a slot first computes it.
Those that get a slot meanwhile wait in FORKING, without a share of the step. When a sibling ends
while others are queued, its slot and the prompt in it go straight to the next one; nobody is passed
over, since siblings stand together and so that one is the head of the queue. Here the books of that
are kept; ``engine/family.py`` moves the cells.

A sequence that ends gives slot and cells back before the next step is planned, so a waiting request
joins at the very next step (continuous batching).
"""

from collections import deque
from collections.abc import Iterator

import attrs

from tgi_llama.engine.batch import Chunk, StepPlan
from tgi_llama.engine.kv_cache import SlotPool
from tgi_llama.engine.sequence import Family, Phase, Sequence
from tgi_llama.generation import RequestId, TokenId


@attrs.define(eq=False, kw_only=True)
class Scheduler:
    """Owns every sequence that has not finished. Decode thread only."""

    slots: SlotPool
    max_batch_tokens: int
    """Most tokens in a step; at least the number of slots."""
    max_prefill_tokens: int
    """Most prompt tokens in a step in which other sequences decode."""
    max_outputs: int
    """Most rows of logits in a step; more than the number of slots."""
    _queue: deque[Sequence] = attrs.field(factory=deque, init=False)
    _running: dict[RequestId, Sequence] = attrs.field(factory=dict, init=False)
    """In order of admission."""
    _n_joined: int = attrs.field(default=0, init=False)
    """Sequences that left the queue for a slot since the last plan."""

    def __attrs_post_init__(self) -> None:
        if self.max_batch_tokens < self.slots.plan.n_slots:
            raise ValueError("a step must have room for one token of every slot")
        if self.max_outputs <= self.slots.plan.n_slots:
            raise ValueError("a step must have room for one output of every slot and one more")

    @property
    def n_queued(self) -> int:
        return len(self._queue)

    @property
    def n_running(self) -> int:
        return len(self._running)

    @property
    def is_idle(self) -> bool:
        return not self._queue and not self._running

    def sequences(self) -> Iterator[Sequence]:
        """All unfinished sequences, running ones first."""
        yield from self._running.values()
        yield from self._queue

    def submit(self, sequence: Sequence) -> None:
        """Appends to the queue. ValueError when it could never get a slot."""
        if sequence.n_cells_needed > self.slots.plan.cells_per_slot:
            raise ValueError(
                f"the request needs {sequence.n_cells_needed} cells, "
                f"a slot has {self.slots.plan.cells_per_slot}"
            )
        self._queue.append(sequence)
        if sequence.family is not None:
            sequence.family.members.append(sequence)

    def find(self, request_id: RequestId) -> Sequence | None:
        """The unfinished sequence of that request."""
        running = self._running.get(request_id)
        if running is not None:
            return running
        return next((s for s in self._queue if s.request_id == request_id), None)

    def admit(self) -> list[Sequence]:
        """Gives slots to the head of the queue, as many as fit. Returns who got one."""
        joined: list[Sequence] = []
        while self._queue:
            slot = self.slots.reserve(self._queue[0].n_cells_needed)
            if slot is None:
                break
            sequence = self._queue.popleft()
            sequence.slot = slot
            sequence.phase = self._first_phase(sequence)
            self._running[sequence.request_id] = sequence
            joined.append(sequence)
        self._n_joined += len(joined)
        return joined

    def schedule(self) -> StepPlan:
        """Plans the next step. An empty plan means: nothing to do."""
        decoding = [s for s in self._running.values() if s.phase is Phase.DECODE]
        chunks = [Chunk(sequence, 1) for sequence in decoding]
        budget = self.max_batch_tokens - len(decoding)
        if decoding:
            budget = min(budget, self.max_prefill_tokens)
        n_spare_rows = self.max_outputs - len(self._running)
        for sequence in self._running.values():
            if sequence.phase is Phase.PREFILL and budget > 0:
                n_tokens = min(sequence.n_prompt_left, budget)
                if sequence.scores is not None:
                    n_missing = sequence.scores.n_rows(sequence.n_cached + n_tokens)
                    n_tokens -= max(0, n_missing - 1 - n_spare_rows)
                chunk = Chunk(sequence, n_tokens)
                chunks.append(chunk)
                budget -= n_tokens
                n_spare_rows -= max(0, chunk.n_outputs - 1)
        chunks.sort(key=_slot)
        n_joined, self._n_joined = self._n_joined, 0
        return StepPlan(tuple(chunks), n_joined=n_joined)

    def advance(self, chunk: Chunk) -> None:
        """Notes that the chunk's tokens have cells now."""
        sequence = chunk.sequence
        sequence.n_cached += chunk.n_tokens
        if sequence.phase is Phase.PREFILL and sequence.n_prompt_left == 0:
            sequence.phase = Phase.DECODE

    def append(self, sequence: Sequence, token: TokenId) -> None:
        """Notes the token chosen for a sequence; the next step decodes it."""
        assert sequence.phase is Phase.DECODE
        sequence.last_token = token
        sequence.n_generated += 1

    def finish(self, sequence: Sequence) -> None:
        """Forgets the sequence and frees its slot for the next plan."""
        if sequence.slot is None:
            self._queue.remove(sequence)
        else:
            del self._running[sequence.request_id]
            self.slots.release(sequence.slot)
        self._forget(sequence)

    def successor(self, sequence: Sequence) -> Sequence | None:
        """The sibling that can use the prompt's cells in the sequence's slot, when it ends."""
        family = sequence.family
        if family is None or sequence.phase not in (Phase.PREFILL, Phase.DECODE):
            return None
        if sequence.phase is Phase.PREFILL:
            waiting = family.first(Phase.FORKING)
            if waiting is not None:
                return waiting
        return family.first(Phase.QUEUED)

    def replace(self, sequence: Sequence, successor: Sequence, *, n_cached: int) -> None:
        """Forgets the sequence and gives its slot, with that many cells of the prompt in it, to its
        successor. What the siblings reserve is equal."""
        slot = sequence.slot
        del self._running[sequence.request_id]
        if successor.slot is None:
            head = self._queue.popleft()
            assert head is successor, "siblings stand together"
            self._running[successor.request_id] = successor
            self._n_joined += 1
        else:
            self.slots.release(successor.slot)
        successor.slot = slot
        successor.phase = Phase.PREFILL
        successor.n_cached = n_cached
        self._forget(sequence)

    def promote(self, family: Family) -> None:
        """Lets a sibling that waits for the prompt compute it, if nobody else does any more."""
        waiting = family.first(Phase.FORKING)
        if waiting is not None and family.first(Phase.PREFILL) is None:
            waiting.phase = Phase.PREFILL

    def check_invariants(self) -> None:
        """Raises AssertionError when the books do not balance. For tests."""
        self.slots.check_invariants()
        assert self.slots.n_busy == len(self._running)
        owners = [s.slot for s in self._running.values()]
        assert None not in owners
        assert len(set(owners)) == len(owners), "a slot has two owners"
        for sequence in self._running.values():
            assert sequence.phase in (Phase.FORKING, Phase.PREFILL, Phase.DECODE)
            assert sequence.n_cached <= sequence.n_cells_needed
            if sequence.phase is Phase.PREFILL:
                assert sequence.n_cached < sequence.n_prompt
            if sequence.phase is Phase.FORKING:
                assert sequence.n_cached == 0
                assert sequence.family is not None
                assert sequence.family.first(Phase.PREFILL) is not None, (
                    "nobody computes the prompt"
                )
        for sequence in self._queue:
            assert sequence.phase is Phase.QUEUED
            assert sequence.slot is None
        for sequence in self.sequences():
            if sequence.family is not None:
                _check_family(sequence, sequence.family)

    def _first_phase(self, sequence: Sequence) -> Phase:
        """The phase in which a sequence starts that gets a slot."""
        family = sequence.family
        if (
            family is not None
            and family.first(Phase.PREFILL) is not None
            and self.slots.plan.is_worth_copying(sequence.n_prompt)
        ):
            return Phase.FORKING
        return Phase.PREFILL

    def _forget(self, sequence: Sequence) -> None:
        sequence.slot = None
        sequence.phase = Phase.FINISHED
        if sequence.family is not None:
            sequence.family.members.remove(sequence)


def _check_family(sequence: Sequence, family: Family) -> None:
    assert sequence in family.members
    for sibling in family.members:
        assert sibling.family is family
        assert sibling.n_cells_needed == sequence.n_cells_needed
        assert sibling.scores is sequence.scores


def _slot(chunk: Chunk) -> int:
    slot = chunk.sequence.slot
    assert slot is not None
    return slot
