"""Steps of the scheduler alone: the caller says when a token is chosen."""

import itertools
from collections.abc import Callable, Iterable

import attrs
import numpy as np
from fakes.cache_play import Budget
from fakes.playbook import a_request
from fakes.runner import FakeVocabulary

from tgi_llama.engine.batch import Chunk, StepPlan
from tgi_llama.engine.model_runner import SlotId
from tgi_llama.engine.prompt_scores import PromptScores
from tgi_llama.engine.sampler import Sampler
from tgi_llama.engine.scheduler import Scheduler
from tgi_llama.engine.sequence import Phase, Sequence
from tgi_llama.generation import RequestId, TokenId
from tgi_llama.text.output import OutputText

_FLAT = np.zeros(64, dtype=np.float32)


def a_scheduler(
    *, budget: int = 10**9, max_batch: int = 64, max_prefill: int = 10**9, max_outputs: int = 99
) -> Scheduler:
    each = Budget(now=budget)
    return Scheduler(
        budget=each,
        adapters_budget=each,
        max_batch_tokens=max_batch,
        max_prefill_tokens=max_prefill,
        max_outputs=max_outputs,
    )


def a_sequence(
    number: int,
    n_prompt: int,
    *,
    n_new: int = 10_000,
    scored: bool = False,
    adapter: int | None = None,
) -> Sequence:
    request = a_request(
        [2] * n_prompt, max_new_tokens=n_new, prompt_logprobs=scored, adapter=adapter
    )
    vocabulary = FakeVocabulary()
    return Sequence(
        request_id=RequestId(number),
        request=request,
        sampler=Sampler(request.sampling),
        text=OutputText(vocabulary),
        scores=PromptScores.for_request(vocabulary, request) if scored else None,
        submitted=float(number),
    )


def started(scheduler: Scheduler, *lengths: int, scored: Iterable[int] = ()) -> list[Sequence]:
    """Sequences with prompts of these lengths, in slots from the first free one on."""
    first = scheduler.n_running
    numbers = range(first, first + len(lengths))
    sequences = [
        a_sequence(n, length, scored=n in scored)
        for n, length in zip(numbers, lengths, strict=True)
    ]
    for sequence in sequences:
        scheduler.submit(sequence)
        scheduler.start(sequence, SlotId(sequence.request_id))
    return sequences


def compute(scheduler: Scheduler, plan: StepPlan) -> None:
    """As the decode loop does it."""
    for chunk in plan.chunks:
        yields_token = chunk.yields_token
        n_rows = chunk.n_outputs
        scheduler.advance(chunk)
        scores = chunk.sequence.scores
        for _ in range(n_rows):
            if scores is not None and not scores.is_complete:
                scores.add(_FLAT)
        if yields_token:
            scheduler.append(chunk.sequence, TokenId(3))
    scheduler.check_invariants()


def sizes(plan: StepPlan) -> dict[int, int]:
    """Tokens by slot."""
    return {int(chunk.sequence.slot or 0): chunk.n_tokens for chunk in plan.chunks}


def running(scheduler: Scheduler, n: int) -> list[Sequence]:
    """Sequences that decode."""
    sequences = started(scheduler, *[1] * n)
    compute(scheduler, StepPlan(tuple(Chunk(sequence, 1) for sequence in sequences)))
    return sequences


def held(scheduler: Scheduler, plan: StepPlan) -> bool:
    """Whether sequences that decode have no part in the plan."""
    decoding = [each for each in scheduler.running() if each.phase is Phase.DECODE]
    return bool(decoding) and all(c.sequence.phase is Phase.PREFILL for c in plan.chunks)


@attrs.define(eq=False)
class Refilled:
    """Slots from 100 on whose short prompts are followed by others as soon as they are done."""

    scheduler: Scheduler
    n_slots: int
    length: Callable[[], int]
    numbers: "itertools.count[int]" = attrs.field(factory=lambda: itertools.count(100))

    def refill(self) -> None:
        slots = {SlotId(slot) for slot in range(100, 100 + self.n_slots)}
        for sequence in self.scheduler.running():
            if sequence.slot in slots and sequence.phase is Phase.DECODE:
                self.scheduler.finish(sequence)
        for slot in sorted(slots - {sequence.slot for sequence in self.scheduler.running()}):
            sequence = a_sequence(next(self.numbers), self.length())
            self.scheduler.submit(sequence)
            self.scheduler.start(sequence, slot)
