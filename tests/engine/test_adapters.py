"""Requests with LoRA adapters through the whole loop: turns, cells, loading and unloading."""

import itertools
import random

import attrs
import pytest
from fakes.cache_play import STEM, a_play, assert_given, own, played, probe, wants, with_tail
from fakes.playbook import Playbook, Unbounded, alone
from fakes.random_load import KINDS
from fakes.runner import FakeRunner

from tgi_llama.engine.model_runner import SlotId
from tgi_llama.engine.sequence import Phase
from tgi_llama.errors import AdapterError, DecodeAborted, DecodeFailed, GenerationError, OutOfCells
from tgi_llama.generation import AdapterFacts, AdapterId, CacheOutcome, Failed, RequestId

MEMORIES = pytest.mark.parametrize("kind", KINDS)


def play_with(*adapters: int, kind: str = "streams", cache_ram: int = 0) -> Playbook:
    """Those adapters are loaded."""
    unified = kind.startswith("unified")
    play = a_play(
        layout="unified" if unified else "streams",
        n_slots=6 if unified else 4,
        n_sequences=4,
        can_cut=not kind.endswith("uncuttable"),
        cache_ram=cache_ram,
    )
    play.load(*adapters)
    settle(play)
    return play


def settle(play: Playbook) -> None:
    """Has what was commanded done, while nothing runs or with one step."""
    play.step()


@MEMORIES
def test_requests_with_different_adapters_give_what_each_gives_alone(kind: str) -> None:
    play = play_with(1, 2, kind=kind)
    requests = [wants(own(n, 10 + n), 12, adapter=[None, 1, 2, 1][n % 4]) for n in range(8)]
    ids = {play.submit(request): request for request in requests}
    play.run_until_idle()
    assert_given(play, ids)
    assert play.runner.n_switches > 2
    play.check_all_over()


def test_adapters_make_a_difference() -> None:
    """Else the other tests here prove nothing."""
    requests = [wants(own(0, 10), 8, adapter=adapter) for adapter in (None, 1, 2)]
    assert len({tuple(alone(request)) for request in requests}) == 3


def test_batches_have_one_adapter_and_groups_take_turns() -> None:
    """No change costs anything here, so each turn is a step."""
    play = play_with(1)
    play.submit(wants(own(0, 6), 40))
    play.submit(wants(own(1, 6), 40, adapter=1))
    for _ in range(4):
        play.step()
    n_before = len(play.runner.batches)
    for _ in range(20):
        play.step()
    adapters = [batch.adapter for batch in play.runner.batches[n_before:]]
    assert adapters[:2] in ([None, 1], [1, None])
    assert all(one != other for one, other in itertools.pairwise(adapters))
    reports = [each.report for each in play.publications[-10:]]
    assert all(report.n_switches == 1 for report in reports)


def test_one_group_keeps_its_steady_plan() -> None:
    play = play_with(1)
    play.submit(wants(own(1, 6), 40, adapter=1))
    for _ in range(4):
        play.step()
    plans = [play.scheduler.schedule() for _ in range(2)]
    assert plans[0] is plans[1]
    assert play.runner.n_switches == 1


def test_held_streams_go_first_in_their_turn() -> None:
    """Many short prompts hold those that decode up, but not over two turns."""
    play = play_with(1)
    stream = play.submit(wants(own(0, 4), 200))
    other = play.submit(wants(own(1, 4), 200, adapter=1))
    for _ in range(6):
        play.step()
    for number in range(2, 30):
        play.submit(wants(own(number, 4), 1, adapter=number % 2 or None))
    n_before = {each: len(play.tokens(each)) for each in (stream, other)}
    for _ in range(20):
        play.step()
    for each, n_tokens in n_before.items():
        assert len(play.tokens(each)) >= n_tokens + 8
    play.cancel(stream)
    play.cancel(other)
    play.run_until_idle()
    play.check_all_over()


# Cells


@pytest.mark.parametrize("kind", ["streams", "unified"])
@pytest.mark.parametrize("adapter", [None, 1])
def test_cells_are_shared_under_one_adapter_only(kind: str, adapter: int | None) -> None:
    play = play_with(1, 2, kind=kind)
    played(play, wants(STEM, 2, adapter=adapter))
    for other in {None, 1, 2} - {adapter}:
        played(play, wants(with_tail(1), 2, adapter=other))
        assert play.outcomes()[-1] == (CacheOutcome.UNKNOWN, 0)
    played(play, wants(with_tail(2), 2, adapter=adapter))
    assert play.outcomes()[-1] == (CacheOutcome.SLOT, len(STEM))


def test_newcomer_does_not_wait_for_a_prompt_under_another_adapter() -> None:
    play = play_with(1)
    for adapter in (None, 1):
        play.submit(wants(with_tail(1), 4, adapter=adapter))
    play.step()
    assert all(each.phase is not Phase.WAITING for each in play.scheduler.running())
    play.submit(wants(with_tail(2), 4, adapter=1))
    play.step()
    (waiting,) = [each for each in play.scheduler.running() if each.phase is Phase.WAITING]
    assert waiting.leader is not None
    assert waiting.leader.request.adapter == 1
    play.run_until_idle()
    play.check_all_over()


@pytest.mark.parametrize("kind", KINDS)
def test_saved_states_are_restored_under_their_adapter_only(kind: str) -> None:
    play = play_with(1, kind=kind, cache_ram=10**6)
    played(play, wants(STEM, 2), wants(STEM, 2, adapter=1))
    for number in range(8):
        played(play, wants(own(10 + number, 60), 2))
    assert {1, None} <= play.runner.adapters_of_cells()
    for adapter in (1, None):
        n_before = len(play.outcomes())
        played(play, wants([*STEM, 7, 7, 7], 2, adapter=adapter))
        assert play.outcomes()[n_before:][-1][0] is CacheOutcome.HOST


def test_known_elsewhere_is_not_what_another_adapter_has() -> None:
    """An idle slot with the same tokens under another adapter is saved all the same."""
    play = play_with(1, cache_ram=10**6)
    played(play, wants(STEM, 2), wants(STEM, 2, adapter=1))
    for number in range(4):
        played(play, wants(own(10 + number, 50), 2))
    saved = [
        entry for entry in play.placement.host.entries() if entry.tokens[:20] == tuple(STEM[:20])
    ]
    assert len(saved) == 2


def test_sequences_that_leave_come_back_with_the_cells_of_their_adapter() -> None:
    """Promised are more cells than there are, so the newest are saved and restored."""
    play = a_play(layout="unified", n_slots=6, n_cells=150, cache_ram=10**6)
    play.load(1, 2)
    settle(play)
    requests = [wants(own(i, 12), 100, seed=i, adapter=[None, 1, 2][i % 3]) for i in range(6)]
    ids = {play.submit(request): request for request in requests}
    saved: set[AdapterId | None] = set()
    while not play.scheduler.is_idle or not play.commands.empty():
        play.step()
        saved |= {
            each.request.adapter for each in play.scheduler.sequences() if each.saved is not None
        }
    assert saved == {None, 1, 2}
    assert play.n_preempted() > 3
    assert_given(play, ids)
    play.check_all_over()


@pytest.mark.parametrize("adapter", [None, 1])
def test_failed_decode_fails_those_of_its_adapter_only(adapter: int | None) -> None:
    """In the step that changes adapters, as every step does here."""
    play = play_with(1)
    requests = {one: wants(own(0, 6), 30, adapter=one) for one in (None, 1)}
    ids = {one: play.submit(request) for one, request in requests.items()}
    for _ in range(6):
        play.step()
    other = 1 if adapter is None else None
    if play.runner.batches[-1].adapter == adapter:
        play.step()
    play.runner.failures.append(DecodeFailed("of the test"))
    play.step()
    assert play.runner.batches[-1].adapter == adapter
    assert isinstance(play.error(ids[adapter]), GenerationError)
    play.run_until_idle()
    assert play.tokens(ids[other]) == alone(requests[other])
    play.unload(1)
    settle(play)
    assert not play.runner.adapters
    assert 1 not in play.runner.adapters_of_cells()
    played(play, requests[None])


# Load and unload


def test_load_is_answered_with_facts() -> None:
    play = play_with(3)
    assert play.answers[3].result == AdapterFacts(n_bytes=1000, n_weights=2, rank=4)
    assert AdapterId(3) in play.runner.adapters


def test_load_of_a_wrong_file_fails_and_leaves_everything_as_it_was() -> None:
    play = play_with(1)
    play.load(2, path="bad.gguf")
    settle(play)
    assert isinstance(play.answers[2].result, AdapterError)
    assert set(play.runner.adapters) == {1}
    request = play.submit(wants(own(0, 5), 3, adapter=2))
    settle(play)
    assert isinstance(play.error(request), GenerationError)
    played(play, wants(own(0, 5), 3, adapter=1))


def test_load_that_breaks_is_an_adapter_error_and_ends_nothing() -> None:
    play = play_with(1)
    play.load(1)
    settle(play)
    result = play.answers[1].result
    assert isinstance(result, AdapterError)
    assert "already" in str(result)
    played(play, wants(own(0, 5), 3, adapter=1))


def test_request_with_an_adapter_that_is_not_there_fails_alone() -> None:
    play = play_with(1)
    good, bad = play.submit_together(
        [wants(own(0, 5), 3, adapter=1), wants(own(0, 5), 3, adapter=9)]
    )
    play.run_until_idle()
    assert isinstance(play.error(bad), GenerationError)
    assert play.tokens(good) == alone(wants(own(0, 5), 3, adapter=1))


def test_unload_of_what_was_never_used_is_done_at_once() -> None:
    play = play_with(1)
    play.unload(1)
    settle(play)
    assert -2 in play.answers
    assert not play.runner.adapters


def test_unload_of_what_is_not_loaded_is_answered() -> None:
    play = play_with(1)
    play.unload(5)
    settle(play)
    assert play.answers[-6].result is None


@pytest.mark.parametrize("is_queued", [False, True])
def test_unload_waits_for_whoever_uses_it(is_queued: bool) -> None:
    play = play_with(1)
    if is_queued:
        for number in range(4):
            play.submit(wants(own(number, 5), 20))
    request = play.submit(wants(own(9, 5), 10, adapter=1))
    play.step()
    play.unload(1)
    late = play.submit(wants(own(9, 5), 10, adapter=1))
    play.step()
    assert isinstance(play.error(late), GenerationError)
    assert -2 not in play.answers
    play.run_until_idle()
    assert play.tokens(request) == alone(wants(own(9, 5), 10, adapter=1))
    assert -2 in play.answers
    assert not play.runner.adapters
    play.check_all_over()


def test_unload_is_done_when_its_last_request_is_cancelled() -> None:
    play = play_with(1)
    request = play.submit(wants(own(9, 5), 100, adapter=1))
    play.step()
    play.unload(1)
    play.step()
    play.cancel(request)
    play.step()
    assert -2 in play.answers
    assert AdapterId(1) not in play.runner.adapters_of_cells()


@MEMORIES
def test_unload_frees_idle_slots_and_saved_states_and_no_others(kind: str) -> None:
    play = play_with(1, 2, kind=kind, cache_ram=10**6)
    for number in range(12):
        played(play, wants(own(number, 50), 2, adapter=[None, 1, 2][number % 3]))
    assert play.runner.adapters_of_cells() == {None, 1, 2}
    assert play.placement.host.n_entries > 0
    play.unload(1)
    settle(play)
    assert play.runner.adapters_of_cells() == {None, 2}, "the runner checks it as well"
    play.check()
    assert probe(play, own(0, 50))[0][0] in (CacheOutcome.SLOT, CacheOutcome.HOST)


def test_file_that_is_loaded_again_shares_nothing_with_its_first_loading() -> None:
    play = play_with(1)
    played(play, wants(STEM, 2, adapter=1))
    play.unload(1)
    play.load(2)
    settle(play)
    played(play, wants(STEM, 2, adapter=2))
    assert play.outcomes()[-1] == (CacheOutcome.UNKNOWN, 0)


def test_stop_leaves_commands_without_an_answer_to_the_other_side() -> None:
    """``Engine`` answers them itself."""
    play = play_with(1)
    request = play.submit(wants(own(9, 5), 100, adapter=1))
    play.step()
    play.unload(1)
    play.stop()
    while play.step():
        pass
    assert isinstance(play.events[request][-1], Failed)
    play.check_all_over()


# At random


def _request(rng: random.Random, adapters: list[int]) -> "tuple[int | None, list[int], int]":
    stem = random.Random(rng.randrange(3))
    prompt = [stem.randrange(2, 6) for _ in range(rng.randrange(1, 40))]
    return rng.choice([None, *adapters]), prompt, rng.randrange(1, 60 - len(prompt))


@MEMORIES
@pytest.mark.parametrize("seed", range(12))
def test_random_loads_with_adapters_that_come_and_go(seed: int, kind: str) -> None:
    rng = random.Random(f"{seed} {kind} adapters")
    unified = kind.startswith("unified")
    play = a_play(
        layout="unified" if unified else "streams",
        n_slots=6 if unified else 4,
        n_sequences=4,
        n_cells=rng.choice([80, 150, 300]) if unified else None,
        can_cut=not kind.endswith("uncuttable"),
        cache_ram=rng.choice([0, 4000, 10**6]),
        n_bytes_free=rng.choice([None, 100]),
    )
    runner: FakeRunner = play.runner
    runner.switch_s = rng.choice([0.0, 0.001, 10.0])
    numbers = iter(range(1, 1000))
    loaded: list[int] = []
    requests: dict[RequestId, object] = {}
    for _ in range(150):
        if rng.random() < 0.08 and len(loaded) < 3:
            loaded.append(next(numbers))
            play.load(loaded[-1])
        if loaded and rng.random() < 0.05:
            play.unload(loaded.pop(rng.randrange(len(loaded))))
        if rng.random() < 0.3:
            adapter, prompt, n_new = _request(rng, loaded)
            request = wants(prompt, n_new, seed=rng.randrange(3), adapter=adapter)
            branches = [request] * rng.choice([1, 1, 3])
            requests.update(zip(play.submit_together(branches), branches, strict=True))
        if requests and rng.random() < 0.05:
            play.cancel(rng.choice(list(requests)))
        if rng.random() < 0.05:
            runner.failures.append(rng.choice([DecodeAborted("a"), OutOfCells("o"), None]))
        if not play.scheduler.is_idle or not play.commands.empty():
            play.step()
    runner.failures.clear()
    play.run_until_idle()
    play.check_all_over()
    for request_id, request in requests.items():
        expected = alone(request)  # type: ignore[arg-type] # of the dict above
        given = play.tokens(request_id)
        is_failed = isinstance(play.events[request_id][-1], Failed)
        assert given == (expected[: len(given)] if is_failed else expected)
    for adapter in loaded:
        play.unload(adapter)
    if loaded:
        settle(play)
    assert not runner.adapters
    assert runner.adapters_of_cells() <= {None}


def test_relocated_cells_keep_their_adapter() -> None:
    play = play_with(1)
    played(play, wants(STEM, 2, adapter=1))
    cache = play.placement.cache
    (slot,) = cache.holders(AdapterId(1))
    cache.relocate(slot, SlotId(3))  # type: ignore[arg-type] # a slot
    assert cache.holders(AdapterId(1)) == (SlotId(3),)
    assert cache.holders(None) == ()


def test_changes_are_no_part_of_what_steps_are_said_to_take() -> None:
    """A change is said to have taken 100 s, so nothing is left of the decodes that had one."""
    budget = Noting()
    play = a_play(budget=budget)
    play.runner.switch_s = 100.0
    play.load(1)
    play.step()
    for adapter in (None, 1):
        play.submit(wants(own(0, 5), 30, adapter=adapter))
    play.run_until_idle()
    assert 0.0 in budget.seconds_noted
    assert sum(each.report.switch_s for each in play.publications) >= 200.0


@attrs.define(eq=False)
class Noting(Unbounded):
    """Keeps what it is told."""

    seconds_noted: list[float] = attrs.field(factory=list)

    def note(self, *, n_decode: int, n_prefill: int, seconds: float) -> None:  # noqa: ARG002 - the protocol's
        self.seconds_noted.append(seconds)
