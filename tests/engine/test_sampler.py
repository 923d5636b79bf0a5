"""Choices against plain definitions of the same thing, on small and on real vocabulary sizes."""

import tracemalloc

import attrs
import numpy as np
import pytest
from fakes.sampling import (
    BIAS,
    FILTERS,
    PROMPT,
    Scores,
    assert_drawn_from,
    changed,
    reference,
    row,
)
from hypothesis import given
from hypothesis import strategies as st

from tgi_llama.engine import penalties as penalties_module
from tgi_llama.engine.sampler import Sampler, Scratch, largest, likeliest, log_sum_exp
from tgi_llama.engine.watermark import green_tokens
from tgi_llama.errors import GenerationError
from tgi_llama.generation import SamplingParameters, TokenId

N_VOCAB = 151_936


@pytest.mark.parametrize("n", [10, 1000, 4096, N_VOCAB])
@pytest.mark.parametrize("count", [1, 5, 40, 300])
def test_largest_equals_a_full_sort(n: int, count: int) -> None:
    scores = row(n + count, n)
    expected = np.argsort(-scores, kind="stable")[: min(n, count)]
    assert largest(scores, min(n, count)).tolist() == expected.tolist()


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=400), st.integers(1, 50))
def test_largest_with_ties_gives_the_same_values_as_a_sort(values: list[int], count: int) -> None:
    scores = np.array(values, dtype=np.float32)
    best = largest(scores, min(count, len(values)))
    assert scores[best].tolist() == sorted(values, reverse=True)[:count]
    assert len(set(best.tolist())) == len(best)


def test_likeliest_lists_all_that_tie_with_the_last() -> None:
    scores = np.array([1, 5, 3, 3, 3, 0], dtype=np.float32)
    assert likeliest(scores, 2).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("n", [1, 64, 700, N_VOCAB])
@pytest.mark.parametrize("offset", [0.0, 3000.0, -3000.0])
def test_log_sum_exp_is_that_of_float64(n: int, offset: float) -> None:
    scores = row(n, n) + np.float32(offset)
    exact = offset + np.log(np.exp(scores.astype(float) - offset).sum())
    assert log_sum_exp(scores, Scratch()) == pytest.approx(exact, rel=1e-7, abs=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_likeliest_of_broken_logits_is_an_error(bad: float) -> None:
    with pytest.raises(GenerationError, match="logits"):
        likeliest(np.array([1.0, bad, 2.0], dtype=np.float32), 2)


def test_log_sum_exp_of_large_logits_does_not_overflow() -> None:
    scores = np.array([1000.0, 1000.0], dtype=np.float32)
    assert log_sum_exp(scores) == pytest.approx(1000.0 + np.log(2.0))


def test_greedy_is_the_argmax() -> None:
    scores = row(1)
    assert Sampler(SamplingParameters(greedy=True)).choose(scores) == int(scores.argmax())


def test_greedy_applies_penalties_and_bias_first() -> None:
    scores = np.array([4.0, 3.9, -1.0], dtype=np.float32)
    repetition = SamplingParameters(greedy=True, repetition_penalty=2.0)
    assert Sampler.for_prompt(repetition, [0]).choose(scores) == 1
    bias = SamplingParameters(greedy=True, logit_bias=((2, 9.0),))
    assert Sampler(bias).choose(scores) == 2
    assert scores.tolist() == pytest.approx([4.0, 3.9, -1.0]), "the model's row is not changed"


def test_frequency_penalty_counts_the_output_only() -> None:
    scores = np.array([1.0, 0.5, -5.0], dtype=np.float32)
    sampler = Sampler.for_prompt(SamplingParameters(greedy=True, frequency_penalty=0.3), [0, 0, 0])
    assert [sampler.choose(scores) for _ in range(4)] == [0, 0, 1, 0]


def test_presence_penalty_is_taken_once_however_often_a_token_occurs() -> None:
    scores = np.array([1.0, 0.5, 0.45], dtype=np.float32)
    sampler = Sampler(SamplingParameters(greedy=True, presence_penalty=0.52))
    assert [sampler.choose(scores) for _ in range(5)] == [0, 1, 0, 0, 0]


def test_watermark_comes_before_the_repetition_penalty() -> None:
    green = green_tokens(TokenId(0), 20)
    seen, unseen = int(np.flatnonzero(green)[-1]), int(np.flatnonzero(~green)[-1])
    scores = np.full(20, -50.0, dtype=np.float32)
    scores[[seen, unseen]] = 1.0, 2.0
    parameters = SamplingParameters(greedy=True, watermark=True, repetition_penalty=2.0)
    # (1 + 2) / 2 < 2; the other way round it would be 1 / 2 + 2 > 2.
    assert Sampler.for_prompt(parameters, [seen, 0]).choose(scores) == unseen


@pytest.mark.parametrize(("penalty", "possible"), [(1.4e-45, {1}), (3e38, {0, 1, 3})])
@pytest.mark.parametrize("greedy", [True, False])
def test_extreme_repetition_penalty_still_gives_a_token(
    penalty: float, possible: set[int], greedy: bool
) -> None:
    """Tokens 1 and 2 were seen: their logits would become plus or minus infinity."""
    scores = np.array([1.0, 2.0, -3.0, 0.5], dtype=np.float32)
    parameters = SamplingParameters(greedy=greedy, repetition_penalty=penalty)
    sampler = Sampler.for_prompt(parameters, [TokenId(1), TokenId(2)])
    assert sampler.choose(scores) in possible


def test_watermark_leaves_the_row_of_the_model_alone() -> None:
    scores = row(5, 300)
    before = scores.copy()
    Sampler.for_prompt(SamplingParameters(watermark=True), [TokenId(7)]).choose(scores)
    assert scores.tolist() == before.tolist()


def test_watermark_follows_the_token_chosen_last() -> None:
    scores = np.zeros(300, dtype=np.float32)
    sampler = Sampler.for_prompt(SamplingParameters(greedy=True, watermark=True), [TokenId(7)])
    previous = TokenId(7)
    for _ in range(20):
        chosen = sampler.choose(scores)
        assert chosen == int(green_tokens(previous, 300).argmax())
        previous = chosen


def test_watermark_costs_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def unwanted(*_: object) -> None:
        raise AssertionError("a watermark that nobody asked for")

    monkeypatch.setattr(penalties_module, "add_watermark", unwanted)
    for parameters in (*FILTERS, SamplingParameters(greedy=True, logit_bias=((TokenId(2), 9.0),))):
        Sampler.for_prompt(parameters, [TokenId(7)]).choose(row(5, 300))
    with pytest.raises(AssertionError, match="nobody"):
        Sampler(SamplingParameters(watermark=True)).choose(row(5, 300))


def test_seed_of_64_bits_decides_every_token() -> None:
    def tokens(seed: int) -> list[int]:
        sampler = Sampler(SamplingParameters(seed=seed))
        return [sampler.choose(row(9, 500)) for _ in range(20)]

    assert tokens(2**64 - 1) == tokens(2**64 - 1)
    assert tokens(2**64 - 1) != tokens(2**32 - 1)


def test_tiny_temperature_draws_the_best_without_a_warning() -> None:
    scores = row(4, 500)
    for temperature in (1e-40, 5e-324):
        for filters in ({}, {"top_k": 5}, {"top_p": 0.5}, {"min_p": 0.1}, {"typical_p": 0.5}):
            sampler = Sampler(SamplingParameters(temperature=temperature, **filters))
            assert sampler.choose(scores) == int(scores.argmax())


@pytest.mark.parametrize("filters", [{}, {"top_k": 9}, {"top_p": 0.5}, {"typical_p": 0.5}], ids=str)
def test_huge_temperature_draws_evenly_without_a_warning(filters: dict[str, float]) -> None:
    scores = row(4, 500)
    scores[100:] = -np.inf
    sampler = Sampler(SamplingParameters(temperature=1e300, **filters))
    drawn = {sampler.choose(scores) for _ in range(500)}
    assert len(drawn) > 8
    assert max(drawn) < 100


@pytest.mark.parametrize("parameters", [*FILTERS, *map(changed, FILTERS)], ids=str)
@pytest.mark.parametrize("n_vocab", [300, 5000])
def test_filters_draw_from_the_distribution_that_their_definitions_give(
    parameters: SamplingParameters, n_vocab: int
) -> None:
    scores = row(7, n_vocab, scale=1.5 if n_vocab == 300 else 2.5)
    expected = reference(scores, parameters)
    n_draws = 1200 if n_vocab == 5000 else 2000 if parameters.watermark else 5000
    assert_drawn_from(expected, first_choices(parameters, scores, n_draws))


def first_choices(parameters: SamplingParameters, scores: Scores, n: int) -> list[int]:
    """What ``n`` sequences choose first. One sampler does for all where it remembers nothing that
    matters: making its random stream takes longer than a choice."""
    scratch = Scratch()
    if not parameters.watermark:
        sampler = Sampler.for_prompt(parameters, PROMPT)
        return [sampler.choose(scores, scratch) for _ in range(n)]
    return [
        Sampler.for_prompt(attrs.evolve(parameters, seed=seed), PROMPT).choose(scores, scratch)
        for seed in range(n)
    ]


EVERYTHING = [
    SamplingParameters(greedy=True, repetition_penalty=1.3),
    SamplingParameters(frequency_penalty=0.4, presence_penalty=0.2, top_p=0.9),
    *(changed(p) for p in FILTERS),
]


@pytest.mark.parametrize("parameters", EVERYTHING, ids=str)
def test_tokens_are_the_same_whoever_used_the_scratch_before(
    parameters: SamplingParameters,
) -> None:
    rows = [row(seed, 5000) for seed in range(6)]
    shared = Scratch()
    alone, beside, neighbour, small = (Sampler.for_prompt(parameters, PROMPT) for _ in range(4))
    tokens = []
    for scores in rows:
        small.choose(row(99, 700), shared)
        tokens.append(beside.choose(scores, shared))
        neighbour.choose(row(98, 5000), shared)
    assert tokens == [alone.choose(scores) for scores in rows]


@pytest.mark.parametrize(
    "parameters",
    [
        SamplingParameters(greedy=True),
        SamplingParameters(greedy=True, repetition_penalty=1.3),
        SamplingParameters(temperature=0.7),
        SamplingParameters(top_k=40, top_p=0.9, min_p=0.05, logit_bias=BIAS),
        SamplingParameters(top_p=0.95, temperature=0.7),
        SamplingParameters(min_p=0.05),
    ],
    ids=str,
)
def test_nothing_of_a_rows_size_is_allocated(parameters: SamplingParameters) -> None:
    scratch, sampler = Scratch(), Sampler.for_prompt(parameters, PROMPT)
    scores = row(1)
    sampler.choose(scores, scratch)
    tracemalloc.start()
    try:
        for _ in range(10):
            sampler.choose(scores, scratch)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < scores.nbytes / 2


def test_penalties_follow_hundreds_of_tokens() -> None:
    """As many as make the lists of tokens grow several times, against a plain count."""
    p = SamplingParameters(
        greedy=True, repetition_penalty=1.1, frequency_penalty=0.25, presence_penalty=0.5
    )
    scores = row(2, 900, scale=1.0)
    sampler, scratch = Sampler.for_prompt(p, PROMPT), Scratch()
    counts = np.zeros(900, dtype=np.float32)
    seen = set(PROMPT)
    for _ in range(1000):
        plain = scores.copy()
        for token in seen:
            plain[token] *= 1.1 if plain[token] < 0 else 1 / 1.1
        plain -= 0.25 * counts + 0.5 * (counts > 0)
        chosen = sampler.choose(scores, scratch)
        assert plain[chosen] == pytest.approx(plain.max(), abs=1e-5)
        counts[chosen] += 1
        seen.add(chosen)
    assert len(seen) > 300


@pytest.mark.parametrize("parameters", [SamplingParameters(), SamplingParameters(top_k=4)])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_choose_from_broken_logits_is_an_error(parameters: SamplingParameters, bad: float) -> None:
    scores = row(3, 300)
    scores[5] = bad
    with pytest.raises(GenerationError, match="logits"):
        Sampler(parameters).choose(scores)


def test_choose_when_everything_is_excluded_is_an_error() -> None:
    scores = np.full(10, -np.inf, dtype=np.float32)
    for parameters in (SamplingParameters(), SamplingParameters(greedy=True)):
        with pytest.raises(GenerationError):
            Sampler(parameters).choose(scores)
