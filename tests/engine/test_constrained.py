"""Playbooks of sequences with a grammar: what they say, and when they end."""

from itertools import pairwise

import numpy as np
import pytest
from fakes.grammar_play import Script, any_then, make_play
from fakes.letter_grammars import N_VOCAB, RealGrammar, RuleGrammar, letter_vocabulary
from fakes.playbook import Playbook, Unbounded, a_request
from fakes.runner import EOS, FakeRunner, noisy

from tgi_llama.engine.sampler import log_sum_exp
from tgi_llama.generation import SamplingParameters, TokenEvent, TokenId


def words(vocabulary_text: str) -> list[int]:
    """The tokens of a text of the letter vocabulary."""
    pieces = letter_vocabulary().pieces
    return [next(t for t, piece in pieces.items() if piece.decode() == c) for c in vocabulary_text]


# What comes next


def test_choices_stay_within_the_grammar(plays: list[Playbook]) -> None:
    play = make_play(plays)
    sampling = SamplingParameters(temperature=2.0, seed=4)
    request = play.submit(
        a_request([5, 6], max_new_tokens=9, sampling=sampling, constraint=any_then(None, None))
    )
    free = play.submit(a_request([5, 6], max_new_tokens=9, sampling=sampling))
    play.run_until_idle()
    assert set(play.tokens(request)) <= set(range(10, 20))
    assert len(play.tokens(request)) == 3
    assert not set(play.tokens(free)) <= set(range(10, 20)), "others are free"
    play.check_all_over()


def test_greedy_choice_is_the_likeliest_of_the_allowed_ones(plays: list[Playbook]) -> None:
    play = make_play(plays)
    request = play.submit(a_request([5, 6], constraint=any_then(None), max_new_tokens=4))
    play.run_until_idle()
    tokens, expected = [5, 6], []
    for _ in range(2):
        expected.append(10 + int(noisy(tokens)[10:20].argmax()))
        tokens.append(expected[-1])
    assert play.tokens(request) == expected


def test_forced_tokens_are_computed_at_once_where_nobody_else_runs(plays: list[Playbook]) -> None:
    play = make_play(plays)
    request = play.submit(
        a_request([5, 6], max_new_tokens=20, constraint=any_then(30, 31, 32, 33, None, 40))
    )
    play.run_until_idle()
    tokens = play.tokens(request)
    assert tokens[1:5] == [30, 31, 32, 33]
    assert tokens[6] == 40
    sizes = [batch.tokens.shape[0] for batch in play.runner.batches]
    assert sizes == [2, 5], "the prompt; the first choice and what follows; the end is not computed"
    assert play.reason(request) == "eos_token"
    assert sum(p.report.n_forced_tokens for p in play.publications) == 5
    assert sum(p.report.n_generated_tokens for p in play.publications) == 7


def test_tokens_that_a_text_must_begin_with_are_computed_with_the_prompt(
    plays: list[Playbook],
) -> None:
    play = make_play(plays)
    grammar = RuleGrammar(Script((30, 31, None, None)))
    request = play.submit(a_request([5, 6], max_new_tokens=20, constraint=grammar))
    play.run_until_idle()
    assert play.tokens(request)[:2] == [30, 31]
    assert [batch.tokens.shape[0] for batch in play.runner.batches] == [4, 1]


def test_few_forced_tokens_beside_others_come_one_a_step_in_the_streams_layout(
    plays: list[Playbook],
) -> None:
    play = make_play(plays, runner=FakeRunner(script=noisy, max_batch_tokens=64))
    few = play.submit(
        a_request([5, 6], max_new_tokens=40, constraint=any_then(*[30] * 15, None, None))
    )
    many = play.submit(
        a_request([7, 6], max_new_tokens=40, constraint=any_then(*[30] * 16, None, None))
    )
    other = play.submit(a_request([8], max_new_tokens=50, ignore_eos=True))
    play.max_prefill_tokens = 64
    play.scheduler.max_prefill_tokens = 64
    play.run_until_idle()
    largest = {
        slot: max(r.n_tokens for b in play.runner.batches for r in b.runs if r.slot == slot)
        for slot in range(3)
    }
    assert largest == {0: 2, 1: 17, 2: 1}
    assert play.tokens(few)[1:16] == [30] * 15
    assert play.tokens(many)[1:17] == [30] * 16
    assert len(play.tokens(other)) == 50


def test_forced_tokens_beside_others_are_computed_at_once_in_the_unified_layout(
    plays: list[Playbook],
) -> None:
    play = make_play(plays, runner=FakeRunner(script=noisy, layout="unified"))
    request = play.submit(
        a_request([5, 6], max_new_tokens=20, constraint=any_then(30, 31, 32, None, None))
    )
    play.submit(a_request([8], max_new_tokens=30, ignore_eos=True))
    play.run_until_idle()
    assert play.tokens(request)[1:4] == [30, 31, 32]
    assert max(r.n_tokens for b in play.runner.batches for r in b.runs) == 4


@pytest.mark.parametrize("n_rows", [1, 2, 10])
@pytest.mark.parametrize("fast_forward", [True, False])
def test_logprobs_of_forced_tokens_are_those_of_their_rows(
    plays: list[Playbook], n_rows: int, fast_forward: bool
) -> None:
    runner = FakeRunner(script=noisy, n_prompt_rows=n_rows)
    play = make_play(plays, runner=runner, fast_forward=fast_forward)
    grammar = RuleGrammar(Script((30, 31, None, 40, 41, 42, 43, 44, None, 45, 46)))
    request = play.submit(
        a_request([5, 6], max_new_tokens=20, logprobs=True, n_top_tokens=2, constraint=grammar)
    )
    beside = play.submit(a_request([9, 6], max_new_tokens=20, logprobs=True, ignore_eos=True))
    play.run_until_idle()
    for each, prompt in ((request, [5, 6]), (beside, [9, 6])):
        tokens = list(prompt)
        for event in play.events[each]:
            assert isinstance(event, TokenEvent)
            row = noisy(tokens)
            assert event.token.logprob == pytest.approx(
                float(row[event.token.id]) - log_sum_exp(row), abs=1e-5
            )
            if each == request:
                assert event.top_tokens[0].id == int(np.argmax(row))
            tokens.append(event.token.id)
    assert len(play.tokens(request)) == 11
    play.check_all_over()


def test_prompt_logprobs_and_forced_tokens_go_together(plays: list[Playbook]) -> None:
    play = make_play(plays)
    grammar = RuleGrammar(Script((30, 31, None, 40)))
    requests = [
        a_request(
            [5, 6, 7], max_new_tokens=9, logprobs=True, prompt_logprobs=True, constraint=grammar
        )
    ] * 2
    for request in play.submit_together(requests):
        play.run_until_idle()
        assert len(play.prompt_tokens(request)) == 3
        assert play.tokens(request)[:2] == [30, 31]
        assert len(play.tokens(request)) == 4
        assert play.reason(request) == "eos_token"


def test_prompt_logprobs_are_whole_where_all_of_the_text_is_forced(plays: list[Playbook]) -> None:
    """The text is known before the prompt is computed, and nothing of it has to be computed."""
    play = make_play(plays, max_prefill_tokens=4, runner=FakeRunner(script=noisy, n_prompt_rows=1))
    grammar = RuleGrammar(Script((30, 31)))
    prompt = list(range(5, 15))
    request = play.submit(a_request(prompt, prompt_logprobs=True, constraint=grammar))
    play.run_until_idle()
    assert [token.id for token in play.prompt_tokens(request)] == prompt
    assert play.tokens(request) == [30, 31]


def test_penalties_count_forced_tokens(plays: list[Playbook]) -> None:
    runner = FakeRunner(script=lambda _tokens: np.zeros(64, dtype=np.float32))
    play = make_play(plays, runner=runner)
    grammar = RuleGrammar(Script((10, 11, 12, None)))
    sampling = SamplingParameters(greedy=True, presence_penalty=1.0)
    request = play.submit(a_request([5], max_new_tokens=9, sampling=sampling, constraint=grammar))
    play.run_until_idle()
    assert play.tokens(request) == [10, 11, 12, 13]


# The end


def test_complete_grammar_ends_the_generation_without_another_decode(
    plays: list[Playbook],
) -> None:
    play = make_play(plays)
    request = play.submit(a_request([5, 6], max_new_tokens=9, constraint=any_then(30, 31)))
    assert play.run_until_idle() == 1
    assert play.tokens(request)[1:] == [30, 31]
    assert play.reason(request) == "eos_token"
    last = play.events[request][-1]
    assert isinstance(last, TokenEvent)
    assert last.finish is not None
    assert last.finish.n_generated == 3
    play.check_all_over()


def test_end_of_generation_where_the_grammar_allows_it_says_eos(plays: list[Playbook]) -> None:
    def rule(tokens: tuple[int, ...]) -> set[int]:
        return {10, 11} if len(tokens) < 2 else {10, 11, EOS}

    play = make_play(plays, runner=FakeRunner(script=lambda _tokens: EOS))
    request = play.submit(a_request([5], max_new_tokens=9, constraint=RuleGrammar(rule)))
    play.run_until_idle()
    assert play.tokens(request) == [10, 10, EOS]
    assert play.reason(request) == "eos_token"


@pytest.mark.parametrize("ignore_eos", [True, False])
def test_ignored_end_of_generation_comes_only_where_nothing_else_may(
    plays: list[Playbook], ignore_eos: bool
) -> None:
    def rule(tokens: tuple[int, ...]) -> set[int]:
        return {EOS} if len(tokens) == 3 else {10, EOS}

    play = make_play(plays, runner=FakeRunner(script=lambda _tokens: EOS))
    request = play.submit(
        a_request([5], max_new_tokens=9, constraint=RuleGrammar(rule), ignore_eos=ignore_eos)
    )
    play.run_until_idle()
    assert play.tokens(request) == ([10, 10, 10] if ignore_eos else [EOS])
    assert play.reason(request) == "eos_token"


@pytest.mark.parametrize("logprobs", [True, False])
@pytest.mark.parametrize("most", range(1, 8))
def test_limit_within_forced_tokens_says_length(
    plays: list[Playbook], most: int, logprobs: bool
) -> None:
    play = make_play(plays, cells_per_sequence=2 + most, cells_are_padded=False)
    request = play.submit(
        a_request(
            [5, 6],
            max_new_tokens=most,
            logprobs=logprobs,
            constraint=any_then(30, 31, 32, None, 33, 34),
        )
    )
    play.run_until_idle()
    assert len(play.tokens(request)) == most
    assert play.reason(request) == ("length" if most < 7 else "eos_token")
    assert play.runner.cells[0] == ([5, 6, *play.tokens(request)][: len(play.runner.cells[0])])
    play.check_all_over()


@pytest.mark.parametrize("logprobs", [True, False])
@pytest.mark.parametrize("keep", [True, False])
def test_stop_string_within_forced_tokens_ends_the_text(
    plays: list[Playbook], logprobs: bool, keep: bool
) -> None:
    play = make_play(plays, vocabulary=letter_vocabulary())
    grammar = RuleGrammar(Script((*words("abcdef"), None)))
    request = play.submit(
        a_request(
            [5, 6],
            max_new_tokens=9,
            logprobs=logprobs,
            constraint=grammar,
            stop_strings=("cd",),
            keep_stop_string=keep,
        )
    )
    play.run_until_idle()
    assert play.text(request) == ("abcd" if keep else "ab")
    assert len(play.tokens(request)) == 4
    assert play.reason(request) == "stop_sequence"
    play.check_all_over()


def test_shown_control_is_visible_and_still_ends_the_generation(plays: list[Playbook]) -> None:
    tokens = iter([0, 9, EOS])
    play = make_play(plays, runner=FakeRunner(script=lambda _tokens: next(tokens)))
    request = play.submit(
        a_request([5], max_new_tokens=9, shown_controls=frozenset({TokenId(0), EOS}))
    )
    play.run_until_idle()
    assert play.text(request) == "<control>J<end>"
    assert play.reason(request) == "eos_token"
    last = play.events[request][-1]
    assert isinstance(last, TokenEvent)
    assert last.token.special


# What others notice


def test_steps_with_leaps_teach_the_budget_nothing(plays: list[Playbook]) -> None:
    noted: list[tuple[int, int]] = []

    class Noting(Unbounded):
        def note(self, *, n_decode: int, n_prefill: int, seconds: float) -> None:  # noqa: ARG002
            noted.append((n_decode, n_prefill))

    play = make_play(plays, budget=Noting())
    play.submit(a_request([5, 6], max_new_tokens=40, constraint=any_then(*[30, 31, None] * 8)))
    n_steps = play.run_until_idle()
    assert n_steps > 8
    assert noted == [(0, 2)], "the prompt; every other step has a leap"


def test_plan_stays_while_forced_tokens_come_one_a_step(plays: list[Playbook]) -> None:
    play = make_play(plays)
    play.submit(a_request([5, 6], max_new_tokens=20, constraint=any_then(*[30] * 9, None)))
    play.submit(a_request([7], max_new_tokens=30, ignore_eos=True))
    for _ in range(3):
        play.step()
    plans = [play.scheduler.schedule() for _ in range(4) if play.step()]
    assert all(one is other for one, other in pairwise(plans))


def test_real_grammar_gives_text_that_matches(plays: list[Playbook]) -> None:
    play = make_play(plays, vocabulary=letter_vocabulary())
    request = play.submit(
        a_request(
            [5, 6],
            max_new_tokens=40,
            sampling=SamplingParameters(temperature=3.0, seed=3),
            constraint=RealGrammar.of_regex(r"id-[0-9]{3}-(abc|abd)\.x"),
        )
    )
    play.run_until_idle()
    text = play.text(request)
    assert text.startswith("id-")
    assert text[-6:] in ("-abc.x"[-6:], "-abd.x"[-6:])
    assert play.reason(request) == "eos_token"
    assert play.vocabulary.n_vocab == N_VOCAB
