"""The unified layout with more cells promised than there are: who leaves, and who comes back."""

import attrs
import pytest
from fakes.cache_play import (
    STEM,
    Budget,
    RefusingRunner,
    a_play,
    assert_given,
    own,
    played,
    probe,
    wants,
    with_tail,
)
from fakes.playbook import Playbook, alone
from fakes.runner import noisy

from tgi_llama.engine.model_runner import Batch
from tgi_llama.engine.sequence import Phase
from tgi_llama.errors import OutOfCells, RequestCancelled, ShuttingDown
from tgi_llama.generation import CacheOutcome, GenerationRequest, RequestId, TokenEvent

MEMORIES = pytest.mark.parametrize("can_cut", [True, False])


def test_newcomer_without_cells_leaves_again_rather_than_fail() -> None:
    """A stream grows while two requests wait for one prompt. The one that computes it has to leave
    just before its end; then the other one would need all of its cells at once."""
    budget = Budget(now=4)
    play = a_play(layout="unified", n_slots=6, n_cells=150, max_batch=128, budget=budget)
    prompt = own(1, 70)
    requests = [wants(own(0, 20), 130), wants(prompt, 5, seed=1), wants(prompt, 5, seed=2)]
    stream = play.submit(requests[0])
    play.step()
    first, second = play.submit(requests[1]), play.submit(requests[2])
    play.step()
    budget.now = 1
    while play.n_preempted() == 0:
        play.step()
    assert play.queued() == [first]
    budget.now = 128
    play.step()
    assert play.queued() == [first, second], "the older one is the first to come back"
    play.run_until_idle()
    assert_given(play, dict(zip([stream, first, second], requests, strict=True)))
    play.check_all_over()


def test_sequence_that_comes_back_joins_only_once() -> None:
    """Without memory for its cells, in the middle of its prompt."""
    play = a_play(layout="unified", n_cells=200, max_prefill=8, n_bytes_free=0)
    requests = [wants(own(0, 20), 8), wants(own(1, 60), 5)]
    ids = [play.submit(request) for request in requests]
    play.runner.failures.extend([None] * 3 + [OutOfCells("full")])
    play.run_until_idle()
    assert play.n_preempted() == 1
    assert sum(publication.report.n_joined for publication in play.publications) == 2
    assert_given(play, dict(zip(ids, requests, strict=True)))
    play.check_all_over()


N_PROMISED = 3
"""How many times all cells the requests below may need at the same time."""


def oversubscribed(play: Playbook) -> dict[RequestId, GenerationRequest]:
    requests = [wants(own(i, 10 + 3 * i), 110 - 3 * i, seed=i) for i in range(6)]
    assert sum(len(r.prompt_ids) + 110 for r in requests) > N_PROMISED * play.plan.n_cells
    return {play.submit(request): request for request in requests}


def small_unified_play(
    *, can_cut: bool = True, cache_ram: int = 0, n_bytes_free: int | None = None
) -> Playbook:
    return a_play(
        layout="unified",
        n_slots=8,
        n_sequences=6,
        n_cells=240,
        can_cut=can_cut,
        cache_ram=cache_ram,
        n_bytes_free=n_bytes_free,
    )


@MEMORIES
@pytest.mark.parametrize("cache_ram", [0, 1000, 10**6])
@pytest.mark.parametrize("n_bytes_free", [None, 150, 0])
def test_oversubscribed_requests_give_what_each_gives_alone(
    n_bytes_free: int | None, cache_ram: int, can_cut: bool
) -> None:
    """Saved and resumed, or, where there is no memory for that, computed again."""
    play = small_unified_play(can_cut=can_cut, cache_ram=cache_ram, n_bytes_free=n_bytes_free)
    requests = oversubscribed(play)
    has_run: set[RequestId] = set()
    while not (play.scheduler.is_idle and play.commands.empty()):
        play.step()
        has_run |= {sequence.request_id for sequence in play.scheduler.running()}
        unfinished = [sequence.request_id for sequence in play.scheduler.sequences()]
        assert play.queued() == sorted(play.queued())
        assert not unfinished or min(unfinished) not in play.queued(), "the oldest never leaves"
    assert play.n_preempted() > 3
    assert_given(play, requests)
    if n_bytes_free is None:
        assert play.n_prefilled() == sum(len(r.prompt_ids) for r in requests.values())
    play.check_all_over()


@pytest.mark.parametrize("cache_ram", [0, 10**6])
def test_cells_are_not_saved_into_memory_that_others_need(cache_ram: int) -> None:
    """Where the system has too little, it ends the process rather than refuse."""
    free = [64 * 2**20]
    play = a_play(
        layout="unified",
        n_slots=8,
        n_sequences=6,
        n_cells=240,
        cache_ram=cache_ram,
        free_bytes=lambda: free[0],
    )
    requests = oversubscribed(play)
    while play.n_preempted() < 2:
        play.step()
    assert play.placement.host.pinned_bytes == 0
    free[0] += 10**6
    while play.placement.host.pinned_bytes == 0:
        play.step()
    play.run_until_idle()
    assert_given(play, requests)
    assert play.n_prefilled() > sum(len(r.prompt_ids) for r in requests.values())
    play.check_all_over()


def preempted_play(**options: object) -> tuple[Playbook, dict[RequestId, GenerationRequest]]:
    """Up to the step in which the first two have had to leave."""
    play = small_unified_play(**options)  # type: ignore[arg-type]
    requests = oversubscribed(play)
    while play.n_preempted() < 2:
        play.step()
    assert play.placement.host.pinned_bytes > 0
    return play, requests


def test_cancelled_while_preempted_frees_its_saved_cells() -> None:
    play, requests = preempted_play()
    (victim, *others) = play.queued()
    before = play.placement.host.n_bytes
    play.cancel(victim)
    play.step()
    assert isinstance(play.error(victim), RequestCancelled)
    assert play.placement.host.n_bytes < before
    for other in others:
        play.cancel(other)
    play.step()
    assert play.placement.host.n_bytes == 0
    play.run_until_idle()
    gone = {victim, *others}
    assert_given(play, {i: r for i, r in requests.items() if i not in gone})
    play.check_all_over()


def test_stop_while_some_are_preempted_ends_each_once() -> None:
    play, requests = preempted_play(cache_ram=10**6)
    play.stop()
    assert not play.step()
    assert all(isinstance(play.error(request_id), ShuttingDown) for request_id in requests)
    assert play.placement.host.n_bytes == 0
    play.check_all_over()


def test_preempted_in_its_prompt_goes_on_in_its_prompt() -> None:
    play = a_play(layout="unified", n_cells=120, max_batch=32, max_prefill=4)
    requests = [wants(own(0, 20), 70), wants(own(1, 50), 5)]
    ids = [play.submit(requests[0])]
    play.step()
    ids.append(play.submit(requests[1]))
    for _ in range(5):
        play.step()
    play.runner.failures.append(OutOfCells("full"))
    play.step()
    (sequence,) = (s for s in play.scheduler.sequences() if s.request_id == ids[1])
    assert (sequence.phase, sequence.n_cached) == (Phase.QUEUED, 20)
    play.run_until_idle()
    assert_given(play, dict(zip(ids, requests, strict=True)))
    assert play.n_prefilled() == 20 + 50 + 4, "the chunk that was refused is done again"
    play.check_all_over()


def test_saved_cells_that_cannot_be_restored_are_computed_again() -> None:
    play, requests = preempted_play()
    assert isinstance(play.runner, RefusingRunner)
    play.runner.refused.add("restore")
    play.run_until_idle()
    assert_given(play, requests)
    assert play.n_prefilled() > sum(len(r.prompt_ids) for r in requests.values())
    play.check_all_over()


def test_queued_prompt_waits_until_its_tokens_and_some_growth_fit() -> None:
    play = a_play(layout="unified", n_cells=100, max_batch=64)
    first, second = play.submit(wants(own(0, 40), 9)), play.submit(wants(own(1, 40), 9))
    play.step()
    assert play.queued() == [second], "40 + 40 cells and twice 16 are more than 100"
    while play.tokens(first) != alone(wants(own(0, 40), 9)):
        play.step()
    play.step()
    assert play.queued() == []
    play.run_until_idle()
    assert play.n_preempted() == 0


def test_shared_cells_are_counted_once_when_a_prompt_is_admitted() -> None:
    play = a_play(layout="unified", n_cells=300, max_batch=64)
    play.submit(wants(STEM, 30))
    play.step()
    ids = [play.submit(wants(with_tail(i, n_tail=95), 3)) for i in range(2)]
    play.step()
    assert play.queued() == []
    play.run_until_idle()
    assert [play.n_cached(request_id) for request_id in ids] == [40, 40]
    play.check_all_over()


def test_idle_cells_count_as_free_when_a_prompt_is_admitted() -> None:
    play = a_play(layout="unified", n_cells=200, max_batch=64)
    played(play, wants(own(1, 40), 5))
    play.submit(wants(own(2, 20), 30))
    play.step()
    assert play.placement.slots.n_idle == 1
    play.submit(wants(own(3, 130), 3))
    play.step()
    assert play.queued() == []
    play.run_until_idle()
    assert play.n_preempted() == 0
    play.check_all_over()


def test_idle_slots_give_way_before_anybody_has_to_leave() -> None:
    play = a_play(layout="unified", n_slots=8, n_sequences=2, n_cells=200, cache_ram=10**6)
    played(play, wants(own(5, 30), 10), wants(own(6, 10), 2))
    assert play.placement.slots.n_idle == 2
    requests = [wants(own(i, 40), 55) for i in range(2)]
    ids = [play.submit(request) for request in requests]
    play.run_until_idle()
    assert_given(play, dict(zip(ids, requests, strict=True)))
    assert play.n_preempted() == 0
    assert (CacheOutcome.HOST, 29) in probe(play, own(5, 30))
    play.check_all_over()


def test_idle_slots_keep_a_quarter_of_the_shared_cells_while_somebody_runs() -> None:
    play = a_play(layout="unified", n_slots=8, n_cells=200)
    for number in range(5):
        play.submit(wants(own(number, 20), 2))
        play.step()
        assert play.runner.n_cells_used <= 50 + 20
        play.run_until_idle()
    assert play.placement.slots.n_idle == 3
    assert probe(play, own(3, 20)) == [(CacheOutcome.SLOT, 19)]
    assert probe(play, own(1, 20)) == [(CacheOutcome.UNKNOWN, 0)]


def test_idle_slot_of_more_than_a_quarter_stays_until_another_runs() -> None:
    play = a_play(layout="unified", n_slots=8, n_cells=200)
    played(play, wants(own(0, 80)))
    assert play.placement.ledger.n_used == 83
    assert probe(play, own(0, 80)) == [(CacheOutcome.SLOT, 79)], "most of it is in use then"
    assert probe(play, own(0, 80)) == [(CacheOutcome.SLOT, 79)]
    play.cancel(play.submit(wants(own(1, 16))))
    play.step()
    assert play.placement.ledger.n_used > 50, "nobody ran"
    play.submit(wants(own(1, 16)))
    play.step()
    assert play.placement.ledger.n_used == 16
    play.run_until_idle()
    assert probe(play, own(0, 80)) == [(CacheOutcome.UNKNOWN, 0)]
    play.check_all_over()


# Preempted without its cells


@MEMORIES
def test_preempted_without_its_cells_takes_its_beginning_from_a_neighbour(can_cut: bool) -> None:
    """It is neither counted nor reported a second time."""
    play = a_play(layout="unified", n_cells=400, can_cut=can_cut, max_batch=64, n_bytes_free=0)
    requests = [wants(with_tail(0), 20), wants(with_tail(1), 20)]
    ids = [play.submit(request) for request in requests]
    for _ in range(5):
        play.step()
    n_prefilled, n_generated = play.n_prefilled(), len(play.tokens(ids[1]))
    assert n_prefilled == 40 + 2 * 8
    third = wants(STEM, 30)
    play.runner.failures.append(OutOfCells("full"))
    play.step()
    assert play.queued() == [ids[1]]
    play.run_until_idle()
    ids.append(play.submit(third))
    play.run_until_idle()
    assert_given(play, dict(zip(ids, [*requests, third], strict=True)))
    assert play.n_preempted() == 1
    n_again = 8 + n_generated + (0 if can_cut else 40)
    n_of_third = 1 if can_cut else 40
    assert play.n_prefilled() - n_prefilled == n_again + n_of_third
    assert play.n_cached(ids[1]) == 40, "as when it came"
    outcomes = [(CacheOutcome.UNKNOWN, 0), (CacheOutcome.SLOT, 40)]
    assert play.outcomes()[:2] == outcomes
    assert len(play.outcomes()) == 3
    play.check_all_over()


@MEMORIES
def test_saved_cells_that_cannot_be_restored_are_taken_from_a_neighbour(can_cut: bool) -> None:
    """Where that has them still; it is neither counted nor reported a second time."""
    play = a_play(layout="unified", n_cells=400, can_cut=can_cut, max_batch=64)
    requests = [wants(with_tail(0), 20), wants(with_tail(1), 20)]
    ids = [play.submit(request) for request in requests]
    for _ in range(5):
        play.step()
    n_prefilled, n_generated = play.n_prefilled(), len(play.tokens(ids[1]))
    assert isinstance(play.runner, RefusingRunner)
    play.runner.refused.add("restore")
    play.runner.failures.append(OutOfCells("full"))
    play.step()
    assert play.queued() == [ids[1]]
    play.run_until_idle()
    assert play.runner.n_refusals == 1
    assert_given(play, dict(zip(ids, requests, strict=True)))
    n_again = 8 + n_generated + (0 if can_cut else 40)
    assert play.n_prefilled() - n_prefilled == n_again
    assert len(play.outcomes()) == 2
    play.check_all_over()


def test_preempted_without_its_cells_keeps_the_start_it_had_while_it_waits_for_another() -> None:
    """A long prompt whose logprobs are wanted starts only after the short one's first token. Then
    the cells of both the idle slot and the short one go."""
    budget = Budget()
    play = a_play(layout="unified", n_cells=400, max_batch=64, n_bytes_free=0, budget=budget)
    played(play, wants(STEM))
    budget.now = 4
    long = wants(with_tail(0, n_tail=100), prompt_logprobs=True)
    short = wants(with_tail(1), 20)
    ids = [play.submit(long), play.submit(short)]
    play.runner.failures.extend([None, None, OutOfCells("full"), OutOfCells("full")])
    for _ in range(4):
        play.step()
    assert play.queued() == [ids[1]]
    play.step()
    play.step()
    waiting = play.scheduler.find(ids[1])
    assert waiting is not None
    assert waiting.phase is Phase.WAITING
    assert waiting.leader is not None
    assert waiting.leader.started > waiting.first_token > 0.0
    play.run_until_idle()
    assert_given(play, dict(zip(ids, [long, short], strict=True)))
    last = play.events[ids[1]][-1]
    assert isinstance(last, TokenEvent)
    assert last.finish is not None
    assert last.finish.timings.started <= last.finish.timings.first_token
    assert play.n_cached(ids[1]) == 40
    play.check_all_over()


# llama.cpp has fewer cells than the books say


@attrs.define(eq=False)
class CountingRunner(RefusingRunner):
    n_out_of_cells: int = 0

    def decode(self, batch: Batch) -> None:
        try:
            super().decode(batch)
        except OutOfCells:
            self.n_out_of_cells += 1
            raise


@MEMORIES
@pytest.mark.parametrize("n_bytes_free", [None, 0])
@pytest.mark.parametrize("n_idle", [0, 3])
def test_fewer_cells_than_planned_serve_everybody_all_the_same(
    n_idle: int, n_bytes_free: int | None, can_cut: bool
) -> None:
    """As with sliding windows. Every request fits alone, and whoever had to leave waits for a step
    that works, so the number of decodes stays near that of serving one after the other. How many
    there are is found out by a few decodes that are refused."""
    runner = CountingRunner(
        n_slots=12,
        max_batch_tokens=64,
        script=noisy,
        layout="unified",
        can_cut=can_cut,
        n_cells=100,
        n_bytes_free=n_bytes_free,
    )
    play = Playbook(
        runner=runner, n_sequences=6, n_cells=512, cells_per_sequence=100, max_prefill_tokens=64
    )
    played(play, *(wants(own(20 + number, 20), 2) for number in range(n_idle)))
    assert play.placement.slots.n_idle == n_idle
    n_before = len(runner.batches)
    requests = [wants(own(number, 40), 20, seed=number) for number in range(5)]
    ids = [play.submit(request) for request in requests]
    play.run_until_idle(max_steps=1000)
    assert_given(play, dict(zip(ids, requests, strict=True)))
    n_one_by_one = sum(request.stopping.max_new_tokens for request in requests)
    assert len(runner.batches) - n_before <= 1.2 * n_one_by_one
    assert 1 <= runner.n_out_of_cells <= 6
    play.check_all_over()
