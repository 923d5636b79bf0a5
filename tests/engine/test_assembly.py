import pytest
from fakes.cache_play import a_play
from fakes.playbook import Playbook
from fakes.runner import FakeRunner


@pytest.mark.parametrize(
    ("runner", "message"),
    [
        (FakeRunner(n_slots=4, max_batch_tokens=3), "one token of every sequence"),
        (FakeRunner(n_slots=4, n_prompt_rows=0), "one output of every sequence and one more"),
    ],
)
def test_loop_on_a_runner_too_small_for_a_step_is_refused(runner: FakeRunner, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Playbook(runner=runner)


@pytest.mark.parametrize(
    ("can_cut", "cache_ram", "prefix_cache", "is_told"),
    [
        (False, 0, True, True),
        (False, 1, True, False),
        (True, 0, True, False),
        (False, 0, False, False),
        (False, 1, False, False),
    ],
)
def test_start_says_once_that_there_will_be_no_checkpoints(
    can_cut: bool,
    cache_ram: int,
    prefix_cache: bool,
    is_told: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    a_play(can_cut=can_cut, cache_ram=cache_ram, prefix_cache=prefix_cache)
    assert caplog.text.count("--cache-ram 0") == is_told
