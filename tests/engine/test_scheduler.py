"""Who waits, runs and ends, and what a plan is. The scheduler alone."""

import random

import pytest
from fakes.cache_play import Budget
from fakes.scheduling import a_scheduler, a_sequence, compute, running, sizes, started

from tgi_llama.engine.model_runner import SlotId
from tgi_llama.engine.sequence import Phase, Sequence, age
from tgi_llama.generation import RequestId, TokenId


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


def test_leap_that_a_step_has_no_time_for_is_made_by_the_next_one() -> None:
    scheduler = a_scheduler(budget=4)
    scheduler.fewest_leapt = 5
    first, _ = running(scheduler, 2)
    first.force([TokenId(3)] * 4, is_end=False)
    scheduler.note_forced(first)
    assert sizes(scheduler.schedule()) == {0: 1, 1: 1}
    assert not scheduler.has_news, "too few are computed one a step"
    first.force([TokenId(3)], is_end=False)
    scheduler.note_forced(first)
    assert sizes(scheduler.schedule()) == {0: 1, 1: 1}
    assert scheduler.has_news
    scheduler.budget = Budget(now=5)
    assert sizes(scheduler.schedule()) == {0: 6, 1: 1}


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
