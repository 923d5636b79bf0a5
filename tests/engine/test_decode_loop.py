"""Playbooks: submit, step with scripted logits, compare events; invariants hold at every step."""

import itertools
import random
from collections.abc import Sequence

import attrs
import numpy as np
import pytest
from fakes.playbook import Playbook, a_request
from fakes.runner import EOS, FakeRunner, FakeVocabulary

from tgi_llama.errors import (
    DecodeAborted,
    DecodeError,
    DecodeFailed,
    GenerationError,
    InvalidBatch,
    OutOfCells,
    RequestCancelled,
    ShuttingDown,
)
from tgi_llama.generation import FinishReason, SamplingParameters, TokenEvent


def test_step_request_generates_until_its_length() -> None:
    play = Playbook()
    request = play.submit(a_request([5, 6, 7], max_new_tokens=3))
    play.run_until_idle()
    assert play.tokens(request) == [8, 9, 10]
    assert play.text(request) == "IJK"
    assert play.reason(request) == "length"
    play.check_all_over()


def test_step_end_of_generation_on_the_last_allowed_token_says_eos() -> None:
    play = Playbook(runner=FakeRunner(script=lambda tokens: EOS if len(tokens) > 3 else 9))
    request = play.submit(a_request([5, 6, 7], max_new_tokens=2))
    play.run_until_idle()
    assert play.tokens(request) == [9, EOS]
    assert play.text(request) == "J"
    assert play.reason(request) == "eos_token"
    last = play.events[request][-1]
    assert isinstance(last, TokenEvent)
    assert last.token.special
    assert last.token.text == "<end>"
    play.check_all_over()


def test_step_ignore_eos_goes_on_to_the_length() -> None:
    play = Playbook(runner=FakeRunner(script=lambda _tokens: EOS))
    request = play.submit(a_request([5], max_new_tokens=3, ignore_eos=True))
    play.run_until_idle()
    assert play.tokens(request) == [EOS] * 3
    assert play.reason(request) == "length"


@pytest.mark.parametrize(("keep", "text"), [(True, "IJK"), (False, "I")])
def test_step_stop_string_over_two_tokens_ends_the_text(keep: bool, text: str) -> None:
    play = Playbook()
    request = play.submit(
        a_request([7], max_new_tokens=9, stop_strings=("JK",), keep_stop_string=keep)
    )
    play.run_until_idle()
    assert play.text(request) == text
    assert play.tokens(request) == [8, 9, 10]
    assert play.reason(request) == "stop_sequence"
    play.check_all_over()


def test_step_text_held_back_at_the_length_is_released() -> None:
    play = Playbook()
    request = play.submit(
        a_request([7], max_new_tokens=2, stop_strings=("JKL",), keep_stop_string=False)
    )
    play.run_until_idle()
    assert play.text(request) == "IJ"
    assert play.reason(request) == "length"


def test_step_stop_string_on_the_last_token_says_length() -> None:
    play = Playbook()
    request = play.submit(a_request([7], max_new_tokens=1, stop_strings=("I",)))
    play.run_until_idle()
    assert play.reason(request) == FinishReason.LENGTH.value


def test_step_long_prompt_is_prefilled_in_chunks() -> None:
    play = Playbook(runner=FakeRunner(max_batch_tokens=16))
    request = play.submit(a_request(list(range(10, 50)), max_new_tokens=1))
    assert play.run_until_idle() == 3
    assert [batch.tokens.shape[0] for batch in play.runner.batches] == [16, 16, 8]
    assert [batch.runs[0].n_outputs for batch in play.runner.batches] == [0, 0, 1]
    assert play.tokens(request) == [50]


def test_step_prompt_beside_a_running_stream_is_bounded() -> None:
    play = Playbook(runner=FakeRunner(max_batch_tokens=16), max_prefill_tokens=4)
    stream = play.submit(a_request([5], max_new_tokens=20))
    play.step()
    play.submit(a_request(list(range(10, 30)), max_new_tokens=1))
    for _ in range(5):
        n_before = len(play.events[stream])
        play.step()
        assert len(play.events[stream]) == n_before + 1, "the stream gets a token in every step"
        assert play.publications[-1].report.n_prefill_tokens == 4
        assert play.publications[-1].report.n_decode_sequences == 1
    play.run_until_idle()
    play.check_all_over()


def test_step_new_request_joins_at_the_next_step_and_leaves_at_its_last_token() -> None:
    play = Playbook()
    first = play.submit(a_request([5], max_new_tokens=6))
    play.step()
    second = play.submit(a_request([20], max_new_tokens=2))
    play.step()
    assert play.tokens(second) == [21]
    play.step()
    assert play.reason(second) == "length"
    assert play.publications[-1].report.n_running == 1
    play.run_until_idle()
    assert len(play.tokens(first)) == 6
    play.check_all_over()


def test_step_batch_lists_slots_in_increasing_order() -> None:
    play = Playbook()
    requests = [play.submit(a_request([10 + i], max_new_tokens=2 + i)) for i in range(4)]
    play.step()
    play.cancel(requests[1])
    play.submit(a_request([30, 31], max_new_tokens=5))
    play.step()
    slots = [run.slot for run in play.runner.batches[-1].runs]
    assert slots == sorted(slots)
    assert set(slots) == {0, 1, 2, 3}, "the newcomer takes the free slot in the middle"


def test_submit_more_requests_than_slots_waits_in_order() -> None:
    play = Playbook(runner=FakeRunner(n_slots=1))
    requests = [play.submit(a_request([10 * (i + 1)], max_new_tokens=2)) for i in range(3)]
    play.step()
    assert play.publications[-1].report.n_queued == 2
    play.run_until_idle()
    assert [play.tokens(request) for request in requests] == [[11, 12], [21, 22], [31, 32]]
    play.check_all_over()


def test_submit_request_that_fits_no_slot_fails_alone() -> None:
    play = Playbook(cells_per_sequence=256)
    good = play.submit(a_request([5], max_new_tokens=2))
    bad = play.submit(a_request([5], max_new_tokens=1000))
    play.run_until_idle()
    assert play.tokens(good) == [6, 7]
    assert "1000 cells, a slot has 256" in str(play.error(bad))
    play.check_all_over()


def test_submit_request_that_no_sampler_takes_fails_alone() -> None:
    play, good, newer = two_streams()
    bad = play.submit(a_request([5], sampling=SamplingParameters(seed=-1)))
    play.run_until_idle()
    assert isinstance(play.error(bad), GenerationError)
    assert len(play.tokens(good)) == len(play.tokens(newer)) == 6
    play.check_all_over()


@pytest.mark.parametrize("token", [-1, 64, 2**31, 2**70])
def test_submit_token_outside_the_vocabulary_fails_alone(token: int) -> None:
    play = Playbook()
    good = play.submit(a_request([5], max_new_tokens=2))
    bad = play.submit(a_request([5, token]))
    play.run_until_idle()
    assert play.tokens(good) == [6, 7]
    assert "token id" in str(play.error(bad))
    play.check_all_over()


@pytest.mark.parametrize("n_steps_before", [0, 1, 2, 5])
def test_cancel_in_any_phase_frees_everything(n_steps_before: int) -> None:
    """0: queued or just submitted; 1 and 2: in prefill; 5: in decode."""
    play = Playbook(runner=FakeRunner(max_batch_tokens=8))
    request = play.submit(a_request(list(range(10, 34)), max_new_tokens=30))
    for _ in range(n_steps_before):
        play.step()
    play.cancel(request)
    play.step()
    assert isinstance(play.error(request), RequestCancelled)
    play.check_all_over()


def test_cancel_while_queued_leaves_the_others_alone() -> None:
    play = Playbook(runner=FakeRunner(n_slots=1))
    first, second, third = (play.submit(a_request([10 * i + 10])) for i in range(3))
    play.step()
    play.cancel(second)
    play.run_until_idle()
    assert isinstance(play.error(second), RequestCancelled)
    assert len(play.tokens(first)) == len(play.tokens(third)) == 4
    play.check_all_over()


def test_cancel_twice_or_after_the_end_changes_nothing() -> None:
    play = Playbook()
    request = play.submit(a_request([5], max_new_tokens=1))
    play.step()
    play.cancel(request)
    play.cancel(request)
    other = play.submit(a_request([9], max_new_tokens=1))
    play.run_until_idle()
    assert play.tokens(request) == [6]
    assert play.tokens(other) == [10]
    play.check_all_over()


def test_stop_ends_every_request_once_also_those_behind_it() -> None:
    play = Playbook(runner=FakeRunner(n_slots=1))
    running = play.submit(a_request([5], max_new_tokens=30))
    queued = play.submit(a_request([6], max_new_tokens=30))
    play.step()
    play.stop()
    late = play.submit(a_request([7]))
    assert not play.step()
    for request in (running, queued, late):
        assert isinstance(play.error(request), ShuttingDown)
    play.check_all_over()


def two_streams(**options: object) -> tuple[Playbook, int, int]:
    """An older and a newer request, both decoding."""
    play = Playbook(**options)  # type: ignore[arg-type]
    older = play.submit(a_request([5], max_new_tokens=6))
    newer = play.submit(a_request([20], max_new_tokens=6))
    play.step()
    return play, older, newer


def test_decode_out_of_cells_lets_the_newest_leave_and_go_on_later() -> None:
    play, older, newer = two_streams()
    play.runner.failures.append(OutOfCells("full"))
    play.step()
    assert play.scheduler.head is not None
    assert play.scheduler.head.request_id == newer
    play.run_until_idle()
    assert play.tokens(older) == [6, 7, 8, 9, 10, 11]
    assert play.tokens(newer) == [21, 22, 23, 24, 25, 26]
    assert play.n_preempted() == 1
    play.check_all_over()


def test_decode_out_of_cells_with_nobody_to_give_way_fails_the_request() -> None:
    play = Playbook()
    alone = play.submit(a_request([5]))
    play.runner.failures.append(OutOfCells("full"))
    play.run_until_idle()
    assert "no cells are left: full" in str(play.error(alone))
    play.check_all_over()


def test_decode_aborted_does_the_step_again_with_the_same_output() -> None:
    play, older, newer = two_streams()
    play.runner.failures.append(DecodeAborted("aborted"))
    play.run_until_idle()
    assert play.tokens(older) == [6, 7, 8, 9, 10, 11]
    assert play.tokens(newer) == [21, 22, 23, 24, 25, 26]
    play.check_all_over()


def test_decode_aborted_in_prefill_does_the_chunk_again() -> None:
    play = Playbook(runner=FakeRunner(max_batch_tokens=8))
    request = play.submit(a_request(list(range(10, 30)), max_new_tokens=2))
    play.runner.failures.extend([None, DecodeAborted("aborted")])
    play.run_until_idle()
    assert play.tokens(request) == [30, 31]
    play.check_all_over()


def test_decode_aborted_where_cells_cannot_be_cut_starts_over_with_the_same_output() -> None:
    play, older, newer = two_streams(runner=FakeRunner(can_cut=False))
    play.step()
    play.runner.failures.append(DecodeAborted("aborted"))
    play.run_until_idle()
    assert play.tokens(older) == [6, 7, 8, 9, 10, 11]
    assert play.tokens(newer) == [21, 22, 23, 24, 25, 26]
    assert play.n_prefilled() == 2 + 2 * 3, "the prompts, and again with two tokens each"
    play.check_all_over()


def test_decode_invalid_batch_fails_only_the_culprit() -> None:
    play, older, newer = two_streams()
    # the batch of both, then each alone: the first of them is the culprit
    play.runner.failures.extend([InvalidBatch("bad"), InvalidBatch("bad"), None])
    play.run_until_idle()
    assert isinstance(play.error(older), GenerationError)
    assert play.tokens(newer) == [21, 22, 23, 24, 25, 26]
    play.check_all_over()


def test_decode_of_a_batch_and_then_of_its_parts_counts_each_second_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = itertools.count(step=0.5)
    moments = [next(now)]
    monkeypatch.setattr("tgi_llama.engine.decode_loop.perf_counter", lambda: moments[-1])
    play, _, _ = two_streams(runner=FakeRunner(before_decode=lambda: moments.append(next(now))))
    play.step()
    play.runner.failures.append(InvalidBatch("bad"))
    play.step()
    report = play.publications[-1].report
    assert report.step_s == report.decode_s == 3 * 0.5, "one of both and one for each"
    assert report.python_s == 0
    play.run_until_idle()


@pytest.mark.parametrize("layout", ["streams", "unified"])
@pytest.mark.parametrize("can_cut", [True, False])
@pytest.mark.parametrize("second", [OutOfCells, DecodeAborted, DecodeFailed, InvalidBatch])
def test_decode_invalid_batch_and_then_another_failure_fails_only_the_culprit(
    second: type[DecodeError], can_cut: bool, layout: str
) -> None:
    """The older one's chunk, decoded alone, fails in another way, for which the newer one may have
    to leave, or loses its cells."""
    play, older, newer = two_streams(runner=FakeRunner(can_cut=can_cut, layout=layout))
    play.step()
    play.runner.failures.extend([InvalidBatch("bad"), second("worse"), None])
    play.run_until_idle()
    assert play.tokens(newer) == [21, 22, 23, 24, 25, 26]
    if second in (DecodeFailed, InvalidBatch):
        assert isinstance(play.error(older), GenerationError)
    else:
        assert play.tokens(older) == [6, 7, 8, 9, 10, 11]
    play.check_all_over()


@pytest.mark.parametrize("code", [-2, -3])
def test_decode_failed_fails_the_batch_and_keeps_who_waits(code: int) -> None:
    play = Playbook(runner=FakeRunner(n_slots=2))
    first, second, waiting = (play.submit(a_request([10 * i + 5])) for i in range(3))
    play.runner.failures.append(DecodeFailed(f"code {code}"))
    play.step()
    assert play.publications[-1].report.decode_failed
    play.run_until_idle()
    assert isinstance(play.error(first), GenerationError)
    assert isinstance(play.error(second), GenerationError)
    assert play.tokens(waiting) == [26, 27, 28, 29]
    assert not play.publications[-1].report.decode_failed
    play.check_all_over()


def test_decode_unknown_exception_leaves_the_loop() -> None:
    play, _, _ = two_streams()
    play.runner.failures.append(MemoryError("broken"))
    with pytest.raises(MemoryError):
        play.step()


def test_sampler_on_nan_logits_fails_only_its_request() -> None:
    def script(tokens: Sequence[int]) -> "int | np.ndarray[tuple[int], np.dtype[np.float32]]":
        if tokens[0] == 20:
            return np.full(64, np.nan, dtype=np.float32)
        return tokens[-1] + 1

    play, good, bad = two_streams(runner=FakeRunner(script=script))
    play.run_until_idle()
    assert "nan" in str(play.error(bad))
    assert play.tokens(good) == [6, 7, 8, 9, 10, 11]
    play.check_all_over()


def test_vocabulary_that_raises_fails_only_its_request() -> None:
    @attrs.define(eq=False)
    class Broken(FakeVocabulary):
        def piece(self, token: int) -> bytes:
            if token == 22:
                raise IndexError("no such token")
            return super().piece(token)

    play, good, bad = two_streams(vocabulary=Broken())
    play.run_until_idle()
    assert isinstance(play.error(bad), GenerationError)
    assert play.tokens(good) == [6, 7, 8, 9, 10, 11]
    play.check_all_over()


def test_logprobs_are_of_the_raw_logits_and_top_tokens_include_ties() -> None:
    row = np.zeros(64, dtype=np.float32)
    row[[7, 8, 9]] = [3.0, 2.0, 2.0]
    play = Playbook(runner=FakeRunner(script=lambda _tokens: row))
    request = play.submit(
        a_request(
            [5],
            max_new_tokens=1,
            logprobs=True,
            n_top_tokens=2,
            sampling=SamplingParameters(greedy=True, logit_bias=((9, 50.0),)),
        )
    )
    play.step()
    event = play.events[request][0]
    assert isinstance(event, TokenEvent)
    norm = float(np.log(np.exp(row.astype(float)).sum()))
    assert event.token.id == 9
    assert event.token.logprob == pytest.approx(2.0 - norm, abs=1e-5)
    assert [token.id for token in event.top_tokens] == [7, 8, 9]
    assert event.top_tokens[0].logprob == pytest.approx(3.0 - norm, abs=1e-5)


def test_logprob_when_not_asked_for_is_none() -> None:
    play = Playbook()
    request = play.submit(a_request([5], max_new_tokens=1))
    play.step()
    event = play.events[request][0]
    assert isinstance(event, TokenEvent)
    assert event.token.logprob is None


def test_report_counts_what_the_step_did() -> None:
    play = Playbook()
    play.submit(a_request([5, 6], max_new_tokens=3))
    play.step()
    report = play.publications[-1].report
    assert (report.n_prefill_sequences, report.n_prefill_tokens) == (1, 2)
    assert (report.n_decode_sequences, report.n_generated_tokens) == (0, 1)
    assert (report.n_joined, report.n_running, report.n_queued) == (1, 1, 0)
    assert report.n_reserved_cells == 4
    assert (
        0 <= report.decode_s + report.sampling_s + report.python_s == pytest.approx(report.step_s)
    )


@pytest.mark.parametrize("layout", ["streams", "unified"])
@pytest.mark.parametrize("seed", range(20))
def test_random_arrivals_cancels_and_failures_keep_the_books(seed: int, layout: str) -> None:
    """A two-token vocabulary makes ends and stop strings frequent."""
    rng = random.Random(seed)
    draw = random.Random(seed + 1)
    play = Playbook(
        runner=FakeRunner(
            n_slots=3,
            max_batch_tokens=6,
            script=lambda _t: draw.choice([1, 2, 3]),
            layout=layout,
        ),
        n_cells=512 if layout == "unified" else 0,
        max_prefill_tokens=2,
    )
    requests = []
    kinds: list[type[DecodeError]] = [OutOfCells, DecodeAborted, InvalidBatch, DecodeFailed]
    for _ in range(120):
        if rng.random() < 0.4:
            prompt = [rng.choice([2, 3]) for _ in range(rng.randint(1, 20))]
            stops = ("CD", "DDD") if rng.random() < 0.5 else ()
            n_new = rng.randint(1, 30)
            requests.append(
                play.submit(a_request(prompt, max_new_tokens=n_new, stop_strings=stops))
            )
        if requests and rng.random() < 0.1:
            play.cancel(rng.choice(requests))
        if rng.random() < 0.1:
            play.runner.failures.append(rng.choice(kinds)("injected"))
        if not (play.scheduler.is_idle and play.commands.empty()):
            play.step()
    play.run_until_idle()
    assert set(play.events) == set(requests)
    play.check_all_over()
