"""The largest steps at start, on the fake runner, which is as strict about batches as llama.cpp."""

import itertools
import logging
from collections import deque
from collections.abc import Callable

import pytest
from fakes.runner import FakeRunner

from tgi_llama.errors import DecodeError, DecodeFailed, OutOfCells, StartError
from tgi_llama.llama.warm_up import Limits, warm_up


def _limits(runner: FakeRunner, *, cells_per_slot: int = 10**6) -> Limits:
    return Limits(
        n_slots=runner.n_slots,
        cells_per_slot=cells_per_slot,
        max_batch_tokens=runner.max_batch_tokens,
        max_outputs=runner.max_outputs,
    )


def _clock(second_per_call: float) -> Callable[[], float]:
    return itertools.count(0.0, second_per_call).__next__


def _shape(runner: FakeRunner) -> list[tuple[int, int, int]]:
    """Tokens, slots and outputs of each decode."""
    return [
        (len(batch.tokens), len(batch.runs), sum(run.n_outputs for run in batch.runs))
        for batch in runner.batches
    ]


def test_warm_up_does_all_slots_and_the_largest_batch_with_the_most_outputs() -> None:
    runner = FakeRunner(n_slots=4, max_batch_tokens=100, n_prompt_rows=7)
    warm_up(runner, _limits(runner), clock=_clock(0.001))

    assert _shape(runner) == [(4, 4, 4), (32, 1, 11), (100, 1, 11)]
    assert runner.n_cells_used == 0


def test_warm_up_batch_larger_than_a_slot_takes_several() -> None:
    runner = FakeRunner(n_slots=4, max_batch_tokens=100, n_prompt_rows=50)
    warm_up(runner, _limits(runner, cells_per_slot=40), clock=_clock(0.001))

    largest = runner.batches[-1]
    assert [run.n_tokens for run in largest.runs] == [40, 40, 20]
    assert [run.n_outputs for run in largest.runs] == [40, 14, 0]
    assert runner.n_cells_used == 0


def test_warm_up_batch_smaller_than_the_outputs() -> None:
    runner = FakeRunner(n_slots=2, max_batch_tokens=3, n_prompt_rows=9)
    warm_up(runner, _limits(runner), clock=_clock(0.001))

    assert _shape(runner)[-1] == (3, 1, 3)


@pytest.mark.parametrize(
    ("probe_s", "expected"),
    [(0.1, 512), (0.32, 300), (3.2, 40), (1000.0, 40)],  # seconds for 32 tokens; 3 s at most
)
def test_warm_up_on_a_slow_machine_takes_what_three_seconds_allow_or_the_outputs_need(
    probe_s: float, expected: int, caplog: pytest.LogCaptureFixture
) -> None:
    runner = FakeRunner(max_batch_tokens=512, n_prompt_rows=36)
    with caplog.at_level(logging.INFO):
        warm_up(runner, _limits(runner), clock=_clock(probe_s))

    assert abs(len(runner.batches[-1].tokens) - expected) <= 1
    assert sum(run.n_outputs for run in runner.batches[-1].runs) == 40
    assert f"a batch of {len(runner.batches[-1].tokens)} tokens of 512" in caplog.text


def test_warm_up_slow_first_probe_is_done_again() -> None:
    times = iter([0.0, 0.0, 9.0, 9.0, 9.001, 9.5])
    runner = FakeRunner(max_batch_tokens=512)
    warm_up(runner, _limits(runner), clock=lambda: next(times))

    assert [tokens for tokens, _, _ in _shape(runner)] == [4, 32, 32, 512]


@pytest.mark.parametrize(
    ("n_before", "failure", "words"),
    [
        (
            0,
            DecodeFailed("no memory"),
            r"4 tokens, slots in use: 4, failed at start: no memory\. Lower --max-batch-size",
        ),
        (1, DecodeFailed("x"), r" 32 tokens, .* x\. Lower --max-physical-batch-total"),
        (2, DecodeFailed("x"), r" 64 tokens, .* x\. Lower --max-physical-batch-total"),
        (0, OutOfCells("full"), r"full\. Lower --max-phys.* or raise --max-batch-total-tokens"),
        (2, OutOfCells("full"), r"full\. Lower --max-phys.* or raise --max-batch-total-tokens"),
    ],
)
def test_warm_up_failure_names_what_to_lower(
    n_before: int, failure: DecodeError, words: str
) -> None:
    runner = FakeRunner(max_batch_tokens=64, failures=deque([*[None] * n_before, failure]))

    with pytest.raises(StartError, match=words):
        warm_up(runner, _limits(runner), clock=_clock(0.001))


def test_warm_up_broken_runner_is_not_hidden() -> None:
    runner = FakeRunner(failures=deque([ZeroDivisionError()]))

    with pytest.raises(ZeroDivisionError):
        warm_up(runner, _limits(runner))
