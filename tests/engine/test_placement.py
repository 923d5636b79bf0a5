"""Slots: who gets which, who gives way, and what is kept in host memory meanwhile."""

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
    slots_of,
    wants,
    with_tail,
)
from fakes.playbook import Playbook, alone
from fakes.runner import noisy

from tgi_llama.engine import placement, slot_cells
from tgi_llama.engine.model_runner import SavedState, SlotId
from tgi_llama.generation import CacheOutcome

LAYOUTS = pytest.mark.parametrize("layout", ["streams", "unified"])

# Eviction and host memory


def test_slot_used_longest_ago_is_evicted_first() -> None:
    """The second copies from the first slot, which counts as use."""
    play = a_play(layout="unified", n_slots=3, n_sequences=1)
    played(play, wants(with_tail(0)), wants(own(9, 20)))
    played(play, wants(with_tail(1)))
    assert play.placement.slots.n_idle == 3
    played(play, wants(own(12, 20)))
    assert probe(play, with_tail(0)) == [(CacheOutcome.SLOT, 47)]


def test_evicted_slot_is_saved_and_restored_as_often_as_it_is_wanted() -> None:
    play = a_play(n_slots=1, cache_ram=10**6)
    first = wants(with_tail(0))
    played(play, first)
    assert play.placement.host.n_entries == 0, "nothing is saved before its place is needed"
    played(play, wants(own(9, 20)))
    (entry,) = play.placement.host.entries()
    for n_hits in range(1, 4):  # too little beyond the common part to be saved itself
        assert probe(play, with_tail(n_hits, n_tail=3)) == [(CacheOutcome.HOST, 40)]
        assert entry.n_hits == n_hits
        assert probe(play, own(9, 20)) == [(CacheOutcome.HOST, 19)]
        assert entry in play.placement.host.entries()
    assert probe(play, with_tail(0)) == [(CacheOutcome.HOST, 47)]
    play.check_all_over()


def test_two_requests_restore_one_entry_at_the_same_time() -> None:
    """The second finds as much in the first one's slot."""
    play = a_play(n_slots=2, n_sequences=2, cache_ram=10**6)
    played(play, wants(with_tail(0)))
    for number in (9, 10):
        play.submit(wants(own(number, 20)))
    play.run_until_idle()
    requests = [wants(with_tail(number)) for number in (1, 2)]
    n_before = len(play.outcomes())
    ids = [play.submit(request) for request in requests]
    play.run_until_idle()
    assert_given(play, dict(zip(ids, requests, strict=True)))
    assert play.outcomes()[n_before:] == [(CacheOutcome.HOST, 40), (CacheOutcome.SLOT, 40)]
    play.check_all_over()


def test_longer_saved_state_supersedes_its_beginnings() -> None:
    play = a_play(n_slots=1, cache_ram=10**6)
    turn = wants(STEM)
    chat = list(STEM)
    for number in range(3):
        turn = wants(chat)
        played(play, turn, wants(own(9, 20)))
        chat += [*alone(turn), *own(40 + number, 20)]
    of_chat = [e for e in play.placement.host.entries() if e.tokens[0] == STEM[0]]
    assert [len(e.tokens) for e in of_chat] == [len(turn.prompt_ids) + 3]
    assert probe(play, chat) == [(CacheOutcome.HOST, len(turn.prompt_ids) + 3)]


def test_idle_slot_is_saved_before_much_of_it_is_cut_off() -> None:
    play = a_play(n_slots=1, cache_ram=10**6)
    first = wants([*with_tail(0), *own(20, 30)])
    played(play, first, wants(with_tail(1)))
    assert [len(e.tokens) for e in play.placement.host.entries()] == [48 + 30 + 3]
    assert probe(play, list(first.prompt_ids)) == [(CacheOutcome.HOST, 77)]


@LAYOUTS
def test_what_others_have_too_is_not_saved(layout: str) -> None:
    play = a_play(layout=layout, n_slots=2, n_sequences=2, cache_ram=10**6)
    requests = [wants(STEM, 1), wants(STEM, 2)]
    play.submit_together(requests)
    play.run_until_idle()
    for number in range(9, 11):
        play.submit(wants(own(number, 20), 2))
    play.run_until_idle()
    of_stem = [e for e in play.placement.host.entries() if e.tokens[0] == STEM[0]]
    assert len(of_stem) == 1


def test_host_cache_off_saves_nothing() -> None:
    play = a_play(n_slots=1, cache_ram=0)
    played(play, wants(STEM), wants(own(9, 20)))
    assert play.placement.host.n_entries == 0
    assert probe(play, STEM) == [(CacheOutcome.UNKNOWN, 0)]


def test_host_cache_keeps_to_its_limit() -> None:
    play = a_play(n_slots=1, cache_ram=5000)
    for number in range(12):
        played(play, wants(own(number, 20)))
        assert play.placement.host.n_bytes <= 5000
    assert play.placement.host.n_evicted > 0
    assert sum(each.n_evicted for each in play.placements()) == play.placement.host.n_evicted
    assert play.placements()[-1].host_bytes == play.placement.host.n_bytes
    assert play.placements()[-1].n_host_entries == play.placement.host.n_entries > 1
    assert probe(play, own(10, 20)) == [(CacheOutcome.HOST, 19)]
    assert probe(play, own(0, 20)) == [(CacheOutcome.UNKNOWN, 0)]


def test_state_that_is_being_restored_is_not_evicted_for_what_gives_way() -> None:
    """There is room for one state, and the slot's own is as large."""
    play = a_play(n_slots=1, cache_ram=2800)
    played(play, wants(STEM), wants(own(9, 40)))
    assert play.placement.host.n_entries == 1
    assert probe(play, with_tail(1)) == [(CacheOutcome.HOST, 40)]
    play.check_all_over()


@pytest.mark.parametrize(("n_bytes_free", "refused"), [(0, []), (None, ["save"])])
def test_slot_that_cannot_be_saved_is_evicted_all_the_same(
    n_bytes_free: int | None, refused: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    play = a_play(n_slots=1, cache_ram=10**6, n_bytes_free=n_bytes_free, refused=refused)
    played(play, wants(STEM), wants(own(9, 20)))
    assert play.placement.host.n_entries == 0
    assert "save" in caplog.text
    assert probe(play, STEM) == [(CacheOutcome.UNKNOWN, 0)]
    play.check_all_over()


def test_saving_never_holds_up_streams_longer_than_a_step_may_take() -> None:
    budget = Budget(seconds=0.0)
    play = a_play(n_slots=2, cache_ram=10**6, budget=budget)
    played(play, wants(STEM), wants(own(7, 20)))
    play.submit(wants(own(8, 16), 30))
    play.step()
    assert play.placement.host.n_entries == 1, "nobody decoded"
    play.submit(wants(own(9, 20), 2))
    play.submit(wants(own(10, 20), 2))
    play.run_until_idle()
    assert play.placement.host.n_entries == 1
    played(play, wants(own(11, 20)))
    assert play.placement.host.n_entries == 2


def test_saving_that_is_slow_is_given_up_but_not_for_one_hiccup(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stream runs all the time, and has patience for 50 ms."""
    now = 0.0
    duration = 10.0

    def clock() -> float:
        nonlocal now
        now += duration
        return now

    monkeypatch.setattr(slot_cells, "perf_counter", clock)
    play = a_play(n_slots=2, cache_ram=10**6, budget=Budget(seconds=0.05))
    stream = play.submit(wants(own(0, 5), 250))

    def save_another(number: int) -> bool:
        before = play.placement.host.n_entries
        request_id = play.submit(wants([2 + number // 50, *own(number % 50, 6)], 1))
        while not play.events[request_id]:
            play.step()
        return play.placement.host.n_entries > before

    save_another(0)
    assert save_another(1), "it took 10 s"
    duration = 0.06
    n_saved = sum(save_another(number) for number in range(2, 200))
    assert 1 < n_saved < 150
    assert len(play.tokens(stream)) < 250
    play.cancel(stream)
    play.run_until_idle()
    play.check_all_over()


def test_restore_that_fails_computes_the_prompt() -> None:
    play = a_play(n_slots=1, cache_ram=10**6)
    played(play, wants(STEM), wants(own(9, 20)))
    assert isinstance(play.runner, RefusingRunner)
    play.runner.refused.add("restore")
    assert probe(play, STEM) == [(CacheOutcome.FAILED, 0)]
    play.runner.refused.clear()
    assert probe(play, own(9, 20)) == [(CacheOutcome.HOST, 19)]
    play.check_all_over()


def test_restored_state_that_cannot_be_cut_after_all_computes_the_prompt() -> None:
    play = a_play(n_slots=1, cache_ram=10**6)
    played(play, wants(STEM), wants(own(9, 20)))
    assert isinstance(play.runner, RefusingRunner)
    play.runner.refused.add("truncate")
    assert probe(play, with_tail(1)) == [(CacheOutcome.FAILED, 0)]
    play.check_all_over()


def test_restore_makes_idle_slots_give_way_for_its_cells() -> None:
    """A state is restored whole, also where a part of it is wanted."""
    play = a_play(layout="unified", n_slots=4, n_sequences=2, n_cells=100, cache_ram=10**6)
    played(play, wants(own(0, 60), 3))
    assert play.placement.host.n_entries == 0, "nobody runs"
    played(play, wants(own(5, 22), 2))
    assert play.placement.host.n_entries == 1, "more than a quarter of all cells"
    assert play.placement.slots.n_idle == 1
    busy = play.submit(wants(own(7, 20), 20))
    play.step()
    resumed = play.submit(wants([*own(0, 60)[:20], *own(40, 4)], 3))
    play.step()
    play.step()
    assert play.placement.slots.n_idle == 0
    play.run_until_idle()
    assert play.outcomes()[-1] == (CacheOutcome.HOST, 20)
    assert play.n_cached(resumed) == 20
    assert len(play.tokens(busy)) == 20
    play.check_all_over()


def test_restore_that_needs_more_cells_than_can_be_freed_evicts_nobody() -> None:
    """A saved state of 103 cells begins with the 20 that are wanted."""
    play = a_play(layout="unified", n_slots=8, n_sequences=4, n_cells=150, cache_ram=10**6)
    played(play, wants(own(0, 100)), wants(own(5, 16), 2), wants(own(6, 16), 2))
    assert [entry.state.length for entry in play.placement.host.entries()] == [103]
    assert play.placement.slots.n_idle == 2
    stream = play.submit(wants(own(7, 30), 40))
    while len(play.tokens(stream)) < 20:
        play.step()
    newcomer = play.submit(wants([*own(0, 100)[:20], 5, 6]))
    play.step()
    assert play.outcomes()[-1] == (CacheOutcome.FAILED, 0)
    assert play.placement.slots.n_idle == 2
    play.run_until_idle()
    assert play.n_cached(newcomer) == 0
    play.check_all_over()


def test_restore_in_streams_evicts_nobody_who_has_other_cells() -> None:
    play = a_play(n_slots=3, n_sequences=1, cache_ram=10**6)
    played(play, *(wants(own(number, 20)) for number in range(4)))
    assert play.placement.slots.n_idle == 3
    assert isinstance(play.runner, RefusingRunner)
    play.runner.refused.add("restore")
    assert probe(play, own(0, 20)) == [(CacheOutcome.FAILED, 0)]
    assert play.runner.n_refusals == 1
    assert play.placement.slots.n_idle == 3
    play.check_all_over()


# Streams layout: those that run stay together


def test_gap_left_by_an_ended_sequence_is_closed_by_the_highest() -> None:
    play = a_play(n_slots=4, max_batch=64)
    requests = [wants(own(i, 10), 2 if i == 1 else 40) for i in range(4)]
    ids = [play.submit(request) for request in requests]
    play.step()
    assert slots_of(play, ids) == [0, 1, 2, 3]
    play.step()
    play.step()
    assert slots_of(play, ids) == [0, None, 2, 1]
    assert [run.slot for run in play.runner.batches[-1].runs] == [0, 1, 2]
    play.run_until_idle()
    assert_given(play, dict(zip(ids, requests, strict=True)))
    play.check_all_over()


def test_several_gaps_are_closed_at_once() -> None:
    play = a_play(n_slots=5, max_batch=64)
    requests = [wants(own(i, 10), 40 if i in (0, 3, 4) else 2) for i in range(5)]
    ids = [play.submit(request) for request in requests]
    for _ in range(3):
        play.step()
    assert slots_of(play, ids) == [0, None, None, 2, 1]
    play.run_until_idle()
    assert_given(play, dict(zip(ids, requests, strict=True)))
    play.check_all_over()


def test_sequences_that_are_together_stay_where_they_are() -> None:
    """Free slots below them are no gap, and what those hold may be of use."""
    play = a_play(n_slots=4, max_batch=64)
    requests = [wants(own(i, 10), 40 if i > 1 else 2) for i in range(4)]
    ids = [play.submit(request) for request in requests]
    for _ in range(4):
        play.step()
    assert slots_of(play, ids) == [None, None, 2, 3]
    assert play.placement.slots.n_idle == 2
    play.run_until_idle()
    play.check_all_over()


def test_sequence_near_its_end_is_not_worth_a_move() -> None:
    play = a_play(n_slots=3, max_batch=64)
    requests = [wants(own(i, 10), [40, 2, 9][i]) for i in range(3)]
    ids = [play.submit(request) for request in requests]
    for _ in range(3):
        play.step()
    assert slots_of(play, ids) == [0, None, 2]
    play.run_until_idle()
    play.check_all_over()


def test_gap_that_is_an_empty_slot_is_closed() -> None:
    play = a_play(n_slots=3, max_batch=64)
    requests = [wants(own(0, 10), 40), wants([5], 2), wants(own(2, 10), 40)]
    ids = [play.submit(request) for request in requests]
    for _ in range(3):
        play.step()
    assert slots_of(play, ids) == [0, None, 1]
    assert play.placement.slots.n_idle == 0
    play.run_until_idle()
    assert_given(play, dict(zip(ids, requests, strict=True)))
    play.check_all_over()


def test_gap_stays_where_the_highest_cannot_be_copied() -> None:
    play = a_play(n_slots=3, max_batch=64, refused=["copy"])
    requests = [wants(own(i, 10), 2 if i == 1 else 40) for i in range(3)]
    ids = [play.submit(request) for request in requests]
    for _ in range(3):
        play.step()
    assert slots_of(play, ids) == [0, None, 2]
    play.run_until_idle()
    assert_given(play, dict(zip(ids, requests, strict=True)))
    play.check_all_over()


def test_gap_stays_while_the_highest_computes_its_prompt() -> None:
    play = a_play(n_slots=3, max_batch=64, max_prefill=4)
    requests = [wants(own(0, 4), 40), wants(own(1, 4), 2), wants(own(2, 40), 40)]
    ids = [play.submit(request) for request in requests[:2]]
    play.step()
    ids.append(play.submit(requests[2]))
    moves = [slots_of(play, ids) for _ in range(16) if play.step()]
    assert moves[4] == [0, None, 2]
    assert moves[-1] == [0, None, 1]
    play.run_until_idle()
    assert_given(play, dict(zip(ids, requests, strict=True)))
    play.check_all_over()


# How long a newcomer may hold up those that run


def test_newcomers_are_placed_only_for_as_long_as_streams_may_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each makes another slot give way, and saving that takes 30 ms. A stream has patience for 50
    ms, which the second one exceeds; while nobody decodes, nothing bounds it."""
    now = 0.0

    @attrs.define(eq=False)
    class SlowRunner(RefusingRunner):
        def save(self, slot: SlotId) -> SavedState | None:
            nonlocal now
            now += 0.03
            return super().save(slot)

    for module in (slot_cells, placement):
        monkeypatch.setattr(module, "perf_counter", lambda: now)
    play = Playbook(
        runner=SlowRunner(n_slots=8, max_batch_tokens=500, script=noisy),
        cache_ram_bytes=10**6,
        max_prefill_tokens=400,
        budget=Budget(seconds=0.05),
    )
    played(play, *(wants(own(number, 20), 1) for number in range(8)))
    assert play.placement.slots.n_idle == 8
    stream = play.submit(wants(own(20, 20), 60))
    others = [play.submit(wants(own(number, 20), 30)) for number in range(21, 24)]
    play.step()
    assert play.scheduler.n_running == 4
    others += [play.submit(wants(own(number, 20), 30)) for number in range(24, 28)]
    n_running = []
    while play.scheduler.n_queued or not play.commands.empty():
        before = now
        play.step()
        assert now - before == pytest.approx(0.06)
        n_running.append(play.scheduler.n_running)
    assert n_running == [6, 8]
    play.run_until_idle()
    assert len(play.tokens(stream)) == 60
    assert all(len(play.tokens(other)) == 30 for other in others)
    play.check_all_over()
