import pytest
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
