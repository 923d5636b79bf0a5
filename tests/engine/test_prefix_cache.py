"""Prompts that begin alike: what is computed once, what is copied, and what never is."""

import random

import pytest
from fakes.cache_play import RefusingRunner, a_play, assert_given, own, played, slots_of, wants
from fakes.playbook import Playbook, alone

from tgi_llama.engine.model_runner import SlotId
from tgi_llama.engine.placement import Placement
from tgi_llama.engine.sequence import Sequence
from tgi_llama.errors import DecodeFailed, GenerationError, RequestCancelled
from tgi_llama.generation import CacheOutcome, Failed, GenerationRequest

LAYOUTS = pytest.mark.parametrize("layout", ["streams", "unified"])
MEMORIES = pytest.mark.parametrize("can_cut", [True, False])

STEM = own(0, 40)


def with_tail(number: int, *, stem: list[int] = STEM, n_tail: int = 8) -> list[int]:
    return stem + own(30 + number, n_tail)


def sharing(n: int, *, n_new: int = 6) -> list[GenerationRequest]:
    """Requests that have the first 40 of 48 tokens in common."""
    return [wants(with_tail(i), n_new, seed=i) for i in range(n)]


# Single flight


@LAYOUTS
@MEMORIES
@pytest.mark.parametrize("n", [2, 4, 9])
def test_beginning_of_requests_that_come_at_once_is_computed_once(
    n: int, can_cut: bool, layout: str
) -> None:
    play = a_play(layout=layout, can_cut=can_cut, n_slots=10)
    requests = sharing(n)
    ids = [play.submit(request) for request in requests]
    play.run_until_idle()
    assert_given(play, dict(zip(ids, requests, strict=True)))
    assert play.n_prefilled() == 40 + 8 * n
    assert play.outcomes() == [(CacheOutcome.UNKNOWN, 0), *[(CacheOutcome.SLOT, 40)] * (n - 1)]
    assert [play.n_cached(request_id) for request_id in ids] == [0] + [40] * (n - 1)
    play.check_all_over()


@LAYOUTS
@pytest.mark.parametrize("n_steps_before", range(6))
@pytest.mark.parametrize("victim", range(3))
@MEMORIES
def test_cancelled_request_leaves_what_it_has_computed_to_the_others(
    can_cut: bool, victim: int, n_steps_before: int, layout: str
) -> None:
    """The one that computes the beginning in chunks of 8, or one that waits for it."""
    play = a_play(layout=layout, can_cut=can_cut, max_batch=8)
    requests = sharing(3)
    ids = [play.submit(request) for request in requests]
    for _ in range(n_steps_before):
        play.step()
    play.cancel(ids[victim])
    play.run_until_idle()
    assert isinstance(play.error(ids[victim]), RequestCancelled)
    others = {i: r for i, r in zip(ids, requests, strict=True) if i != ids[victim]}
    assert_given(play, others)
    n_again = 0
    if victim == 0 and n_steps_before == 4:
        n_again = 8  # so little that the second follower does not wait for the first
    if victim == 0 and n_steps_before == 5 and not can_cut:
        n_again = 8  # the slot was copied at 40 and then went on
    assert play.n_prefilled() <= 40 + 8 * 3 + n_again
    play.check_all_over()


@LAYOUTS
@MEMORIES
def test_failure_of_who_computes_the_beginning_makes_another_compute_it(
    can_cut: bool, layout: str
) -> None:
    play = a_play(layout=layout, can_cut=can_cut)
    requests = sharing(4)
    ids = [play.submit(request) for request in requests]
    play.runner.failures.extend([None, DecodeFailed("lost")])
    play.run_until_idle()
    assert isinstance(play.error(ids[0]), GenerationError)
    assert_given(play, dict(zip(ids[1:], requests[1:], strict=True)))
    assert play.n_prefilled() == 16 + 16 + 40 + 8 * 3
    play.check_all_over()


@LAYOUTS
@MEMORIES
def test_chain_of_waiting_computes_every_part_once(can_cut: bool, layout: str) -> None:
    """The third shares more with the second, which waits for the first."""
    play = a_play(layout=layout, can_cut=can_cut)
    longer = STEM + own(7, 20)
    prompts = [with_tail(0, n_tail=30), longer + own(31, 10), longer + own(32, 10)]
    requests = [wants(prompt) for prompt in prompts]
    ids = [play.submit(request) for request in requests]
    play.step()
    waiting = [play.scheduler.find(request_id) for request_id in ids[1:]]
    assert [(w.leader.request_id, w.join_at) for w in waiting if w and w.leader] == [
        (ids[0], 40),
        (ids[1], 60),
    ]
    play.run_until_idle()
    assert_given(play, dict(zip(ids, requests, strict=True)))
    assert play.n_prefilled() == 70 + 30 + 10
    play.check_all_over()


@LAYOUTS
@MEMORIES
def test_long_chain_of_waiting_is_looked_at_once_a_step(
    can_cut: bool, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of twelve waits for the one before."""
    n_looks = 0
    look = Placement._follow

    def counted(self: Placement, sequence: Sequence) -> None:
        nonlocal n_looks
        n_looks += 1
        look(self, sequence)

    monkeypatch.setattr(Placement, "_follow", counted)
    play = a_play(layout=layout, can_cut=can_cut, n_slots=12, max_batch=32)
    stem = own(0, 240)
    requests = [wants(stem[: 20 + 17 * i] + own(30 + i, 3)) for i in range(12)]
    ids = [play.submit(request) for request in requests]
    play.step()
    waiting = [each for each in play.scheduler.running() if each.leader is not None]
    assert [each.leader.request_id for each in waiting if each.leader] == ids[:-1]
    while not play.scheduler.is_idle:
        n_waiting = sum(each.leader is not None for each in play.scheduler.running())
        n_before = n_looks
        play.step()
        assert n_looks - n_before == n_waiting
    assert n_looks > 12
    assert_given(play, dict(zip(ids, requests, strict=True)))
    assert play.n_prefilled() == 20 + 3 + 11 * (17 + 3)
    play.check_all_over()


@LAYOUTS
@MEMORIES
@pytest.mark.parametrize("seed", range(12))
def test_cancels_within_chains_never_leave_anybody_waiting(
    seed: int, can_cut: bool, layout: str
) -> None:
    """``run_until_idle`` and ``check`` would see a circle; every survivor gives its own answer."""
    rng = random.Random(seed)
    play = a_play(layout=layout, can_cut=can_cut, n_slots=8, max_batch=10, cache_ram=9999)
    requests = {}
    for number in range(8):
        cut = rng.choice([17, 20, 40])
        prompt = STEM[:cut] + own(rng.randrange(20, 23), rng.randrange(20, 40))
        request = wants(prompt + own(40 + number, 4), seed=number)
        requests[play.submit(request)] = request
    for request_id in rng.sample(list(requests), 4):
        for _ in range(rng.randrange(3)):
            play.step()
        play.cancel(request_id)
        if rng.random() < 0.3:
            play.runner.failures.append(DecodeFailed("lost"))
    play.run_until_idle()
    for request_id, request in requests.items():
        n_given = len(play.tokens(request_id))
        assert play.tokens(request_id) == alone(request)[:n_given]
        assert n_given == 4 or isinstance(play.events[request_id][-1], Failed)
    play.check_all_over()


def test_little_more_is_not_worth_waiting_for() -> None:
    """15 tokens beyond what is there at once are computed; 16 are waited for."""
    for n_more, n_prefilled in [(15, 25), (16, 10)]:
        play = a_play()
        played(play, wants(STEM))
        before = play.n_prefilled()
        stem = STEM + own(9, n_more)
        # The slot is copied twice, so the common part is not there yet.
        requests = [wants(stem + own(30 + i, 10), 2) for i in range(2)]
        ids = [play.submit(request) for request in requests]
        play.run_until_idle()
        assert_given(play, dict(zip(ids, requests, strict=True)))
        assert play.n_prefilled() - before == n_more + 10 + n_prefilled


# Who gives


def test_idle_slot_that_is_the_only_one_is_taken_over_and_cut() -> None:
    play = a_play(n_slots=1)
    played(play, wants(with_tail(0)))
    second = play.submit(wants(with_tail(1)))
    play.step()
    assert slots_of(play, [second]) == [0]
    assert play.placement.slots.n_idle == 0
    play.run_until_idle()
    assert play.n_cached(second) == 40
    play.check_all_over()


def test_idle_slot_of_which_all_was_copied_is_emptied() -> None:
    """A stream runs in slot 0, and what was next to it has ended: the newcomer comes there."""
    play = a_play(max_batch=128)
    first = wants(with_tail(0))
    play.submit(wants(own(9, 20), 60))
    play.submit(wants(own(8, 20), 2))
    play.submit(first)
    for _ in range(6):
        play.step()
    assert play.placement.slots.idle_slots() == (1, 2)
    longer = wants([*with_tail(0), *alone(first), 5, 6, 7])
    second = play.submit(longer)
    play.step()
    assert slots_of(play, [second]) == [1]
    assert play.placement.slots.idle_slots() == (3,), "what the newcomer found in its slot"
    assert play.runner.length(SlotId(2)) == 0
    play.run_until_idle()
    assert play.n_cached(second) == 48 + 3
    play.check_all_over()


@pytest.mark.parametrize("is_first_shorter", [True, False])
def test_of_equal_beginnings_the_one_in_the_shorter_slot_is_copied(is_first_shorter: bool) -> None:
    """Since the whole slot is copied. Whatever was copied counts as used last."""
    play = a_play(n_slots=3)
    lengths = (8, 30) if is_first_shorter else (30, 8)
    played(play, *(wants(with_tail(i, n_tail=n)) for i, n in enumerate(lengths)))
    play.placement.slots.touch(SlotId(is_first_shorter))
    request_id = play.submit(wants(with_tail(3)))
    play.step()
    assert slots_of(play, [request_id]) == [2]
    assert play.placement.slots.idle_slots()[-1] == lengths.index(8)
    play.run_until_idle()
    assert play.n_cached(request_id) == 40


def test_of_equal_beginnings_the_shorter_saved_state_is_restored() -> None:
    play = a_play(n_slots=1, cache_ram=10**6)
    played(play, *(wants(with_tail(i, n_tail=n)) for i, n in enumerate((30, 20, 40))))
    played(play, wants(own(9, 20)), wants(with_tail(3)))
    hits = {entry.state.length: entry.n_hits for entry in play.placement.host.entries()}
    assert hits == {73: 0, 63: 1, 83: 0, 23: 0}
    assert play.outcomes()[-1] == (CacheOutcome.HOST, 40)


@LAYOUTS
def test_idle_slot_is_taken_over_only_as_a_whole(layout: str) -> None:
    """Who cuts a slot loses what it had."""
    play = a_play(layout=layout)
    first = wants(with_tail(0))
    played(play, first)
    second = play.submit(wants(with_tail(1)))
    play.step()
    assert slots_of(play, [second]) == [1]
    assert play.placement.slots.is_idle(SlotId(0))
    n_copied = 0 if layout == "unified" else 40
    assert play.runner.n_cells_used == 51 + n_copied + 8
    third = play.submit(wants([*with_tail(0), *alone(first), 5, 6, 7]))
    play.step()
    assert slots_of(play, [third]) == [0]
    play.run_until_idle()
    assert [play.n_cached(i) for i in (second, third)] == [40, 51]
    play.check_all_over()


@LAYOUTS
@pytest.mark.parametrize("n_slots", [2, 1])
def test_newcomer_without_an_empty_slot_takes_another_idle_one_before_the_giver(
    n_slots: int, layout: str
) -> None:
    play = a_play(layout=layout, n_slots=n_slots, n_sequences=1)
    first, other = wants(with_tail(0)), wants(own(9, 20))
    played(play, *([first, other] if n_slots == 2 else [first]))
    second = play.submit(wants(with_tail(1)))
    play.step()
    assert slots_of(play, [second]) == [n_slots - 1]
    assert play.placement.slots.n_idle == n_slots - 1
    play.run_until_idle()
    assert play.n_cached(second) == 40


@LAYOUTS
def test_busy_slot_is_copied_while_it_decodes(layout: str) -> None:
    play = a_play(layout=layout)
    requests = sharing(3, n_new=20)
    ids = [play.submit(requests[0])]
    for request in requests[1:]:
        for _ in range(5):
            play.step()
        ids.append(play.submit(request))
    play.run_until_idle()
    assert_given(play, dict(zip(ids, requests, strict=True)))
    assert play.n_prefilled() == 40 + 3 * 8
    play.check_all_over()


def test_answer_of_a_running_request_is_found_only_after_its_end() -> None:
    """While it runs, it is known by its prompt."""
    play = a_play()
    first = wants(STEM, 20)
    play.submit(first)
    for _ in range(12):
        play.step()
    follow_up = wants([*STEM, *alone(first)[:8], 3])
    early = play.submit(follow_up)
    play.run_until_idle()
    late = play.submit(follow_up)
    play.run_until_idle()
    assert [play.n_cached(i) for i in (early, late)] == [40, 48]


@MEMORIES
def test_longest_beginning_wins(can_cut: bool) -> None:
    play = a_play(layout="unified", n_slots=8, n_sequences=4, can_cut=can_cut)
    turns = [wants(STEM[:10], 2), wants(own(5, 30), 2)]
    turns.append(wants([*STEM[:10], *alone(turns[0]), *own(8, 20)], 2))
    played(play, *turns)
    last = wants([*turns[2].prompt_ids, *alone(turns[2]), 9, 9])
    (request_id,) = played(play, last)
    assert play.n_cached(request_id) == len(turns[2].prompt_ids) + 1


# What comes of it


@pytest.mark.parametrize(
    ("prompt", "outcome", "n_cached"),
    [
        (STEM + own(31, 8), CacheOutcome.SLOT, 40),
        (STEM, CacheOutcome.SLOT, 39),
        (STEM[:5], CacheOutcome.SLOT, 4),
        (STEM[:4], CacheOutcome.SHORT, 0),
        (STEM[:3] + own(30, 9), CacheOutcome.SHORT, 0),
        (own(30, 9), CacheOutcome.UNKNOWN, 0),
        ([7], CacheOutcome.UNKNOWN, 0),
    ],
)
def test_outcome_says_where_the_beginning_came_from(
    prompt: list[int], outcome: CacheOutcome, n_cached: int
) -> None:
    """Fewer than 4 tokens are not worth it, and the last one has to be computed."""
    play = a_play()
    played(play, wants(STEM))
    (request_id,) = played(play, wants(prompt, 3, seed=1))
    assert play.outcomes()[1:] == [(outcome, n_cached)]
    assert play.n_cached(request_id) == n_cached
    assert play.n_prefilled() == 40 + len(prompt) - n_cached
    play.check_all_over()


def test_outcome_of_memory_that_cannot_be_cut_there() -> None:
    play = a_play(can_cut=False)
    played(play, wants(with_tail(0)), wants(with_tail(1)))
    assert play.outcomes() == [(CacheOutcome.UNKNOWN, 0), (CacheOutcome.UNCUTTABLE, 0)]


def test_outcome_off_computes_everything_and_keeps_nothing() -> None:
    play = a_play(prefix_cache=False, cache_ram=9999)
    played(play, wants(STEM), wants(STEM))
    play.submit_together([wants(STEM), wants(STEM)])
    play.run_until_idle()
    assert play.outcomes() == [(CacheOutcome.OFF, 0)] * 4
    assert play.n_prefilled() == 4 * 40
    assert play.runner.n_cells_used == 0
    assert play.placement.host.n_entries == 0
    play.check_all_over()


@pytest.mark.parametrize(
    ("refused", "layout", "n_slots"),
    [("copy", "streams", 2), ("copy", "unified", 2), ("truncate", "streams", 1)],
)
def test_outcome_failed_computes_the_prompt(refused: str, layout: str, n_slots: int) -> None:
    play = a_play(layout=layout, n_slots=n_slots, refused=[refused])
    play.submit(wants(with_tail(0)))
    play.run_until_idle()
    (request_id,) = played(play, wants(with_tail(1)))
    assert isinstance(play.runner, RefusingRunner)
    assert play.runner.n_refusals == 1
    assert play.outcomes()[-1] == (CacheOutcome.FAILED, 0)
    assert play.n_cached(request_id) == 0
    play.check_all_over()


# Prompts whose logprobs are wanted


def scored(number: int, *, seed: int = 0) -> GenerationRequest:
    return wants(with_tail(number), seed=seed, prompt_logprobs=True)


def logprobs(play: Playbook, request_id: object) -> list[float | None]:
    return [token.logprob for token in play.prompt_tokens(request_id)]  # type: ignore[arg-type]


@LAYOUTS
@MEMORIES
def test_prompt_whose_logprobs_are_wanted_uses_no_cells_of_others(
    can_cut: bool, layout: str
) -> None:
    """From idle and busy slots and from host memory, of the same prompt; and gives its own away."""
    play = a_play(layout=layout, can_cut=can_cut, cache_ram=9999)
    played(play, wants(with_tail(0)))
    play.submit(wants(with_tail(0), 30))
    play.step()
    before = play.n_prefilled()
    first = play.submit(scored(0))
    play.run_until_idle()
    assert play.n_prefilled() - before == 48
    assert play.n_cached(first) == 0
    assert play.outcomes()[-1] == (CacheOutcome.LOGPROBS, 0)
    assert len(logprobs(play, first)) == 48
    (second,) = played(play, wants(with_tail(0)))
    assert play.n_cached(second) == 47
    play.check_all_over()


@LAYOUTS
@MEMORIES
@pytest.mark.parametrize("n_slots", [1, 2, 4])
def test_branches_with_logprobs_share_one_computation_and_nothing_else(
    n_slots: int, can_cut: bool, layout: str
) -> None:
    play = a_play(layout=layout, can_cut=can_cut, n_slots=n_slots, cache_ram=9999)
    played(play, wants(with_tail(0)))
    before = play.n_prefilled()
    requests = [scored(0, seed=seed) for seed in range(3)]
    ids = play.submit_together(requests)
    other = play.submit(scored(0))
    play.run_until_idle()
    assert_given(play, dict(zip([*ids, other], [*requests, scored(0)], strict=True)))
    assert play.n_prefilled() - before == 2 * 48 + 2
    alone_play = a_play(prefix_cache=False)
    (reference,) = played(alone_play, scored(0))
    for request_id in (*ids, other):
        assert logprobs(play, request_id) == logprobs(alone_play, reference)
    play.check_all_over()


@pytest.mark.parametrize("n_steps_before", range(1, 9))
@MEMORIES
def test_branch_takes_over_the_logprobs_of_one_that_is_cancelled(
    can_cut: bool, n_steps_before: int
) -> None:
    """Whatever of them it has: the rest comes from the branch's own rows."""
    play = a_play(can_cut=can_cut, max_batch=8)
    requests = [scored(0, seed=seed) for seed in range(3)]
    ids = play.submit_together(requests)
    for _ in range(n_steps_before):
        play.step()
    play.cancel(ids[0])
    play.run_until_idle()
    assert_given(play, dict(zip(ids[1:], requests[1:], strict=True)))
    alone_play = a_play(prefix_cache=False)
    (reference,) = played(alone_play, scored(0))
    for request_id in ids[1:]:
        assert logprobs(play, request_id) == logprobs(alone_play, reference)
    play.check_all_over()
