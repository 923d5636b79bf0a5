"""Who may pass the first in the queue: the queue alone, then with slots and cells."""

import random
from collections.abc import Callable

import pytest
from fakes.cache_play import a_play, assert_given, own, wants
from fakes.playbook import Playbook
from fakes.scheduling import a_sequence

from tgi_llama.engine.prefix_cache import Finding, PrefixCache
from tgi_llama.engine.sequence import Sequence, age
from tgi_llama.engine.waiting_queue import WaitingQueue
from tgi_llama.generation import GenerationRequest, RequestId

MOST_PASSES = 16


def a_queue(*lengths: int) -> tuple[WaitingQueue, list[Sequence]]:
    queue = WaitingQueue()
    sequences = [a_sequence(number, length) for number, length in enumerate(lengths)]
    for sequence in sequences:
        queue.append(sequence)
    queue.check_invariants()
    return queue, sequences


def test_passers_are_the_oldest_of_each_size_but_for_the_head() -> None:
    queue, (_, first, second, _, small, _) = a_queue(900, 800, 700, 805, 5, 5)
    assert queue.passers() == [first, second, small]


def test_empty_queue_has_neither_head_nor_passers() -> None:
    queue, _ = a_queue()
    assert (len(queue), queue.head, queue.passers()) == (0, None, [])


def test_head_is_passed_so_often_and_no_more() -> None:
    queue, (head, *others) = a_queue(900, *[5] * 20)
    for n_passed, other in enumerate(others[:MOST_PASSES]):
        assert queue.passers() == [other]
        assert head.n_passed == n_passed
        queue.take(other)
    assert queue.passers() == []
    queue.take(head)
    following = queue.head
    assert following is others[MOST_PASSES]
    assert queue.passers() == [others[MOST_PASSES + 1]]
    assert following.n_passed == 0


def test_who_leaves_the_queue_for_good_has_passed_nobody() -> None:
    queue, (head, other) = a_queue(900, 5)
    queue.remove(other)
    assert head.n_passed == 0
    with pytest.raises(KeyError):
        queue.remove(other)


def test_older_one_that_comes_back_is_the_head_again() -> None:
    queue, (first, second, third) = a_queue(40, 40, 40)
    queue.take(first)
    queue.take(second)
    for sequence in (second, first):
        queue.put_back(sequence)
        queue.check_invariants()
    assert list(queue) == [first, second, third]
    queue.take(first)
    assert second.n_passed == 0


@pytest.mark.parametrize("seed", range(10))
def test_random_queue_gives_what_a_list_gives(seed: int) -> None:
    rng = random.Random(seed)
    queue = WaitingQueue()
    waiting: list[Sequence] = []
    out: list[Sequence] = []
    for number in range(400):
        new = a_sequence(number, rng.choice([rng.randrange(1, 20), rng.randrange(1, 3000)]))
        queue.append(new)
        waiting.append(new)
        if rng.random() < 0.6:
            chosen = rng.choice(queue.passers() or waiting[:1])
            queue.take(chosen)
            waiting.remove(chosen)
            out.append(chosen)
        if out and rng.random() < 0.2:
            back = out.pop(rng.randrange(len(out)))
            queue.put_back(back)
            waiting = sorted([*waiting, back], key=age)
        queue.check_invariants()
        assert list(queue) == waiting
        passers = queue.passers()
        assert passers == sorted(passers, key=age)
        if passers:
            for each in waiting[1:]:
                size = len(each.tokens)
                assert any(
                    age(p) <= age(each) and size / 1.25 <= len(p.tokens) <= size * 1.25
                    for p in passers
                )


# With slots and cells


def unified(n_cells: int = 200, n_slots: int = 8) -> Playbook:
    return a_play(layout="unified", n_slots=n_slots, n_cells=n_cells, max_batch=64, max_prefill=64)


def test_small_request_passes_one_that_waits_for_cells() -> None:
    play = unified()
    requests = [wants(own(0, 20), 60), wants(own(1, 150), 5), wants(own(2, 5), 3)]
    ids = [play.submit(request) for request in requests]
    play.step()
    assert play.queued() == [ids[1]]
    while not play.scheduler.is_idle:
        play.step()
        if ids[1] in play.queued():
            assert play.tokens(ids[1]) == []
    assert_given(play, dict(zip(ids, requests, strict=True)))
    play.check_all_over()


def test_passers_do_not_take_the_cells_that_those_who_run_need_next() -> None:
    """80 of 100 cells are in use, and each of two needs 16 to grow."""
    play = unified(n_cells=100)
    ids = [play.submit(wants(own(0, 60), 20)), play.submit(wants(own(1, 60), 5))]
    play.step()
    small = play.submit(wants(own(2, 9), 3))
    play.step()
    assert play.queued() == [ids[1], small]
    tiny = play.submit(wants(own(3, 3), 3))
    play.step()
    assert play.queued() == [ids[1], small]
    assert play.tokens(tiny)
    play.run_until_idle()
    play.check_all_over()


def test_large_prompt_that_others_have_computed_passes_one_that_needs_its_own_cells() -> None:
    play = unified(n_cells=300)
    stem = own(0, 150)
    play.submit(wants(stem, 60))
    play.step()
    head = play.submit(wants(own(1, 200), 5))
    sharing = play.submit(wants([*stem, 7, 8, 9], 5))
    play.step()
    assert play.queued() == [head]
    play.run_until_idle()
    assert play.n_cached(sharing) == 150
    play.check_all_over()


def test_streams_layout_keeps_the_order_of_arrival() -> None:
    play = a_play(n_slots=1)
    ids = [play.submit(wants(own(i, n), 5)) for i, n in enumerate((10, 100, 5))]
    play.step()
    assert play.queued() == ids[1:]
    play.run_until_idle()
    play.check_all_over()


def admissions(play: Playbook, before: Callable[[], object]) -> dict[RequestId, int]:
    """Plays to the end, with ``before`` before each step. How many newer ones got a slot while the
    request was the first in the queue, for each that ever was."""
    n_passed: dict[RequestId, int] = {}
    seen: set[RequestId] = set()
    before()
    while not (play.scheduler.is_idle and play.commands.empty()):
        head = play.scheduler.head
        play.step()
        running = {each.request_id for each in play.scheduler.running()}
        if head is not None and head.request_id in play.queued():
            n_passed.setdefault(head.request_id, 0)
            n_passed[head.request_id] += sum(each > head.request_id for each in running - seen)
        seen |= running
        before()
    return n_passed


def test_endless_small_requests_pass_the_head_sixteen_times() -> None:
    play = unified(n_cells=200, n_slots=4)
    play.submit(wants(own(0, 20), 60))
    head = play.submit(wants(own(1, 150), 5))
    play.step()
    sequence = play.scheduler.find(head)
    assert sequence is not None
    n_small = 0
    while not play.tokens(head):
        while len(play.queued()) + play.commands.qsize() < 4:
            play.submit(wants(own(2 + n_small % 50, 4), 6))
            n_small += 1
        play.step()
        assert n_small < 100
    assert sequence.n_passed == MOST_PASSES
    assert n_small > MOST_PASSES
    play.run_until_idle()
    play.check_all_over()


def random_request(rng: random.Random, n_cells: int) -> GenerationRequest:
    n_prompt = rng.choice([rng.randrange(1, 12), rng.randrange(1, n_cells - 40)])
    return wants(own(rng.randrange(60), n_prompt), rng.randrange(1, 40), seed=rng.randrange(9))


@pytest.mark.parametrize("seed", range(30))
def test_random_arrivals_starve_nobody(seed: int) -> None:
    """Each is passed a bounded number of times while it is the first, whatever the sizes, also by
    those that had to give their cells up, and gives what it gives alone."""
    rng = random.Random(seed)
    n_cells = rng.choice([100, 200, 300])
    play = unified(n_cells=n_cells, n_slots=rng.randrange(3, 9))
    requests: dict[RequestId, GenerationRequest] = {}

    def arrive() -> None:
        while len(requests) < 120 and (rng.random() < 0.4 or play.scheduler.is_idle):
            request = random_request(rng, n_cells)
            requests[play.submit(request)] = request
            if play.scheduler.is_idle:
                break

    n_passed = admissions(play, arrive)
    assert len(requests) == 120
    assert 0 < max(n_passed.values()) <= MOST_PASSES
    assert_given(play, requests)
    play.check_all_over()


def test_step_with_hundreds_in_the_queue_looks_at_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts are what costs: a look-up goes through all tokens of one."""
    n_lookups = 0
    find = PrefixCache.find

    def counted(self: PrefixCache, sequence: Sequence) -> Finding:
        nonlocal n_lookups
        n_lookups += 1
        return find(self, sequence)

    monkeypatch.setattr(PrefixCache, "find", counted)
    rng = random.Random(3)
    play = unified(n_cells=300)
    play.submit(wants(own(0, 100), 150))
    play.step()
    ids = [play.submit(wants(own(1 + i % 60, rng.randrange(180, 280)), 5)) for i in range(500)]
    play.step()
    assert n_lookups <= 1 + 1 + 4, "the first, the head, and four behind it"
    for _ in range(20):
        n_before = n_lookups
        play.step()
        assert n_lookups - n_before <= 1, "nobody has come or gone"
    play.submit(wants(own(0, 5), 3))
    n_before = n_lookups
    play.step()
    assert n_lookups - n_before <= (1 + 4 + 1) + (1 + 4), "for one that passes, and in vain"
    for request_id in ids:
        play.cancel(request_id)
    play.run_until_idle()
    play.check_all_over()
