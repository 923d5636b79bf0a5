"""Which sequence gets what share of the next step. Pure state: no clock, no threads, no model.

Theory of operation
-------------------
A submitted sequence waits in a queue (first come, first served) until a slot with room for its
worst case is free. From then on every step serves it: a running sequence decodes one token, a new
one has a chunk of its prompt computed. Decoding sequences always come first. What prompts may add
to a step is bounded: up to the physical batch when nobody decodes, and ``max_prefill_tokens`` when
somebody does, because a running stream waits for the whole step. The oldest prompt is served first.

A sequence that ends gives slot and cells back before the next step is planned, so a waiting request
joins at the very next step (continuous batching).
"""

from collections import deque
from collections.abc import Iterator

import attrs

from tgi_llama.engine.batch import Chunk, StepPlan
from tgi_llama.engine.kv_cache import SlotPool
from tgi_llama.engine.sequence import Phase, Sequence
from tgi_llama.generation import RequestId, TokenId


@attrs.define(eq=False, kw_only=True)
class Scheduler:
    """Owns every sequence that has not finished. Decode thread only."""

    slots: SlotPool
    max_batch_tokens: int
    """Most tokens in a step; at least the number of slots."""
    max_prefill_tokens: int
    """Most prompt tokens in a step in which other sequences decode."""
    _queue: deque[Sequence] = attrs.field(factory=deque, init=False)
    _running: dict[RequestId, Sequence] = attrs.field(factory=dict, init=False)
    """In order of admission."""

    def __attrs_post_init__(self) -> None:
        if self.max_batch_tokens < self.slots.plan.n_slots:
            raise ValueError("a step must have room for one token of every slot")

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

    def find(self, request_id: RequestId) -> Sequence | None:
        """The unfinished sequence of that request."""
        running = self._running.get(request_id)
        if running is not None:
            return running
        return next((s for s in self._queue if s.request_id == request_id), None)

    def schedule(self) -> StepPlan:
        """Admits what fits and plans the next step. An empty plan means: nothing to do."""
        n_joined = self._admit()
        decoding = [s for s in self._running.values() if s.phase is Phase.DECODE]
        chunks = [Chunk(sequence, 1) for sequence in decoding]
        budget = self.max_batch_tokens - len(decoding)
        if decoding:
            budget = min(budget, self.max_prefill_tokens)
        for sequence in self._running.values():
            if sequence.phase is Phase.PREFILL and budget > 0:
                n_tokens = min(sequence.n_prompt_left, budget)
                chunks.append(Chunk(sequence, n_tokens))
                budget -= n_tokens
        chunks.sort(key=_slot)
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
            sequence.slot = None
        sequence.phase = Phase.FINISHED

    def check_invariants(self) -> None:
        """Raises AssertionError when the books do not balance. For tests."""
        self.slots.check_invariants()
        assert self.slots.n_busy == len(self._running)
        owners = [s.slot for s in self._running.values()]
        assert None not in owners
        assert len(set(owners)) == len(owners), "a slot has two owners"
        for sequence in self._running.values():
            assert sequence.phase in (Phase.PREFILL, Phase.DECODE)
            assert sequence.n_cached <= sequence.n_cells_needed
        for sequence in self._queue:
            assert sequence.phase is Phase.QUEUED
            assert sequence.slot is None

    def _admit(self) -> int:
        """Gives slots to the head of the queue, as many as fit. Returns how many joined."""
        n_joined = 0
        while self._queue:
            slot = self.slots.reserve(self._queue[0].n_cells_needed)
            if slot is None:
                break
            sequence = self._queue.popleft()
            sequence.slot = slot
            sequence.phase = Phase.PREFILL
            self._running[sequence.request_id] = sequence
            n_joined += 1
        return n_joined


def _slot(chunk: Chunk) -> int:
    slot = chunk.sequence.slot
    assert slot is not None
    return slot
