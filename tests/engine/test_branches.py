"""Branches of one prompt: it is computed once, up to its last token; a branch's end is its own.

A later branch waits for the one that computes the prompt and copies; that is the prefix cache at
work (``test_prefix_cache.py``), so a branch may also start from what an ended one has left.
"""

import random
from collections.abc import Sequence

import attrs
import pytest
from fakes.playbook import Playbook, a_request, alone
from fakes.runner import FakeRunner, noisy

from tgi_llama.errors import (
    DecodeAborted,
    DecodeError,
    DecodeFailed,
    GenerationError,
    InvalidBatch,
    OutOfCells,
    RequestCancelled,
)
from tgi_llama.generation import (
    CacheOutcome,
    Failed,
    GenerationRequest,
    SamplingParameters,
    TokenEvent,
)

LAYOUTS = pytest.mark.parametrize("layout", ["streams", "unified"])

PROMPT = list(range(10, 50))


def branches(
    n: int, *, prompt: Sequence[int] = PROMPT, max_new_tokens: int = 5, **options: object
) -> list[GenerationRequest]:
    """Requests that differ in their seeds."""
    return [
        a_request(
            list(prompt),
            max_new_tokens=max_new_tokens,
            sampling=SamplingParameters(seed=seed),
            ignore_eos=True,
            **options,  # type: ignore[arg-type]
        )
        for seed in range(n)
    ]


def noisy_play(
    *, n_slots: int = 4, layout: str = "streams", can_cut: bool = True, max_batch: int = 16
) -> Playbook:
    runner = FakeRunner(
        n_slots=n_slots, max_batch_tokens=max_batch, script=noisy, can_cut=can_cut, layout=layout
    )
    return Playbook(runner=runner)


@LAYOUTS
@pytest.mark.parametrize("n_slots", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("n", [2, 4, 7])
def test_branches_give_what_each_gives_alone_and_the_prompt_is_computed_once(
    n: int, n_slots: int, layout: str
) -> None:
    play = noisy_play(n_slots=n_slots, layout=layout)
    requests = branches(n)
    ids = play.submit_together(requests)
    play.run_until_idle()
    assert [play.tokens(request_id) for request_id in ids] == [alone(r) for r in requests]
    assert play.n_prefilled() == len(PROMPT) + n - 1, "each computes the last token"
    assert len({tuple(play.tokens(request_id)) for request_id in ids}) == n
    play.check_all_over()


def test_branches_of_one_token_each_are_all_served() -> None:
    play = noisy_play(n_slots=2)
    requests = branches(5, max_new_tokens=1)
    ids = play.submit_together(requests)
    play.run_until_idle()
    assert [play.tokens(request_id) for request_id in ids] == [alone(r) for r in requests]
    assert play.n_prefilled() == len(PROMPT) + 4
    play.check_all_over()


def test_branches_of_a_prompt_of_one_token_are_all_served() -> None:
    play = noisy_play(n_slots=2)
    requests = branches(5, prompt=[7])
    ids = play.submit_together(requests)
    play.run_until_idle()
    assert [play.tokens(request_id) for request_id in ids] == [alone(r) for r in requests]
    play.check_all_over()


def test_branches_report_the_slots_and_tokens_of_all() -> None:
    play = noisy_play(max_batch=64)
    play.submit_together(branches(3))
    play.step()
    report = play.publications[-1].report
    assert (report.n_joined, report.n_running) == (3, 3)
    assert (report.n_prefill_sequences, report.n_prefill_tokens) == (1, 40)
    assert report.n_generated_tokens == 1
    play.step()
    report = play.publications[-1].report
    assert (report.n_joined, report.n_running) == (0, 3)
    assert (report.n_prefill_sequences, report.n_prefill_tokens) == (2, 2)
    assert report.n_generated_tokens == 2, "two prompts are urgent where one decodes"
    play.step()
    report = play.publications[-1].report
    assert (report.n_decode_sequences, report.n_generated_tokens) == (3, 3)


@pytest.mark.parametrize("n_slots", [1, 2, 4])
def test_branches_join_once_each_and_say_what_they_did_not_compute(n_slots: int) -> None:
    play = noisy_play(n_slots=n_slots)
    ids = play.submit_together(branches(4))
    play.run_until_idle()
    assert sum(publication.report.n_joined for publication in play.publications) == 4
    cached = [play.n_cached(request_id) for request_id in ids]
    assert cached == [0] + [len(PROMPT) - 1] * 3
    assert play.outcomes() == [
        (CacheOutcome.UNKNOWN, 0),
        *[(CacheOutcome.SLOT, len(PROMPT) - 1)] * 3,
    ]


def test_branches_have_their_own_moments() -> None:
    play = noisy_play(n_slots=2)
    ids = play.submit_together(branches(3))
    play.run_until_idle()
    for request_id in ids:
        last = play.events[request_id][-1]
        assert isinstance(last, TokenEvent)
        assert last.finish is not None
        timings = last.finish.timings
        assert 0.0 < timings.started <= timings.first_token <= timings.finished


@LAYOUTS
def test_branch_that_gets_a_slot_late_takes_the_prompt_of_one_that_decodes(layout: str) -> None:
    play = noisy_play(n_slots=2, layout=layout)
    other = play.submit(a_request([3, 4], max_new_tokens=6, ignore_eos=True))
    play.step()
    requests = branches(2, max_new_tokens=20)
    first, second = play.submit_together(requests)
    while not play.events[second]:
        play.step()
    assert len(play.events[first]) > 1, "the first branch decodes meanwhile"
    play.run_until_idle()
    assert play.tokens(first) == alone(requests[0])
    assert play.tokens(second) == alone(requests[1])
    assert len(play.tokens(other)) == 6
    assert play.n_prefilled() == 2 + len(PROMPT) + 1
    play.check_all_over()


@pytest.mark.parametrize(("cache_ram_bytes", "n_computed"), [(0, 40 + 40 + 40), (9999, 40 + 1 + 1)])
def test_late_branch_of_a_prompt_that_cannot_be_cut_starts_from_its_checkpoint(
    cache_ram_bytes: int, n_computed: int
) -> None:
    """A recurrent state has no past, but what was saved on the way."""
    runner = FakeRunner(n_slots=2, script=noisy, can_cut=False)
    play = Playbook(runner=runner, cache_ram_bytes=cache_ram_bytes)
    play.submit(a_request([3, 4], max_new_tokens=12, ignore_eos=True))
    play.step()
    requests = branches(3, max_new_tokens=20)
    ids = play.submit_together(requests)
    play.run_until_idle()
    assert [play.tokens(request_id) for request_id in ids] == [alone(r) for r in requests]
    assert play.n_prefilled() == 2 + n_computed
    play.check_all_over()


@pytest.mark.parametrize("cache_ram_bytes", [0, 9999])
@LAYOUTS
def test_branches_of_a_prompt_that_cannot_be_cut_are_copied_at_its_last_token(
    layout: str, cache_ram_bytes: int
) -> None:
    runner = FakeRunner(script=noisy, can_cut=False, layout=layout)
    play = Playbook(runner=runner, cache_ram_bytes=cache_ram_bytes)
    requests = branches(4)
    ids = play.submit_together(requests)
    play.run_until_idle()
    assert [play.tokens(request_id) for request_id in ids] == [alone(r) for r in requests]
    assert play.n_prefilled() == len(PROMPT) + 3
    play.check_all_over()


@pytest.mark.parametrize("n_slots", [2, 4])
def test_tiny_prompt_is_computed_by_each_branch(n_slots: int) -> None:
    """Waiting and copying would cost more."""
    play = noisy_play(n_slots=n_slots)
    requests = branches(5, prompt=[5, 6, 7])
    ids = play.submit_together(requests)
    play.run_until_idle()
    assert [play.tokens(request_id) for request_id in ids] == [alone(r) for r in requests]
    assert play.n_prefilled() == 5 * 3
    play.check_all_over()


def test_request_behind_the_branches_waits_its_turn() -> None:
    play = noisy_play(n_slots=1)
    ids = play.submit_together(branches(3, max_new_tokens=2))
    behind = play.submit(a_request([5], max_new_tokens=1))
    play.run_until_idle()
    order = [request_id for p in play.publications for request_id, _ in p.events]
    assert order == [ids[0]] * 2 + [ids[1]] * 2 + [ids[2]] * 2 + [behind]


def test_one_command_with_two_prompts_computes_each_once() -> None:
    play = noisy_play(n_slots=8)
    requests = [*branches(2), *branches(3, prompt=PROMPT[5:]), *branches(1, prompt=[9])]
    ids = play.submit_together(requests)
    play.run_until_idle()
    assert [play.tokens(request_id) for request_id in ids] == [alone(r) for r in requests]
    assert play.n_prefilled() == len(PROMPT) + 1 + len(PROMPT[5:]) + 2 + 1


def test_same_prompt_with_other_wishes_is_computed_for_its_logprobs_only() -> None:
    play = noisy_play()
    requests = [
        *branches(1),
        *branches(1, max_new_tokens=9),
        *branches(1, prompt_logprobs=True),
        *branches(1, prompt_logprobs=True, n_prompt_top_tokens=2),
    ]
    ids = play.submit_together(requests)
    play.run_until_idle()
    assert [play.tokens(request_id) for request_id in ids] == [alone(r) for r in requests]
    assert [len(play.prompt_tokens(request_id)) for request_id in ids] == [0, 0, 40, 40]
    assert [len(play.prompt_tokens(request_id)[1].top_tokens) for request_id in ids[2:]] == [0, 2]
    assert play.n_prefilled() == len(PROMPT) + 1 + 2 * len(PROMPT)
    play.check_all_over()


def test_branch_that_cannot_be_made_fails_alone() -> None:
    play = noisy_play()
    good, bad, other = branches(3)
    bad = attrs.evolve(bad, sampling=SamplingParameters(seed=-1))
    ids = play.submit_together([bad, good, other])
    play.run_until_idle()
    assert isinstance(play.error(ids[0]), GenerationError)
    assert play.tokens(ids[1]) == alone(good)
    assert play.tokens(ids[2]) == alone(other)
    assert play.n_prefilled() == len(PROMPT) + 1
    play.check_all_over()


# Ends

N_STEPS_OF_PROMPT = 5
"""Of 40 tokens in chunks of 8."""


@LAYOUTS
@pytest.mark.parametrize("n_slots", [1, 2, 3])
@pytest.mark.parametrize("n_steps_before", [0, 1, 2, 4, 5, 6, 12])
@pytest.mark.parametrize("victim", range(4))
def test_cancelled_branch_in_any_phase_leaves_the_others_alone(
    victim: int, n_steps_before: int, n_slots: int, layout: str
) -> None:
    """Leader and others; queued, waiting for the prompt, in prefill, decoding, ended."""
    play = noisy_play(n_slots=n_slots, layout=layout, max_batch=8)
    requests = branches(4)
    ids = play.submit_together(requests)
    for _ in range(n_steps_before):
        play.step()
    play.cancel(ids[victim])
    play.run_until_idle()
    for request_id, request in zip(ids, requests, strict=True):
        expected = alone(request)
        if request_id == ids[victim]:
            assert play.tokens(request_id) == expected[: len(play.tokens(request_id))]
        else:
            assert play.tokens(request_id) == expected
    # The last 8 tokens of the prompt are not worth waiting for.
    n_each = 8 if n_steps_before == N_STEPS_OF_PROMPT - 1 else 1
    assert play.n_prefilled() <= len(PROMPT) + 3 * n_each, "nothing was computed twice"
    play.check_all_over()


@LAYOUTS
@pytest.mark.parametrize("n_steps_before", [0, 2, 6, 12])
def test_cancelling_all_branches_frees_everything(n_steps_before: int, layout: str) -> None:
    play = noisy_play(n_slots=2, layout=layout, max_batch=8)
    ids = play.submit_together(branches(5, max_new_tokens=30))
    for _ in range(n_steps_before):
        play.step()
    for request_id in ids:
        play.cancel(request_id)
    play.step()
    assert all(isinstance(play.error(request_id), RequestCancelled) for request_id in ids)
    play.check_all_over()


def test_stop_with_branches_in_every_phase_ends_each_once() -> None:
    play = noisy_play(n_slots=2, max_batch=8)
    ids = play.submit_together(branches(4))
    for _ in range(2):
        play.step()
    play.stop()
    late = play.submit_together(branches(2))
    assert not play.step()
    assert all(isinstance(play.events[i][-1], Failed) for i in [*ids, *late])
    play.check_all_over()


def test_leader_whose_cells_are_lost_is_followed_by_one_that_starts_over() -> None:
    play = noisy_play(max_batch=8)
    requests = branches(3)
    ids = play.submit_together(requests)
    play.runner.failures.extend([None, None, DecodeFailed("lost")])
    play.run_until_idle()
    assert "lost" in str(play.error(ids[0]))
    assert [play.tokens(i) for i in ids[1:]] == [alone(r) for r in requests[1:]]
    assert play.n_prefilled() == 3 * 8 + len(PROMPT) + 1, "with the chunk that was lost"
    play.check_all_over()


@pytest.mark.parametrize("kind", [OutOfCells, InvalidBatch])
def test_leader_that_fails_in_prefill_hands_on_what_it_has(kind: type[DecodeError]) -> None:
    play = noisy_play(max_batch=8)
    requests = branches(3)
    ids = play.submit_together(requests)
    play.runner.failures.extend([None, None, kind("no")])
    play.run_until_idle()
    assert isinstance(play.error(ids[0]), GenerationError)
    assert [play.tokens(i) for i in ids[1:]] == [alone(r) for r in requests[1:]]
    assert play.n_prefilled() == len(PROMPT) + 8 + 1, "the chunk that failed is done again"
    play.check_all_over()


@pytest.mark.parametrize("n_before", range(9))
@LAYOUTS
def test_out_of_cells_fails_no_branch_that_another_can_give_way_to(
    layout: str, n_before: int
) -> None:
    play = noisy_play(max_batch=8, layout=layout)
    requests = branches(3)
    ids = play.submit_together(requests)
    play.runner.failures.extend([None] * n_before + [OutOfCells("full")])
    play.run_until_idle()
    # While the first one computes the prompt, nobody else has cells to give.
    first = 1 if n_before < N_STEPS_OF_PROMPT else 0
    assert [play.tokens(i) for i in ids[first:]] == [alone(r) for r in requests[first:]]
    play.check_all_over()


@pytest.mark.parametrize("n_before", range(8))
def test_aborted_decode_with_branches_is_done_again(n_before: int) -> None:
    play = noisy_play(n_slots=2, max_batch=8)
    requests = branches(4)
    ids = play.submit_together(requests)
    play.runner.failures.extend([None] * n_before + [DecodeAborted("aborted")])
    play.run_until_idle()
    assert [play.tokens(i) for i in ids] == [alone(r) for r in requests]
    play.check_all_over()


@pytest.mark.parametrize("code", [-2, -3])
@LAYOUTS
def test_branches_that_lose_their_cells_do_not_take_the_queued_ones_along(
    layout: str, code: int
) -> None:
    play = noisy_play(n_slots=2, layout=layout, max_batch=8)
    requests = branches(4)
    ids = play.submit_together(requests)
    for _ in range(N_STEPS_OF_PROMPT + 1):
        play.step()
    play.runner.failures.append(DecodeFailed(f"code {code}"))
    play.run_until_idle()
    assert [isinstance(play.events[i][-1], Failed) for i in ids] == [True, True, False, False]
    assert [play.tokens(i) for i in ids[2:]] == [alone(r) for r in requests[2:]]
    assert play.n_prefilled() == 2 * (len(PROMPT) + 1)
    play.check_all_over()


@LAYOUTS
@pytest.mark.parametrize("can_cut", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_random_branches_cancels_and_failures_give_what_each_gives_alone(
    seed: int, can_cut: bool, layout: str
) -> None:
    rng = random.Random(seed)
    play = Playbook(
        runner=FakeRunner(
            n_slots=rng.randint(1, 4),
            max_batch_tokens=rng.randint(4, 9),
            n_prompt_rows=rng.randint(1, 4),
            script=noisy,
            can_cut=can_cut,
            layout=layout,
        ),
        cache_ram_bytes=rng.choice([0, 9999]),
        max_prefill_tokens=rng.randint(1, 6),
    )
    kinds: list[type[DecodeError]] = [OutOfCells, DecodeAborted, InvalidBatch, DecodeFailed]
    requests: dict[int, GenerationRequest] = {}
    for _ in range(80):
        if rng.random() < 0.25:
            group = branches(
                rng.randint(1, 6),
                prompt=[rng.randint(2, 60) for _ in range(rng.randint(1, 20))],
                max_new_tokens=rng.randint(1, 10),
                prompt_logprobs=rng.random() < 0.4,
            )
            requests.update(zip(play.submit_together(group), group, strict=True))
        if requests and rng.random() < 0.15:
            play.cancel(rng.choice(list(requests)))  # type: ignore[arg-type]
        if rng.random() < 0.08:
            play.runner.failures.append(rng.choice(kinds)("injected"))
        if not (play.scheduler.is_idle and play.commands.empty()):
            play.step()
    play.run_until_idle()
    assert set(play.events) == set(requests)
    play.check_all_over()
    for request_id, events in play.events.items():
        request = requests[request_id]
        tokens = play.tokens(request_id)
        expected = alone(request)
        assert tokens == (expected[: len(tokens)] if isinstance(events[-1], Failed) else expected)
        if tokens:
            n_scored = len(request.prompt_ids) if request.prompt_logprobs else 0
            assert len(play.prompt_tokens(request_id)) == n_scored
