"""Playbooks of sequences with a grammar: what fails with them, and what may come late."""

import threading

import attrs
import pytest
from fakes.grammar_play import Script, any_then, logprobs, make_play
from fakes.letter_grammars import RuleGrammar
from fakes.playbook import Playbook, a_request
from fakes.runner import FakeRunner, noisy

from tgi_llama.errors import DecodeAborted, DecodeFailed, GenerationError
from tgi_llama.generation import Constraint, Failed, SamplingParameters, TokenId


def dead_end(tokens: tuple[int, ...]) -> set[int]:
    return {10, 11} if len(tokens) < 2 else set()


def broken_mask(tokens: tuple[int, ...]) -> None:
    if len(tokens) == 2:
        raise GenerationError("a limit of the grammar engine")


def bug(tokens: tuple[int, ...]) -> None:
    if len(tokens) == 2:
        raise RuntimeError("a bug")


FAULTS = {
    "dead end": (RuleGrammar(dead_end), "allows no token"),
    "mask": (RuleGrammar(Script((None,) * 9), broken_mask), "a limit of"),
    "bug": (RuleGrammar(Script((None,) * 9), bug), "a bug"),
}


@pytest.mark.parametrize("sampling", [SamplingParameters(top_k=5), SamplingParameters(greedy=True)])
@pytest.mark.parametrize("fault", FAULTS)
def test_fault_of_a_grammar_in_mid_generation_fails_its_request_only(
    plays: list[Playbook], fault: str, sampling: SamplingParameters
) -> None:
    grammar, message = FAULTS[fault]
    play = make_play(plays)
    healthy = a_request([5, 6], max_new_tokens=8, constraint=any_then(*[None] * 6))
    expected = make_play(plays)
    alone = expected.submit(healthy)
    expected.run_until_idle()
    request = play.submit(a_request([7], max_new_tokens=8, sampling=sampling, constraint=grammar))
    neighbour = play.submit(healthy)
    play.run_until_idle()
    assert len(play.tokens(request)) == 2
    error = play.error(request)
    assert isinstance(error, GenerationError)
    assert message in str(error)
    assert play.tokens(neighbour) == expected.tokens(alone)
    play.check_all_over()


def test_grammar_that_cannot_start_fails_its_request_only(plays: list[Playbook]) -> None:
    class Unwilling:
        def start(self) -> None:
            raise GenerationError("not today")

    play = make_play(plays)
    constraint: Constraint = Unwilling()  # type: ignore[assignment]
    bad, good = (
        play.submit(a_request([5], constraint=each)) for each in (constraint, any_then(30))
    )
    play.run_until_idle()
    assert "not today" in str(play.error(bad))
    assert play.reason(good) == "eos_token"


def test_refused_token_fails_its_request_only(plays: list[Playbook]) -> None:
    """A state that allows a token and then does not take it."""

    class Liar(RuleGrammar):
        def start(self) -> "LyingState":
            return LyingState(self)

    class LyingState(type(RuleGrammar(dead_end).start())):  # type: ignore[misc]
        def take(self, token: TokenId) -> None:
            raise GenerationError(f"the grammar refuses token {token}")

    play = make_play(plays)
    request = play.submit(a_request([5], constraint=Liar(Script((None, None)))))
    other = play.submit(a_request([5, 6]))
    play.run_until_idle()
    assert "refuses" in str(play.error(request))
    assert len(play.tokens(other)) == 4
    play.check_all_over()


@pytest.mark.parametrize("can_cut", [True, False])
@pytest.mark.parametrize("n_prompt", [1, 3, 9])
def test_late_mask_holds_up_its_own_sequence_only(
    plays: list[Playbook], n_prompt: int, can_cut: bool
) -> None:
    gate = threading.Event()

    def slow(tokens: tuple[int, ...]) -> None:
        if len(tokens) in (1, 3, 4):
            assert gate.wait(30)

    def open_if_waited_for() -> None:
        """Where cells cannot be cut the loop has to wait for the mask."""
        if not can_cut:
            gate.set()

    runner = FakeRunner(script=noisy, can_cut=can_cut)
    play = make_play(plays, runner=runner)
    play.scheduler.fewest_leapt = 1
    runner.before_decode = open_if_waited_for
    sampling = SamplingParameters(top_k=3, seed=5)
    prompt = [5, 6, 7, 8, 9, 10, 11, 12, 13][:n_prompt]
    slow_one = a_request(
        prompt,
        max_new_tokens=8,
        sampling=sampling,
        logprobs=True,
        constraint=RuleGrammar(Script((32, None, 30, None, None, 31, None)), slow),
    )
    request = play.submit(slow_one)
    other = play.submit(a_request([9], max_new_tokens=30, ignore_eos=True))
    for _ in range(4):
        play.step()
    if can_cut:
        assert play.tokens(request) == [32]
        assert len(play.tokens(other)) >= 2
    gate.set()
    play.run_until_idle()
    quick = make_play(plays)
    same = quick.submit(attrs.evolve(slow_one, constraint=RuleGrammar(slow_one.constraint.rule)))
    quick.run_until_idle()
    assert play.tokens(request) == quick.tokens(same)
    assert logprobs(play, request) == pytest.approx(logprobs(quick, same))
    assert len(play.tokens(other)) == 30
    play.check_all_over()


def test_late_mask_of_a_sequence_alone_is_waited_for(plays: list[Playbook]) -> None:
    started, gate = threading.Event(), threading.Event()

    def slow(_tokens: tuple[int, ...]) -> None:
        started.set()
        assert gate.wait(30)

    play = make_play(plays)
    play.submit(
        a_request(
            [5],
            max_new_tokens=1,
            sampling=SamplingParameters(top_k=3),
            constraint=RuleGrammar(Script((None, None)), slow),
        )
    )

    def open_later() -> None:
        assert started.wait(30)
        gate.set()

    opener = threading.Thread(target=open_later)
    opener.start()
    play.run_until_idle()
    opener.join()
    assert len(play.runner.batches) == 1


def test_client_that_leaves_while_its_mask_is_computed_frees_its_slot(
    plays: list[Playbook],
) -> None:
    gate = threading.Event()

    def slow(_tokens: tuple[int, ...]) -> None:
        assert gate.wait(30)

    play = make_play(plays)
    sampling = SamplingParameters(top_k=3)
    request = play.submit(
        a_request([5], sampling=sampling, constraint=RuleGrammar(Script((None,) * 5), slow))
    )
    other = play.submit(a_request([9], max_new_tokens=9, ignore_eos=True))
    play.step()
    play.cancel(request)
    play.run_until_idle()
    assert isinstance(play.events[request][-1], Failed)
    assert len(play.tokens(other)) == 9
    gate.set()
    play.check_all_over()


@pytest.mark.parametrize("can_cut", [True, False])
@pytest.mark.parametrize("at", range(6))
def test_broken_off_decode_changes_nothing(plays: list[Playbook], at: int, can_cut: bool) -> None:
    grammar = RuleGrammar(Script((30, None, 31, 32, 33, None, None, 34, 35)))
    request = a_request([5, 6], max_new_tokens=20, logprobs=True, constraint=grammar)
    plain = make_play(plays)
    expected = plain.submit(request)
    plain.run_until_idle()
    runner = FakeRunner(script=noisy, can_cut=can_cut)
    runner.failures.extend([None] * at + [DecodeAborted("stop")])
    play = make_play(plays, runner=runner)
    actual = play.submit(request)
    play.run_until_idle()
    assert play.tokens(actual) == plain.tokens(expected)
    assert logprobs(play, actual) == pytest.approx(logprobs(plain, expected))


def test_failed_decode_fails_a_constrained_request_too(plays: list[Playbook]) -> None:
    play = make_play(plays)
    play.runner.failures.extend([None, DecodeFailed("broken")])
    request = play.submit(a_request([5], constraint=any_then(None, 30, None)))
    play.run_until_idle()
    assert isinstance(play.error(request), GenerationError)
    play.check_all_over()
