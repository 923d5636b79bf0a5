"""Which slot a newcomer gets, and where that goes which was in its way (streams layout)."""

import random

import pytest
from fakes.cache_play import (
    STEM,
    RefusingRunner,
    a_play,
    assert_given,
    own,
    played,
    probe,
    slots_of,
    wants,
    with_tail,
)
from fakes.playbook import Playbook, alone

from tgi_llama.generation import CacheOutcome, GenerationRequest, RequestId

LAYOUTS = pytest.mark.parametrize("layout", ["streams", "unified"])


def placed(play: Playbook, prompt: list[int], n: int = 4) -> int | None:
    """The slot that a request gets in the next step."""
    request_id = play.submit(wants(prompt, n))
    play.step()
    return slots_of(play, [request_id])[0]


# Nobody is busy


def test_idle_slot_that_is_wholly_wanted_is_taken_in_place() -> None:
    play = a_play(refused=["copy"])
    first = wants(STEM)
    played(play, wants(own(9, 20)), first)
    assert placed(play, [*STEM, *alone(first), 5, 6]) == 1
    assert play.placement.slots.idle_slots() == (0,)
    assert play.outcomes()[-1] == (CacheOutcome.SLOT, 43)


def test_empty_slot_is_taken_before_an_idle_one_is_cut() -> None:
    play = a_play()
    played(play, wants(with_tail(0)), wants(own(9, 20)))
    assert placed(play, with_tail(1)) == 2
    play.run_until_idle()
    assert play.outcomes()[-1] == (CacheOutcome.SLOT, 40)
    assert probe(play, with_tail(0)) == [(CacheOutcome.SLOT, 47)]


def test_slot_used_longest_ago_is_taken_where_none_is_empty() -> None:
    """The giver is not, though it is the one."""
    play = a_play(n_slots=3)
    played(play, *(wants(prompt) for prompt in (with_tail(0), own(8, 20), own(9, 20))))
    assert placed(play, own(10, 20)) == 0
    play.run_until_idle()
    assert placed(play, [*own(8, 15), 5, 6]) == 2
    play.run_until_idle()
    assert play.outcomes()[-1] == (CacheOutcome.SLOT, 15)
    play.check_all_over()


def test_chats_that_take_turns_reuse_their_histories_without_host_memory() -> None:
    play = a_play(cache_ram=0)
    chats = [own(0, 60), own(1, 60)]
    ids = played(play, *(wants(chats[i % 2]) for i in range(5)))
    assert [play.n_cached(request_id) for request_id in ids] == [0, 0, 59, 59, 59]


@LAYOUTS
def test_users_one_at_a_time_reuse_their_whole_histories(layout: str) -> None:
    n_slots = 8 if layout == "streams" else 16
    play = a_play(layout=layout, n_slots=n_slots, n_sequences=8, cache_ram=0)
    chats = [own(user, 40) for user in range(4)]
    n_known = [0] * 4
    for turn in range(4):
        for user, chat in enumerate(chats):
            request = wants(chat, 6, seed=turn)
            (request_id,) = played(play, request)
            assert play.n_cached(request_id) == n_known[user]
            n_known[user] = len(chat) + 5
            chat += [*alone(request), *own(10 * turn + user, 10)]
    play.check_all_over()


# Somebody is busy


@pytest.mark.parametrize(
    ("busy", "expected"), [((2,), 1), ((0,), 1), ((0, 1), 2), ((3,), 2), ((0, 2), 1), ((1, 3), 2)]
)
@pytest.mark.parametrize("are_idle", [True, False])
def test_newcomer_gets_a_slot_next_to_busy_ones(
    are_idle: bool, busy: tuple[int, ...], expected: int
) -> None:
    """One near its end stays where it is, though that is not next to the others."""
    play = a_play(max_batch=128)
    for slot in range(4):
        is_busy = slot in busy
        prompt = own(slot, 20 if is_busy or are_idle else 3)
        play.submit(wants(prompt, 7 if is_busy else 1))
    play.step()
    assert play.placement.slots.busy == set(busy)
    assert play.placement.slots.n_idle == (4 - len(busy)) * are_idle
    assert placed(play, own(9, 20)) == expected
    play.run_until_idle()
    play.check_all_over()


def beside_a_stream(play: Playbook, *prompts: list[int]) -> None:
    """A stream runs in slot 0, and the slots from 1 on hold the prompts."""
    play.submit(wants(own(20, 20), 60))
    for prompt in prompts:
        play.submit(wants(prompt, 1))
    play.step()
    assert play.placement.slots.busy == {0}
    assert play.placement.slots.idle_slots() == tuple(range(1, 1 + len(prompts)))


def test_idle_slot_in_the_way_moves_to_an_empty_one_and_is_found_there() -> None:
    """Its last use stays what it was, so it is still the first to go."""
    play = a_play(n_slots=5, max_batch=128)
    beside_a_stream(play, with_tail(0), own(8, 20))
    newcomer = play.submit(wants(own(9, 20)))
    play.step()
    assert slots_of(play, [newcomer]) == [1]
    assert play.placement.slots.idle_slots() == (3, 2)
    assert play.runner.cells[3] == with_tail(0)
    play.run_until_idle()
    assert probe(play, with_tail(0)) == [(CacheOutcome.SLOT, 47)]
    play.check_all_over()


def test_idle_slot_in_the_way_is_saved_where_no_slot_is_empty() -> None:
    play = a_play(n_slots=3, max_batch=128, cache_ram=10**6)
    beside_a_stream(play, with_tail(0), own(8, 20))
    assert placed(play, own(9, 20)) == 1
    assert play.placement.slots.idle_slots() == (2,)
    play.run_until_idle()
    assert probe(play, with_tail(0)) == [(CacheOutcome.HOST, 47)]
    play.check_all_over()


def test_idle_slot_in_the_way_is_saved_where_it_cannot_be_copied() -> None:
    play = a_play(max_batch=128, cache_ram=10**6, refused=["copy"])
    beside_a_stream(play, with_tail(0), own(8, 20))
    assert placed(play, own(9, 20)) == 1
    assert isinstance(play.runner, RefusingRunner)
    assert play.runner.n_refusals == 1
    assert play.placement.slots.idle_slots() == (2,)
    play.run_until_idle()
    assert probe(play, with_tail(0)) == [(CacheOutcome.HOST, 47)]
    play.check_all_over()


def test_beginning_is_copied_from_where_it_is_to_a_slot_next_to_busy_ones() -> None:
    play = a_play(n_slots=5, max_batch=128)
    beside_a_stream(play, own(8, 20), own(9, 20), with_tail(0))
    assert placed(play, with_tail(1)) == 1
    assert play.outcomes()[-1] == (CacheOutcome.SLOT, 40)
    assert play.runner.cells[4] == own(8, 20)
    assert play.placement.slots.idle_slots() == (4, 2, 3)
    play.run_until_idle()
    play.check_all_over()


def test_giver_next_to_busy_ones_keeps_its_cells_elsewhere() -> None:
    """The newcomer wants only a part of them, and has no other place."""
    play = a_play(max_batch=128)
    beside_a_stream(play, with_tail(0, n_tail=40))
    assert placed(play, with_tail(1)) == 1
    assert play.outcomes()[-1] == (CacheOutcome.SLOT, 40)
    play.run_until_idle()
    assert probe(play, with_tail(0, n_tail=40)) == [(CacheOutcome.SLOT, 79)]
    play.check_all_over()


@pytest.mark.parametrize(("n_more", "is_kept"), [(4, True), (3, False)])
def test_giver_with_little_more_is_taken_in_place(n_more: int, is_kept: bool) -> None:
    """Fewer than 4 tokens would not be reused."""
    play = a_play(max_batch=128)
    beside_a_stream(play, STEM + own(30, n_more))
    assert placed(play, with_tail(1)) == 1
    assert play.placement.slots.n_idle == is_kept
    assert play.outcomes()[-1] == (CacheOutcome.SLOT, 40)
    play.run_until_idle()
    play.check_all_over()


def test_cells_of_one_that_ended_between_others_are_found_after_the_gap_is_closed() -> None:
    play = a_play(n_slots=4, max_batch=128)
    requests = [wants(own(1, 60), 40), wants(own(2, 60), 3), wants(own(3, 60), 40)]
    ids = [play.submit(request) for request in requests]
    while len(play.tokens(ids[1])) < 3:
        play.step()
    play.step()
    assert slots_of(play, ids) == [0, None, 1]
    assert play.placement.slots.idle_slots() == (3,)
    again = play.submit(wants(own(2, 60), 3))
    play.run_until_idle()
    assert play.n_cached(again) == 59
    assert_given(play, dict(zip(ids, requests, strict=True)))
    play.check_all_over()


@pytest.mark.parametrize("seed", range(10))
def test_random_chats_lose_nothing_while_a_slot_is_empty(seed: int) -> None:
    """Fewer chats than slots, without host memory: whatever is in the way, every turn finds the
    chat's own history, if its last turn has ended."""
    rng = random.Random(seed)
    play = a_play(n_slots=8, max_batch=128, max_prefill=128, cache_ram=0)
    chats = [own(user, 30) for user in range(4)]
    n_known = [0] * 4
    running: dict[int, tuple[RequestId, GenerationRequest]] = {}
    for turn in range(60):
        user = rng.randrange(4)
        if user not in running and len(chats[user]) < 150:
            request = wants(chats[user], rng.randrange(1, 20), seed=turn)
            running[user] = play.submit(request), request
        for _ in range(rng.randrange(1, 8)):
            if not play.scheduler.is_idle or not play.commands.empty():
                play.step()
        for user, (request_id, request) in list(running.items()):
            if len(play.tokens(request_id)) == request.stopping.max_new_tokens:
                del running[user]
                assert play.n_cached(request_id) == n_known[user]
                n_known[user] = len(chats[user]) + request.stopping.max_new_tokens - 1
                chats[user] += [*alone(request), *own(rng.randrange(60), 5)]
    play.run_until_idle()
    play.check_all_over()
