"""When cells are saved: while nobody runs, and what it takes of a step beside streams."""

import pytest
from fakes.cache_play import Budget, SavingRunner, own, played, probe, wants
from fakes.playbook import Playbook, alone
from fakes.runner import noisy

from tgi_llama.engine import slot_cells
from tgi_llama.engine.model_runner import SlotId
from tgi_llama.errors import RequestCancelled
from tgi_llama.generation import CacheOutcome

LONG_AGO = 50
"""The number of a prompt of before."""


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> SavingRunner:
    runner = SavingRunner(n_slots=4, max_batch_tokens=64, script=noisy)
    monkeypatch.setattr(slot_cells, "perf_counter", lambda: runner.clock[0])
    return runner


def a_play(runner: SavingRunner, *, spare_s: float, cache_ram: int = 10**6) -> Playbook:
    """``spare_s``: what streams leave of a step."""
    return Playbook(
        runner=runner,
        cache_ram_bytes=cache_ram,
        max_prefill_tokens=64,
        budget=Budget(seconds=spare_s),
    )


def filled(play: Playbook) -> None:
    """Four slots are idle."""
    for number in range(4):
        play.submit(wants(own(number, 20)))
    play.run_until_idle()
    assert play.placement.slots.n_idle == 4


def step_when_saved(play: Playbook, runner: SavingRunner, n_saves: int) -> None:
    """A step of an idle loop, which ends because a command comes during that save."""
    stranger = play.submit(wants(own(LONG_AGO, 5), 1))
    command = play.commands.get()

    def on_save(n_saved: int) -> None:
        if n_saved == n_saves:
            play.commands.put(command)

    runner.on_save = on_save
    play.step()
    assert play.tokens(stranger) == alone(wants(own(LONG_AGO, 5), 1))


def test_idle_slots_too_large_to_be_saved_beside_streams_are_saved_while_nobody_runs(
    runner: SavingRunner,
) -> None:
    play = a_play(runner, spare_s=0.0)
    filled(play)
    assert runner.saved == []
    step_when_saved(play, runner, 4)
    assert runner.saved == [23] * 4
    assert play.placement.host.n_entries == 4
    assert play.placement.slots.n_idle == 4, "they stay where they are"
    assert not [report for report in play.placements() if report.n_evicted]
    play.run_until_idle()
    stream = play.submit(wants(own(10, 20), 40))
    play.step()
    for number in range(20, 23):  # streams have no time for saving
        play.submit(wants(own(number, 20), 1))
    while len(play.tokens(stream)) < 40:
        play.step()
    assert len(runner.saved) == 4
    assert [probe(play, own(number, 20)) for number in range(2)] == [[(CacheOutcome.HOST, 19)]] * 2
    play.check_all_over()


def test_command_waits_for_one_state_at_most(runner: SavingRunner) -> None:
    play = a_play(runner, spare_s=0.0)
    filled(play)
    for n_saves in range(1, 5):
        step_when_saved(play, runner, n_saves)
        assert len(runner.saved) == n_saves
        play.run_until_idle()


def test_what_idle_time_has_saved_is_told_before_the_loop_waits(runner: SavingRunner) -> None:
    play = a_play(runner, spare_s=0.0)
    filled(play)
    n_before = len(play.publications)
    step_when_saved(play, runner, 1)
    told = play.publications[n_before]
    assert told.events == ()
    assert told.report.placement is not None
    assert told.report.placement.n_host_entries == 1
    assert told.report.n_computed_tokens == 0


def test_nothing_is_saved_ahead_that_can_be_saved_when_its_place_is_needed(
    runner: SavingRunner,
) -> None:
    play = a_play(runner, spare_s=0.1)
    filled(play)
    while play.placement.save_ahead():
        pass
    assert runner.saved == []


def test_state_that_could_be_saved_beside_one_stream_only_is_saved_ahead(
    runner: SavingRunner,
) -> None:
    class Tight(Budget):
        def spare_s(self, n_decode: int, *, n_prompts: int = 0) -> float:  # noqa: ARG002 - the protocol's
            return 0.1 if n_decode < 4 else 0.0

    play = a_play(runner, spare_s=0.1)
    play.scheduler.budget = Tight()
    filled(play)
    while play.placement.save_ahead():
        pass
    assert runner.saved == [23] * 4


def test_state_that_takes_longer_than_a_command_may_wait_is_not_saved_ahead(
    runner: SavingRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    play = a_play(runner, spare_s=0.0)
    filled(play)
    monkeypatch.setattr(slot_cells, "_LONGEST_AHEAD_S", 1e-9)
    while play.placement.save_ahead():
        pass
    assert runner.saved == []


@pytest.mark.parametrize(("cache_ram", "refused"), [(0, []), (100, []), (10**6, ["save"])])
def test_idle_slots_that_cannot_be_saved_are_looked_at_once(
    runner: SavingRunner, cache_ram: int, refused: list[str]
) -> None:
    runner.refused.update(refused)
    play = a_play(runner, spare_s=0.0, cache_ram=cache_ram)
    filled(play)
    n_looks = 0
    while play.placement.save_ahead():
        n_looks += 1
    assert n_looks == 4
    assert play.placement.host.n_entries == 0


def test_slot_that_has_moved_or_is_busy_again_is_known(runner: SavingRunner) -> None:
    play = a_play(runner, spare_s=0.0)
    played(play, wants(own(0, 20)), wants(own(1, 20)))
    moved = play.placement.cells.relocate(SlotId(0))
    assert moved == 2
    play.submit(wants(own(1, 20), 30))
    play.step()
    while play.placement.save_ahead():
        pass
    assert runner.saved == [23], "the other one is busy"
    play.run_until_idle()
    while play.placement.save_ahead():
        pass
    assert runner.saved == [23, 49]


def test_what_moving_cells_takes_is_taken_from_the_prompts_of_the_step(
    runner: SavingRunner,
) -> None:
    """A stream runs; each newcomer makes a slot give way that takes 0.03 s to save."""
    runner.seconds = 0.03
    play = a_play(runner, spare_s=0.05)
    filled(play)
    stream = play.submit(wants(own(10, 20), 60))
    play.step()
    budget = play.scheduler.budget
    assert isinstance(budget, Budget)
    assert budget.spent_s[-1] == 0.0, "nobody decoded: no stream had to wait"
    n_saved = len(runner.saved)
    play.submit(wants(own(11, 20), 1))
    play.step()
    assert len(runner.saved) == n_saved + 1
    assert budget.spent_s[-1] == pytest.approx(0.03)
    play.submit(wants(own(0, 20), 1))
    play.step()
    assert play.outcomes()[-1] == (CacheOutcome.HOST, 19)
    assert budget.spent_s[-1] == pytest.approx(0.06), "one is saved, and one restored"
    play.submit(wants([3], 1))
    play.step()
    play.cancel(stream)
    play.step()
    assert isinstance(play.error(stream), RequestCancelled)
    play.check_all_over()


def test_checkpoints_are_taken_from_the_prompts_of_the_next_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runner = SavingRunner(n_slots=4, max_batch_tokens=64, script=noisy, can_cut=False, seconds=0.02)
    monkeypatch.setattr(slot_cells, "perf_counter", lambda: runner.clock[0])
    play = a_play(runner, spare_s=0.05)
    play.submit(wants(own(10, 2), 60))
    play.step()
    play.submit(wants(own(11, 20), 5))
    play.step()
    assert runner.saved == [19]
    budget = play.scheduler.budget
    assert isinstance(budget, Budget)
    assert budget.spent_s[-1] == 0.0
    play.step()
    assert budget.spent_s[-1] == pytest.approx(0.02)
    play.step()
    play.run_until_idle()
    play.check_all_over()


def test_a_step_saves_no_more_than_it_has_time_for(runner: SavingRunner) -> None:
    """Each state takes 0.02 s, which is known by then; there are 0.05 s."""
    runner.seconds = 0.02
    play = a_play(runner, spare_s=10.0)
    play.placement.cells._saved_bytes, play.placement.cells._saving_s = 1.0, 1.0 / 4600
    filled(play)
    play.submit(wants(own(10, 20), 60))
    play.step()
    budget = play.scheduler.budget
    assert isinstance(budget, Budget)
    budget.seconds = 0.05
    n_saved = len(runner.saved)
    for number in range(11, 14):
        play.submit(wants(own(number, 20), 1))
    play.step()
    assert 1 <= len(runner.saved) - n_saved <= 2
    play.run_until_idle()
    play.check_all_over()
