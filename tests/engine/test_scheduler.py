"""Who gets what share of a step. The scheduler alone: the tests say when a token is chosen."""

import itertools
import random
from collections.abc import Callable, Iterable

import attrs
import numpy as np
import pytest
from fakes.cache_play import Budget
from fakes.playbook import a_request
from fakes.runner import FakeVocabulary

from tgi_llama.engine.batch import Chunk, StepPlan
from tgi_llama.engine.model_runner import SlotId
from tgi_llama.engine.prompt_scores import PromptScores
from tgi_llama.engine.sampler import Sampler
from tgi_llama.engine.scheduler import Scheduler
from tgi_llama.engine.sequence import Phase, Sequence, age
from tgi_llama.generation import RequestId, TokenId
from tgi_llama.text.output import OutputText


def a_scheduler(
    *, budget: int = 10**9, max_batch: int = 64, max_prefill: int = 10**9, max_outputs: int = 99
) -> Scheduler:
    return Scheduler(
        budget=Budget(now=budget),
        max_batch_tokens=max_batch,
        max_prefill_tokens=max_prefill,
        max_outputs=max_outputs,
    )


def a_sequence(
    number: int, n_prompt: int, *, n_new: int = 10_000, scored: bool = False
) -> Sequence:
    request = a_request([2] * n_prompt, max_new_tokens=n_new, prompt_logprobs=scored)
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


_FLAT = np.zeros(64, dtype=np.float32)


def sizes(plan: StepPlan) -> dict[int, int]:
    """Tokens by slot."""
    return {int(chunk.sequence.slot or 0): chunk.n_tokens for chunk in plan.chunks}


def running(scheduler: Scheduler, n: int) -> list[Sequence]:
    """Sequences that decode."""
    sequences = started(scheduler, *[1] * n)
    compute(scheduler, StepPlan(tuple(Chunk(sequence, 1) for sequence in sequences)))
    return sequences


def test_every_running_sequence_decodes_whatever_the_prompts_want() -> None:
    scheduler = a_scheduler(max_batch=8, budget=100)
    running(scheduler, 5)
    started(scheduler, 50, 50)
    plan = scheduler.schedule()
    assert sizes(plan) == {0: 1, 1: 1, 2: 1, 3: 1, 4: 1, 5: 3}
    assert plan.n_tokens == 8
    assert plan.prefill_budget == 3


@pytest.mark.parametrize("budget", [-5, 0, 1])
def test_prompts_make_some_progress_however_small_the_budget(budget: int) -> None:
    scheduler = a_scheduler(budget=budget)
    running(scheduler, 2)
    (prompt,) = started(scheduler, 10)
    n_steps = 0
    while prompt.phase is Phase.PREFILL:
        plan = scheduler.schedule()
        assert plan.n_tokens == 3
        compute(scheduler, plan)
        n_steps += 1
    assert n_steps == 10


@pytest.mark.parametrize(
    ("n_decode", "budget", "max_prefill", "expected"),
    [(1, 20, 99, 20), (1, 99, 16, 16), (0, 99, 16, 64), (0, 20, 16, 20), (3, 99, 99, 61)],
)
def test_prompts_keep_to_the_budget_and_beside_streams_to_the_cap(
    n_decode: int, budget: int, max_prefill: int, expected: int
) -> None:
    scheduler = a_scheduler(budget=budget, max_prefill=max_prefill, max_batch=64)
    running(scheduler, n_decode)
    started(scheduler, 1000)
    plan = scheduler.schedule()
    assert plan.prefill_budget == plan.n_tokens - n_decode == expected


def test_shortest_prompt_goes_first_and_what_is_left_goes_to_the_next() -> None:
    scheduler = a_scheduler(budget=40)
    started(scheduler, 100, 50, 20)
    assert sizes(scheduler.schedule()) == {1: 20, 2: 20}


@pytest.mark.parametrize(
    ("budget", "lengths", "expected"),
    [
        (40, (100, 21), {1: 21}),
        (40, (100, 20), {0: 20, 1: 20}),
        (40, (34, 33, 5), {1: 33, 2: 5}),
        (40, (19, 21), {0: 19, 1: 21}),
        (15, (100, 8), {1: 8}),
        (15, (60, 7), {0: 8, 1: 7}),
        (15, (61, 7), {1: 7}),  # it needs many steps: whoever sent the other would wait for it
    ],
)
def test_less_than_half_a_budget_or_eight_tokens_are_no_share(
    budget: int, lengths: tuple[int, ...], expected: dict[int, int]
) -> None:
    """Each part of another length may cost a physical batch; a whole small prompt is worth it."""
    scheduler = a_scheduler(budget=budget)
    started(scheduler, *lengths)
    assert sizes(scheduler.schedule()) == expected


@pytest.mark.parametrize(
    ("n_prompt", "max_batch", "max_prefill", "expected"),
    [(44, 64, 99, 44), (45, 64, 99, 40), (44, 44, 99, 40), (44, 64, 43, 40), (44, 64, 44, 44)],
)
def test_rest_a_little_beyond_the_budget_is_taken_along(
    n_prompt: int, max_batch: int, max_prefill: int, expected: int
) -> None:
    """A tenth at most, and never beyond the cap or the batch."""
    scheduler = a_scheduler(budget=40, max_batch=max_batch, max_prefill=max_prefill)
    running(scheduler, 1)
    started(scheduler, n_prompt)
    assert sizes(scheduler.schedule())[1] == expected


@pytest.mark.parametrize(("n_decode", "expected"), [(0, 40), (1, 41)])
def test_tokens_that_join_the_decoded_ones_come_on_top_of_the_budget(
    n_decode: int, expected: int
) -> None:
    scheduler = a_scheduler(budget=40)
    scheduler.n_beside = 1
    running(scheduler, n_decode)
    started(scheduler, 1000)
    assert sizes(scheduler.schedule())[n_decode] == expected


def test_every_fourth_turn_is_of_the_prompt_that_runs_longest() -> None:
    scheduler = a_scheduler(budget=10)
    started(scheduler, 1000, 900)
    turns = []
    for _ in range(8):
        plan = scheduler.schedule()
        turns.append(sizes(plan))
        compute(scheduler, plan)
    assert turns == [{1: 10}, {1: 10}, {1: 10}, {0: 10}] * 2


def test_plan_that_is_not_carried_out_is_nobodys_turn() -> None:
    """Otherwise the turn of the oldest could always be one that is dropped for want of cells."""
    scheduler = a_scheduler(budget=10)
    started(scheduler, 1000, 900)
    turns = []
    for _ in range(8):
        dropped = scheduler.schedule()
        plan = scheduler.schedule(again=True)
        assert sizes(plan) == sizes(dropped)
        turns.append(sizes(plan))
        compute(scheduler, plan)
    assert turns == [{1: 10}, {1: 10}, {1: 10}, {0: 10}] * 2


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


@pytest.mark.parametrize("seed", range(10))
def test_endless_short_prompts_starve_no_long_one(seed: int) -> None:
    """A prompt of n chunks that is the oldest one is done within 4 n steps with prompts, and 8 n
    more in which they are urgent."""
    rng = random.Random(seed)
    budget = rng.randrange(8, 40)
    scheduler = a_scheduler(budget=budget)
    n_streams = rng.randrange(4)
    running(scheduler, n_streams)
    (long,) = started(scheduler, rng.randrange(50, 1000))
    n_chunks = -(-long.n_prompt // budget)
    shorts = Refilled(scheduler, 4, lambda: rng.randrange(1, 2 * budget))
    n_steps = 0
    while long.phase is Phase.PREFILL:
        shorts.refill()
        if rng.random() < 0.3:
            scheduler.schedule()  # dropped for want of cells
            compute(scheduler, scheduler.schedule(again=True))
        else:
            compute(scheduler, scheduler.schedule())
        n_steps += 1
        assert n_steps <= (4 + 8 * (n_streams > 0)) * n_chunks
    assert n_steps > n_chunks, "short ones passed it"


# Urgent prompts


def held(scheduler: Scheduler, plan: StepPlan) -> bool:
    """Whether sequences that decode have no part in the plan."""
    decoding = [each for each in scheduler.running() if each.phase is Phase.DECODE]
    return bool(decoding) and all(c.sequence.phase is Phase.PREFILL for c in plan.chunks)


def test_more_prompts_than_decode_are_done_first() -> None:
    scheduler = a_scheduler(budget=40)
    running(scheduler, 2)
    started(scheduler, 10, 11, 12)
    plan = scheduler.schedule()
    assert sizes(plan) == {2: 10, 3: 11, 4: 12}
    compute(scheduler, plan)
    assert sizes(scheduler.schedule()) == dict.fromkeys(range(5), 1)


def test_as_many_prompts_as_decode_are_not_urgent() -> None:
    scheduler = a_scheduler(budget=40)
    running(scheduler, 2)
    started(scheduler, 10, 11)
    assert sizes(scheduler.schedule()) == {0: 1, 1: 1, 2: 10, 3: 11}


@pytest.mark.parametrize(
    ("n_prompt", "max_batch", "max_prefill", "is_urgent"),
    [
        (50, 64, 99, True),
        (51, 64, 99, False),
        (49, 48, 99, False),
        (48, 48, 99, True),
        (45, 64, 44, False),
        (44, 64, 44, True),
    ],
)
def test_only_prompts_that_one_step_can_finish_are_urgent(
    n_prompt: int, max_batch: int, max_prefill: int, is_urgent: bool
) -> None:
    """With the rest that is taken along, and within the cap and the batch."""
    scheduler = a_scheduler(budget=40, max_batch=max_batch, max_prefill=max_prefill)
    running(scheduler, 1)
    started(scheduler, n_prompt, n_prompt)
    plan = scheduler.schedule()
    assert held(scheduler, plan) is is_urgent
    if is_urgent:
        assert sizes(plan) == {1: n_prompt}


def test_long_prompts_neither_count_as_urgent_nor_have_a_part() -> None:
    scheduler = a_scheduler(budget=40)
    running(scheduler, 1)
    started(scheduler, 100, 10)
    assert sizes(scheduler.schedule()) == {0: 1, 1: 30, 2: 10}
    started(scheduler, 9)
    assert sizes(scheduler.schedule()) == {2: 10, 3: 9}


def test_urgent_prompts_have_the_budget_of_a_step_without_streams() -> None:
    @attrs.define(eq=False)
    class LessBesideStreams(Budget):
        def n_tokens(self, n_decode: int, *, n_prompts: int = 0) -> int:  # noqa: ARG002 - the protocol's
            return 9 if n_decode else 40

    scheduler = a_scheduler()
    scheduler.budget = LessBesideStreams()
    running(scheduler, 1)
    started(scheduler, 30)
    assert sizes(scheduler.schedule()) == {0: 1, 1: 9}
    started(scheduler, 20)
    plan = scheduler.schedule()
    assert sizes(plan) == {1: 20, 2: 20}
    assert plan.prefill_budget == 40


@pytest.mark.parametrize("n_dropped", [0, 1, 2])
def test_urgent_prompts_hold_streams_back_for_eight_steps_at_most(n_dropped: int) -> None:
    """A plan that is not carried out holds nobody back."""
    scheduler = a_scheduler(budget=10)
    running(scheduler, 1)
    shorts = Refilled(scheduler, 2, lambda: 10)
    pattern = []
    for _ in range(27):
        shorts.refill()
        plan = scheduler.schedule()
        for _ in range(n_dropped):
            plan = scheduler.schedule(again=True)
        pattern.append(held(scheduler, plan))
        compute(scheduler, plan)
    assert pattern == ([True] * 8 + [False]) * 3


def test_oldest_long_prompt_has_its_turn_beside_the_streams_that_were_held_back() -> None:
    scheduler = a_scheduler(budget=10)
    running(scheduler, 1)
    started(scheduler, 1000)
    shorts = Refilled(scheduler, 2, lambda: 10)
    turns = []
    for _ in range(18):
        shorts.refill()
        plan = scheduler.schedule()
        turns.append(set(sizes(plan)) < {100, 101} or sizes(plan))
        compute(scheduler, plan)
    assert turns == [*[True] * 8, {0: 1, 1: 10}] * 2


@pytest.mark.parametrize("seed", range(20))
def test_random_prompts_hold_streams_back_only_while_more_of_them_are_short(seed: int) -> None:
    rng = random.Random(seed)
    budget = rng.randrange(8, 40)
    scheduler = a_scheduler(budget=budget)
    running(scheduler, rng.randrange(1, 4))
    longest = rng.choice([budget, 3 * budget])
    shorts = Refilled(scheduler, rng.randrange(1, 7), lambda: rng.randrange(1, longest))
    n_held = 0
    for _ in range(200):
        shorts.refill()
        plan = scheduler.schedule()
        if rng.random() < 0.2:
            plan = scheduler.schedule(again=True)
        phases = [each.phase for each in scheduler.running()]
        short = [
            each
            for each in scheduler.running()
            if each.phase is Phase.PREFILL and each.n_left <= min(64, budget * 5 // 4)
        ]
        are_urgent = len(short) > phases.count(Phase.DECODE)
        assert held(scheduler, plan) is (are_urgent and n_held < 8)
        n_held = n_held + 1 if held(scheduler, plan) else 0
        compute(scheduler, plan)


def test_prompt_others_wait_for_counts_as_what_is_left_to_the_nearest() -> None:
    scheduler = a_scheduler(budget=10)
    leader, _, first, second = started(scheduler, 100, 50, 60, 70)
    for follower, join_at in [(first, 40), (second, 55)]:
        follower.phase, follower.leader, follower.join_at = Phase.WAITING, leader, join_at
    assert sizes(scheduler.schedule()) == {0: 10}


def test_chunks_end_where_cells_are_to_be_saved_or_copied() -> None:
    """Only where memory cannot be cut: elsewhere there are no checkpoints."""
    scheduler = a_scheduler(budget=32)
    leader, follower = started(scheduler, 100, 90)
    leader.checkpoints = (20, 99)
    follower.phase, follower.leader, follower.join_at = Phase.WAITING, leader, 45
    ends = []
    while leader.phase is Phase.PREFILL:
        plan = scheduler.schedule()
        for chunk in plan.chunks:
            scheduler.advance(chunk)
        ends.append(leader.n_cached)
        if leader.n_cached == 45:
            follower.phase, follower.leader, follower.join_at = Phase.FINISHED, None, 0
    assert ends == [20, 45, 99, 100], "alone for a while, so the third chunk is a whole batch"


def test_prompt_that_has_been_alone_for_a_while_is_computed_in_whole_batches() -> None:
    scheduler = a_scheduler(budget=8)
    started(scheduler, 300)
    alone = []
    for _ in range(4):
        plan = scheduler.schedule()
        compute(scheduler, plan)
        alone.append(plan.n_tokens)
    assert alone[:2] == [8, 8]
    assert alone[2] == alone[3] == min(scheduler.max_batch_tokens, 300 - 16)
    running(scheduler, 1)
    beside = scheduler.schedule()
    assert beside.n_tokens == 8 + 1, "somebody waits for the step again"


def test_prompts_with_logprobs_leave_a_row_to_everybody() -> None:
    scheduler = a_scheduler(max_outputs=11)
    running(scheduler, 3)
    started(scheduler, 50, 40, 10, scored=(3, 4))
    plan = scheduler.schedule()
    assert sum(chunk.n_outputs for chunk in plan.chunks) <= 11
    # 5 rows are spare: the shorter of the two has them all, the other one its own.
    assert sizes(plan) == {0: 1, 1: 1, 2: 1, 3: 1, 4: 6, 5: 10}
    scored = [s for s in scheduler.running() if s.scores is not None]
    while any(s.scores and not s.scores.is_complete for s in scored):
        plan = scheduler.schedule()
        assert sum(chunk.n_outputs for chunk in plan.chunks) <= 11
        compute(scheduler, plan)


def test_plan_lists_slots_in_increasing_order() -> None:
    scheduler = a_scheduler()
    sequences = [a_sequence(i, 3) for i in range(3)]
    for sequence, slot in zip(sequences, (2, 0, 1), strict=True):
        scheduler.submit(sequence)
        scheduler.start(sequence, SlotId(slot))
    assert list(sizes(scheduler.schedule())) == [0, 1, 2]


def test_plan_of_steady_decoding_is_made_once() -> None:
    scheduler = a_scheduler()
    first, second = running(scheduler, 2)
    plan = scheduler.schedule()
    assert not scheduler.has_news
    compute(scheduler, plan)
    assert scheduler.schedule() is plan
    changes = [
        lambda: scheduler.move(first, SlotId(7)),
        lambda: scheduler.start_over(second),
        lambda: scheduler.requeue(first),
        lambda: scheduler.start(first, SlotId(3)),
        lambda: scheduler.finish(first),
        lambda: scheduler.submit(a_sequence(9, 3)),
    ]
    for change in changes:
        change()
        assert scheduler.has_news
        compute(scheduler, scheduler.schedule())
        while scheduler.n_queued == 0 and scheduler.has_news:
            compute(scheduler, scheduler.schedule())


def test_those_who_had_to_leave_queue_by_age() -> None:
    scheduler = a_scheduler()
    first, second, third = started(scheduler, 5, 5, 5)
    scheduler.submit(a_sequence(7, 5))
    for sequence in (second, third, first):
        scheduler.requeue(sequence)
        scheduler.check_invariants()
    assert [s.request_id for s in scheduler.sequences()] == [0, 1, 2, 7]
    assert scheduler.head is first
    assert (scheduler.n_queued, scheduler.n_running) == (4, 0)


@pytest.mark.parametrize("seed", range(5))
def test_random_arrivals_departures_and_ends_keep_the_queue_by_age(seed: int) -> None:
    """Against a plain list."""
    rng = random.Random(seed)
    scheduler = a_scheduler()
    waiting: list[Sequence] = []
    running: dict[int, Sequence] = {}
    for number in range(300):
        scheduler.submit(a_sequence(number, 3))
        waiting.append(list(scheduler.sequences())[-1])
        what = rng.choice(["start", "start", "requeue", "finish", "wait"])
        if what == "start" and len(running) < 8:
            slot = next(slot for slot in range(8) if slot not in running)
            running[slot] = waiting.pop(0)
            scheduler.start(running[slot], SlotId(slot))
        elif what == "requeue" and running:
            sequence = running.pop(rng.choice(list(running)))
            scheduler.requeue(sequence)
            waiting = sorted([*waiting, sequence], key=age)
        elif what == "finish":
            sequence = rng.choice(waiting)
            assert scheduler.find(sequence.request_id) is sequence
            waiting.remove(sequence)
            scheduler.finish(sequence)
            assert scheduler.find(sequence.request_id) is None
        scheduler.check_invariants()
        assert scheduler.head is (waiting[0] if waiting else None)
        assert list(scheduler.sequences())[scheduler.n_running :] == waiting
    assert running


def test_find_knows_running_and_queued_sequences_until_they_finish() -> None:
    scheduler = a_scheduler()
    (first,) = started(scheduler, 5)
    second = a_sequence(1, 5)
    scheduler.submit(second)
    assert scheduler.find(RequestId(0)) is first
    assert scheduler.find(RequestId(1)) is second
    assert scheduler.find(RequestId(2)) is None
    assert scheduler.n_reserved_cells == 5 + 10_000 - 1
    for sequence in (first, second):
        scheduler.finish(sequence)
        assert scheduler.find(sequence.request_id) is None
    assert scheduler.is_idle
    assert scheduler.head is None
    assert scheduler.schedule().chunks == ()
    scheduler.check_invariants()


def test_start_over_makes_a_decoding_sequence_compute_all_it_knows() -> None:
    scheduler = a_scheduler()
    (sequence,) = running(scheduler, 1)
    compute(scheduler, scheduler.schedule())
    scheduler.start_over(sequence)
    assert (sequence.phase, sequence.n_left) == (Phase.PREFILL, 3)
    scheduler.start_over(sequence)
    plan = scheduler.schedule()
    assert [(chunk.n_tokens, chunk.yields_token) for chunk in plan.chunks] == [(3, True)]


def test_check_finds_two_owners_of_a_slot() -> None:
    scheduler = a_scheduler()
    first, second = started(scheduler, 5, 5)
    scheduler.check_invariants()
    second.slot = first.slot
    with pytest.raises(AssertionError, match="two owners"):
        scheduler.check_invariants()
