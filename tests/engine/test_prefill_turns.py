"""Which prompt gets how much of a step."""

import random

import pytest
from fakes.scheduling import Refilled, a_scheduler, compute, running, sizes, started

from tgi_llama.engine.prefill_budget import PrefillBudget
from tgi_llama.engine.sequence import Phase
from tgi_llama.generation import TokenId


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


@pytest.mark.parametrize(("n_forced", "n_of_prompt"), [(0, 65), (8, 49), (17, 41), (50, 9)])
def test_forced_tokens_of_a_step_are_taken_from_its_prompts(
    n_forced: int, n_of_prompt: int
) -> None:
    """The target, 64 tokens, is for the whole step. At least eight are left to the prompts, and
    their chunks have the sizes that they always have."""
    scheduler = a_scheduler(max_batch=512)
    budget = PrefillBudget(0.01 + 64.5 * 0.003)
    for n_prefill in (0,) * 9 + (64,) * 9:
        budget.note(n_decode=2, n_prefill=n_prefill, seconds=0.01 + n_prefill * 0.003)
    scheduler.budget, scheduler.n_beside = budget, 1
    first, _ = running(scheduler, 2)
    started(scheduler, 1000)
    first.force([TokenId(3)] * n_forced, is_end=False)
    assert sizes(scheduler.schedule()) == {0: 1 + n_forced, 1: 1, 2: n_of_prompt}


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


def test_prompt_others_wait_for_counts_as_what_is_left_to_the_nearest() -> None:
    scheduler = a_scheduler(budget=10)
    leader, _, first, second = started(scheduler, 100, 50, 60, 70)
    for follower, join_at in [(first, 40), (second, 55)]:
        follower.phase, follower.leader, follower.join_at = Phase.WAITING, leader, join_at
    assert sizes(scheduler.schedule()) == {0: 10}


def test_chunks_end_where_cells_are_to_be_saved_or_copied() -> None:
    """Only where memory cannot be cut."""
    scheduler = a_scheduler(budget=32)
    scheduler.can_cut = False
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
