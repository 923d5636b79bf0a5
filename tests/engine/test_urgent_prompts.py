"""When prompts hold up those that decode, and for how long."""

import random
from collections.abc import Callable

import attrs
import pytest
from fakes.cache_play import Budget
from fakes.scheduling import Refilled, a_scheduler, compute, held, running, sizes, started

from tgi_llama.engine.prefill_budget import PrefillBudget
from tgi_llama.engine.sequence import Phase


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
        def n_tokens(self, n_decode: int, *, n_prompts: int = 0, spent_s: float = 0.0) -> int:  # noqa: ARG002 - the protocol's
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
    """A plan that is not carried out holds nobody up."""
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


def two_cores(n_decode: int, n_prefill: int) -> float:
    """Seconds of a step: a model of 0.5 B parameters, as measured."""
    return (0.034 + 0.002 * n_decode if n_decode else 0.0) + 0.0033 * n_prefill


def gpu(n_decode: int, n_prefill: int) -> float:
    """A chunk takes 5 ms, however small."""
    return (0.006 if n_decode else 0.0) + (max(0.005, 5e-5 * n_prefill) if n_prefill else 0.0)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("step_time", [two_cores, gpu])
@pytest.mark.parametrize("target_s", [None, 0.02, 0.1, 0.15, 0.6])
def test_streams_wait_for_a_few_targets_at_most(
    target_s: float | None, step_time: Callable[[int, int], float], seed: int
) -> None:
    """On a machine that is sometimes three times as slow as it was. What is noticed only afterwards
    comes on top: one step that takes so much longer."""
    rng = random.Random(seed)
    budget = PrefillBudget(target_s)
    scheduler = a_scheduler(max_batch=512)
    scheduler.budget = budget
    n_streams = rng.randrange(1, 4)
    running(scheduler, n_streams)
    shorts = Refilled(scheduler, rng.randrange(4, 8), lambda: rng.randrange(20, 40))
    waited_s, n_held = 0.0, 0
    for number in range(300):
        slowness = 3.0 if number % 100 > 80 else 1.0
        if number > 30:
            shorts.refill()
        plan = scheduler.schedule()
        n_decode = sum(not chunk.is_prefill for chunk in plan.chunks)
        seconds = slowness * step_time(n_decode, plan.n_tokens - n_decode)
        n_held += held(scheduler, plan)
        waited_s = waited_s + seconds if held(scheduler, plan) else 0.0
        most_s = 4 * budget.target_s(n_streams, n_prompts=shorts.n_slots)
        late_s = (1 - 1 / slowness) * seconds
        assert waited_s <= most_s + late_s
        compute(scheduler, plan)
        n_prefill = plan.n_tokens - n_decode
        scheduler.note(n_decode=n_decode, n_prefill=n_prefill, seconds=seconds)
    assert (n_held > 0) is (target_s is None or target_s > 0.02)


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
