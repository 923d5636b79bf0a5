"""Prompt logprobs: every token's, by few rows at a time."""

import random
from collections.abc import Sequence

import attrs
import numpy as np
import pytest
from fakes.playbook import Playbook, a_request
from fakes.runner import FakeRunner, FakeVocabulary, noisy

from tgi_llama.engine.model_runner import Logits
from tgi_llama.errors import DecodeAborted, DecodeFailed, GenerationError
from tgi_llama.generation import PromptToken, SamplingParameters, TokenEvent, TokenId

PROMPT = [10, 60, 0, 11, 12, 33, 33, 34, 5, 6, 7, 1, 8, 20, 21, 22, 23]
"""With a control token and an end-of-generation token."""


def expected_logprobs(prompt: Sequence[int]) -> list[float | None]:
    """By definition, in double precision."""
    logprobs: list[float | None] = [None]
    for i in range(1, len(prompt)):
        row = noisy(prompt[:i]).astype(np.float64)
        logprobs.append(float(row[prompt[i]] - np.log(np.exp(row).sum())))
    return logprobs


def assert_scores(tokens: Sequence[PromptToken], prompt: Sequence[int]) -> None:
    assert [token.id for token in tokens] == list(prompt)
    assert tokens[0].logprob is None
    expected = expected_logprobs(prompt)
    assert [t.logprob for t in tokens[1:]] == pytest.approx(expected[1:], abs=1e-5)


def noisy_play(*, n_slots: int = 4, max_batch: int = 16, n_prompt_rows: int = 4) -> Playbook:
    return Playbook(
        runner=FakeRunner(
            n_slots=n_slots, max_batch_tokens=max_batch, n_prompt_rows=n_prompt_rows, script=noisy
        )
    )


@pytest.mark.parametrize("max_batch", [4, 7, 16])
@pytest.mark.parametrize("n_prompt_rows", [1, 2, 5, 100])
def test_prompt_logprobs_do_not_depend_on_rows_and_chunks(
    n_prompt_rows: int, max_batch: int
) -> None:
    """The fake runner asserts that there are never more rows than it has."""
    play = noisy_play(max_batch=max_batch, n_prompt_rows=n_prompt_rows)
    request = play.submit(a_request(PROMPT, prompt_logprobs=True, max_new_tokens=2))
    plain = play.submit(a_request(PROMPT, max_new_tokens=2))
    play.run_until_idle()
    assert_scores(play.prompt_tokens(request), PROMPT)
    assert play.tokens(request) == play.tokens(plain)
    assert play.n_prefilled() == len(PROMPT) + 1, "the other one waits for it"
    play.check_all_over()


def test_prompt_of_one_token_has_one_score_of_nothing() -> None:
    play = noisy_play()
    request = play.submit(a_request([9], prompt_logprobs=True, max_new_tokens=1))
    play.run_until_idle()
    assert play.prompt_tokens(request) == (PromptToken(TokenId(9), "J", None),)


def test_prompt_scores_are_on_the_first_event_only() -> None:
    play = noisy_play()
    request = play.submit(a_request(PROMPT, prompt_logprobs=True, max_new_tokens=3))
    play.run_until_idle()
    sizes = [len(e.prompt_tokens) for e in play.events[request] if isinstance(e, TokenEvent)]
    assert sizes == [len(PROMPT), 0, 0]


def test_prompt_scores_that_nobody_wants_are_not_there() -> None:
    play = noisy_play()
    request = play.submit(a_request(PROMPT, logprobs=True))
    play.run_until_idle()
    assert play.prompt_tokens(request) == ()
    assert max(sum(run.n_outputs for run in batch.runs) for batch in play.runner.batches) == 1


def test_prompt_token_texts_join_characters_and_spell_control_tokens() -> None:
    pieces = {10: b"a\xc3", 11: b"\xa9", 12: b" z"}
    play = Playbook(runner=FakeRunner(script=noisy), vocabulary=FakeVocabulary(pieces=pieces))
    request = play.submit(a_request([12, 0, 10, 11, 1, 12], prompt_logprobs=True))
    play.run_until_idle()
    texts = [token.text for token in play.prompt_tokens(request)]
    assert texts == [" z", "<control>", "a", "é", "<end>", " z"]


def test_prompt_top_tokens_are_the_likeliest_of_each_position() -> None:
    play = noisy_play()
    request = play.submit(a_request(PROMPT, prompt_logprobs=True, n_prompt_top_tokens=3))
    play.run_until_idle()
    tokens = play.prompt_tokens(request)
    assert tokens[0].top_tokens == ()
    for i, token in enumerate(tokens[1:], start=1):
        row = noisy(PROMPT[:i])
        assert [top.id for top in token.top_tokens] == np.argsort(-row)[:3].tolist()
        for top in token.top_tokens:
            assert top.special == (top.id <= 1)
            assert top.text == FakeVocabulary().piece(top.id).decode()
        assert token.top_tokens[0].logprob == pytest.approx(
            float(row.max() - np.log(np.exp(row.astype(float)).sum())), abs=1e-5
        )


def test_branches_share_the_scores() -> None:
    play = noisy_play(n_slots=2)
    requests = [
        a_request(PROMPT, prompt_logprobs=True, sampling=SamplingParameters(seed=seed))
        for seed in range(5)
    ]
    ids = play.submit_together(requests)
    play.run_until_idle()
    for request_id in ids:
        assert_scores(play.prompt_tokens(request_id), PROMPT)
    assert play.n_prefilled() == len(PROMPT) + 4, "a branch computes the last token"
    n_rows = sum(run.n_outputs for batch in play.runner.batches for run in batch.runs)
    n_decoded = sum(publication.report.n_decode_sequences for publication in play.publications)
    assert n_rows == len(PROMPT) + 4 + n_decoded, "no row was computed twice"


def test_aborted_decode_scores_no_token_twice() -> None:
    play = noisy_play(max_batch=8)
    request = play.submit(a_request(PROMPT, prompt_logprobs=True))
    play.runner.failures.extend([None, DecodeAborted("aborted"), None, DecodeAborted("aborted")])
    play.run_until_idle()
    assert_scores(play.prompt_tokens(request), PROMPT)
    play.check_all_over()


def test_branch_that_starts_over_scores_only_what_is_missing() -> None:
    play = noisy_play(max_batch=8)
    requests = [
        a_request(PROMPT, prompt_logprobs=True, sampling=SamplingParameters(seed=seed))
        for seed in range(2)
    ]
    lost, heir = play.submit_together(requests)
    play.runner.failures.extend([None, None, DecodeFailed("lost")])
    play.run_until_idle()
    assert isinstance(play.error(lost), GenerationError)
    assert_scores(play.prompt_tokens(heir), PROMPT)
    play.check_all_over()


def test_prompts_with_scores_leave_a_row_to_everybody() -> None:
    """As many of them as there are slots, beside streams and plain prompts."""
    play = noisy_play(n_slots=6, max_batch=64, n_prompt_rows=3)
    streams = [play.submit(a_request([20 + i], max_new_tokens=40)) for i in range(2)]
    play.step()
    rng = random.Random(1)
    prompts = [[rng.randint(2, 60) for _ in range(30)] for _ in range(4)]
    scored = [
        play.submit(a_request(prompt, prompt_logprobs=i != 2, max_new_tokens=2))
        for i, prompt in enumerate(prompts)
    ]
    play.run_until_idle()
    for i, request in enumerate(scored):
        if i == 2:
            assert play.prompt_tokens(request) == ()
        else:
            assert_scores(play.prompt_tokens(request), prompts[i])
    assert all(len(play.tokens(stream)) == 40 or play.reason(stream) for stream in streams)
    most = max(sum(run.n_outputs for run in batch.runs) for batch in play.runner.batches)
    assert most == play.runner.max_outputs, "the rows are used, all of them"
    play.check_all_over()


@pytest.mark.parametrize("layout", ["streams", "unified"])
def test_prompt_whose_rows_cannot_be_scored_leaves_no_cells(layout: str) -> None:
    """The chunk has been computed, but is not in the books yet."""

    @attrs.define(eq=False)
    class Rowless(FakeRunner):
        has_rows: bool = True

        def logits(self, row: int) -> Logits:
            if not self.has_rows:
                raise IndexError("no such row")
            return super().logits(row)

    runner = Rowless(script=noisy, layout=layout)
    play = Playbook(runner=runner)
    request = play.submit(a_request([*range(2, 42)], prompt_logprobs=True))
    play.step()
    play.step()
    runner.has_rows = False
    play.step()
    assert isinstance(play.error(request), GenerationError)
    assert runner.n_cells_used == play.placement.slots.n_idle == 0
    play.check_all_over()


def test_vocabulary_that_raises_on_a_prompt_token_fails_only_its_request() -> None:
    @attrs.define(eq=False)
    class Broken(FakeVocabulary):
        def piece(self, token: int) -> bytes:
            if token == 33:
                raise IndexError("no such token")
            return super().piece(token)

    play = Playbook(runner=FakeRunner(), vocabulary=Broken())
    good = play.submit(a_request([5], max_new_tokens=6))
    bad = play.submit(a_request(PROMPT, prompt_logprobs=True))
    play.run_until_idle()
    assert "scoring the prompt failed" in str(play.error(bad))
    assert len(play.tokens(good)) == 6
    play.check_all_over()
