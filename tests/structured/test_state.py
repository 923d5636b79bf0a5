"""A sequence in its grammar, and what its failure means to others."""

import numpy as np
import pytest
from fakes.grammars import Bench

from tgi_llama.errors import GenerationError
from tgi_llama.generation import GrammarState, TokenId
from tgi_llama.structured.grammar import LarkGrammar, RegexGrammar
from tgi_llama.structured.limits import GrammarLimits
from tgi_llama.structured.ll_compiler import LlGrammarCompiler
from tgi_llama.structured.trial import Trial

EXHAUSTING = RegexGrammar(pattern="(a{1,1000}){1,1000}", field="f")


def exhaust(bench: Bench, state: GrammarState) -> str:
    """Goes on until the state fails; returns why."""
    try:
        for _ in range(1_000):
            state.take(TokenId(min(bench.mask(state) - set(bench.end_tokens))))
    except GenerationError as error:
        return str(error)
    raise AssertionError("the state did not fail")


def test_state_that_reaches_a_limit_fails_alone(bench: Bench) -> None:
    constraint = bench.compiler.compile(EXHAUSTING)
    others = [constraint.start() for _ in range(2)]
    (token,) = bench.tokens("a")
    for other in others:
        other.take(token)
    assert "too many expressions" in exhaust(bench, constraint.start())
    # The automaton is in error, and they share it.
    others[0].take(token)
    assert token in bench.mask(others[0])
    assert others[1].allows(token)
    assert token in bench.mask(constraint.start())


def test_grammar_whose_automaton_failed_is_compiled_again_for_the_next(bench: Bench) -> None:
    constraint = bench.compiler.compile(EXHAUSTING)
    assert bench.compiler.compile(EXHAUSTING) is constraint
    exhaust(bench, constraint.start())
    assert bench.compiler.compile(EXHAUSTING) is not constraint


def test_failure_names_the_reason_and_nothing_of_the_grammar(bench: Bench) -> None:
    why = exhaust(bench, bench.compiler.compile(EXHAUSTING).start())
    assert why == (
        "the grammar cannot be followed any further: lexer error: too many expressions constructed"
    )


def test_refused_token_ends_the_state_with_an_error(bench: Bench) -> None:
    state = bench.compiler.compile(RegexGrammar(pattern="ab", field="f")).start()
    with pytest.raises(GenerationError, match="cannot be followed"):
        state.take(bench.tokens("x")[0])
    with pytest.raises(GenerationError):
        bench.mask(state)
    with pytest.raises(GenerationError):
        state.allows(bench.end_tokens[0])


def test_steps_that_stay_slow_end_the_state(bench: Bench) -> None:
    limits = GrammarLimits(max_slow_s=0.0)
    grammar = LarkGrammar(text='start: e\ne: e e | "a" | e e e', field="f")
    with Trial(limits) as trial:
        state = LlGrammarCompiler(bench.grammar_vocabulary, trial).compile(grammar).start()
        with pytest.raises(GenerationError, match=r"finding out .* took 0\.\d s"):
            go_on(bench, state, bench.tokens("a")[0])


def go_on(bench: Bench, state: GrammarState, token: TokenId) -> None:
    for _ in range(2_000):
        state.take(token)
        bench.mask(state)


def test_mask_without_room_is_refused(bench: Bench) -> None:
    words = np.zeros(1, np.uint32)
    state = bench.compiler.compile(EXHAUSTING).start()
    with pytest.raises(ValueError, match="no room"):
        state.fill_mask(words.ctypes.data, words.nbytes)


def test_asking_changes_nothing(bench: Bench) -> None:
    state = bench.compiler.compile(RegexGrammar(pattern="[ab]{3}", field="f")).start()
    mask = bench.mask(state)
    for _ in range(2):
        assert state.forced() == ()
        assert state.allows(bench.tokens("a")[0])
        assert not state.allows(bench.tokens("c")[0])
        assert bench.mask(state) == mask


def test_representation_shows_nothing_of_the_grammar(bench: Bench) -> None:
    constraint = bench.compiler.compile(RegexGrammar(pattern="secret", field="f"))
    assert "secret" not in repr(constraint)
    assert "secret" not in repr(constraint.start())


def test_used_up_grammar_is_compiled_again_though_its_states_go_on(bench: Bench) -> None:
    grammar = RegexGrammar(pattern="b*", field="f")
    constraint = bench.compiler.compile(grammar)
    state = constraint.start()
    token = bench.tokens("b")[0]
    state.take(token)
    for _ in range(100_000):
        constraint.count_token()  # type: ignore[attr-defined]  # as taking as many tokens does
    assert bench.compiler.compile(grammar) is not constraint
    state.take(token)
    assert state.allows(token)
