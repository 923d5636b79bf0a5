"""Masks, single tokens and forced tokens agree, on every kind of vocabulary."""

import random
from collections.abc import Callable

import pytest
from fakes.grammars import Bench

from tgi_llama.generation import TokenId
from tgi_llama.structured.grammar import (
    ChoiceGrammar,
    CompositeGrammar,
    Grammar,
    JsonSchemaGrammar,
    LarkGrammar,
    RegexGrammar,
)

OpenBench = Callable[[str], Bench]

SOME = ("builtin", "llama-spm", "qwen2")
NAMES = ("builtin", "deepseek-coder", "gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2")

GRAMMARS: dict[str, Grammar] = {
    "schema": JsonSchemaGrammar(
        schema={
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "count": {"type": "integer"},
                "kind": {"enum": ["small", "large", None]},
            },
            "required": ["name", "count", "kind"],
            "additionalProperties": False,
        },
        field="f",
    ),
    "regex": RegexGrammar(pattern=r"(\w{2,5} ){2}[0-9]+é?", field="f"),
    "choice": ChoiceGrammar(choices=("Rom", "Roma", "日本", "a b\nc"), field="f"),
    "lark": LarkGrammar(text='start: "[" (NUMBER ",")* NUMBER "]"\nNUMBER: /[0-9]+/', field="f"),
}


@pytest.fixture(params=NAMES)
def any_bench(request: pytest.FixtureRequest, open_bench: OpenBench) -> Bench:
    return open_bench(request.param)


@pytest.mark.parametrize("name", GRAMMARS)
def test_mask_allows_what_the_state_allows(any_bench: Bench, name: str) -> None:
    rng = random.Random(name)
    state = any_bench.compiler.compile(GRAMMARS[name]).start()
    for _ in range(8):
        mask = any_bench.mask(state)
        # All take a second where there are many, and a mask that is wrong is so for many.
        others = rng.sample(range(any_bench.vocab.n_vocab), 2_000)
        for token in {*others, *any_bench.end_tokens, *sorted(mask)[:500]}:
            assert state.allows(TokenId(token)) == (token in mask), any_bench.vocab.piece(token)
        if state.is_complete:
            break
        state.take(TokenId(rng.choice(sorted(mask))))
        if rng.random() < 0.3:
            state.forced()


def test_mask_of_a_complete_text_has_every_token_that_ends_it_and_nothing_else(
    any_bench: Bench,
) -> None:
    state = any_bench.compiler.compile(RegexGrammar(pattern="abc", field="f")).start()
    assert not state.is_complete
    for token in any_bench.tokens("abc"):
        assert token not in any_bench.end_tokens
        state.take(token)
    assert state.is_complete
    assert any_bench.mask(state) == set(any_bench.end_tokens)
    assert all(state.allows(token) for token in any_bench.end_tokens)
    assert state.forced() == ()


def test_text_that_may_end_or_go_on_allows_both(any_bench: Bench) -> None:
    state = any_bench.compiler.compile(RegexGrammar(pattern="a+", field="f")).start()
    assert not set(any_bench.end_tokens) & any_bench.mask(state)
    state.take(any_bench.tokens("a")[0])
    assert not state.is_complete
    assert set(any_bench.end_tokens) < any_bench.mask(state)


def test_control_tokens_are_never_part_of_a_text(any_bench: Bench) -> None:
    state = any_bench.compiler.compile(RegexGrammar(pattern=r"(.|\n)*", field="f")).start()
    controls = {
        token for token in range(any_bench.vocab.n_vocab) if any_bench.vocab.is_control(token)
    }
    assert not (any_bench.mask(state) & controls) - set(any_bench.end_tokens)


def test_forced_tokens_are_those_of_the_tokenizer(any_bench: Bench) -> None:
    text = '{"temperature": "celsius and fahrenheit"}'
    grammar = JsonSchemaGrammar(
        schema={
            "type": "object",
            "properties": {"temperature": {"const": "celsius and fahrenheit"}},
            "required": ["temperature"],
            "additionalProperties": False,
        },
        field="f",
    )
    state = any_bench.compiler.compile(grammar).start()
    taken: list[TokenId] = []
    while not state.is_complete:
        forced = state.forced() or [TokenId(min(any_bench.mask(state)))]
        for token in forced:
            state.take(token)
        taken.extend(forced)
    assert any_bench.text(taken) == text
    # The last token may be one that the text ends in the middle of, so it is not forced.
    assert taken[:-2] == any_bench.tokens(text)[: len(taken) - 2]


@pytest.mark.parametrize("any_bench", SOME, indirect=True)
@pytest.mark.parametrize("name", GRAMMARS)
def test_generated_text_is_accepted(any_bench: Bench, name: str) -> None:
    rng = random.Random(name)
    constraint = any_bench.compiler.compile(GRAMMARS[name])
    for _ in range(3):
        text = any_bench.generate(constraint.start(), rng, max_tokens=60)
        if text is not None:
            assert any_bench.accepts(GRAMMARS[name], text)


def test_forced_text_longer_than_a_thread_can_tokenize_is_cut(open_bench: OpenBench) -> None:
    """A word of 26,000 characters would overflow the stack in llama.cpp."""
    bench = open_bench("deepseek-coder")
    text = "a" * 30_000
    # One that is written by us is forced whatever its length.
    grammar = CompositeGrammar(lark=f'start: "{text}"')
    tokens = bench.compiler.compile(grammar).start().forced()
    assert bench.text(list(tokens)) in text
    assert len(tokens) > 1_000
