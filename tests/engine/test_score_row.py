"""The two-level row against one pass of plain numpy, at lengths around the table's."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from tgi_llama.engine.ranked import Ranked
from tgi_llama.engine.score_row import (
    N_LEVELS,
    ScoreRow,
    Scratch,
    column_sums,
    pick,
    rounded_down,
    rounded_up,
    total,
)
from tgi_llama.errors import GenerationError

LENGTHS = [1, 2, N_LEVELS - 1, N_LEVELS, N_LEVELS + 1, 1000, 4095, 4096, 20_011, 151_936]


def row_of(n: int, seed: int = 0) -> ScoreRow:
    scores = np.random.default_rng(seed).standard_normal(n).astype(np.float32)
    return ScoreRow(scores, Scratch())


@pytest.mark.parametrize("n", LENGTHS)
def test_top_is_the_maximum(n: int) -> None:
    row = row_of(n)
    assert row.top == float(row.scores.max())


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("count", [1, 3, 40, 5000])
def test_as_many_tokens_as_asked_for_reach_the_cut(n: int, count: int) -> None:
    row = row_of(n)
    assert int((row.scores >= row.cut_for(count)).sum()) >= min(n, count)


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("cut", [-math.inf, -1e300, -1.0, 0.1, 3.0, 1e300])
def test_at_least_lists_all_that_reach_the_cut(n: int, cut: float) -> None:
    row = row_of(n)
    with np.errstate(over="ignore"):
        found = row.at_least(cut)
    assert found.tolist() == np.flatnonzero(row.scores.astype(float) >= cut).tolist()


def test_at_least_compares_with_the_number_itself_not_its_float32() -> None:
    score = np.float32(0.1)  # a bit more than 0.1
    row = ScoreRow(np.full(100, score), Scratch())
    assert row.at_least(float(score)).size == 100
    assert row.at_least(math.nextafter(float(score), math.inf)).size == 0


@given(st.floats(-1e30, 1e30))
def test_rounding_has_a_direction(value: float) -> None:
    assert float(rounded_down(value)) <= value <= float(rounded_up(value))


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("temperature", [0.01, 0.7, 1.0, 50.0])
def test_weights_and_their_sum_are_those_of_float64(n: int, temperature: float) -> None:
    row = row_of(n)
    exact = np.exp((row.scores.astype(float) - row.top) / temperature)
    assert np.allclose(row.weights(temperature), exact, rtol=1e-4, atol=1e-30)
    assert total(row.weights(temperature)) == pytest.approx(exact.sum(), rel=1e-6)
    assert column_sums(exact).sum() == pytest.approx(exact.sum())
    mean = (exact * row.scores).sum() / exact.sum()
    assert row.mean(temperature, float(exact.sum())) == pytest.approx(mean, abs=1e-6)


def test_mass_without_the_heaviest_is_not_lost_in_their_rounding() -> None:
    scores = np.full(20_000, -30.0, dtype=np.float32)
    scores[:2] = 0.0
    row = ScoreRow(scores, Scratch())
    rest = 19_998 * math.exp(-30.0)
    assert row.mass_without(np.array([0, 1]), 1.0) == pytest.approx(rest, rel=1e-5)
    assert total(row.weights(1.0)) == pytest.approx(2.0), "the weights are as before"


@pytest.mark.parametrize("n", LENGTHS)
def test_most_below_is_no_less_than_what_is_below(n: int) -> None:
    row = row_of(n)
    exact = np.exp(row.scores.astype(float) - row.top)
    for cut in (row.top, row.cut_for(10), -5.0):
        assert row.most_below(cut, 1.0) >= exact[row.scores < cut].sum() * (1 - 1e-6)


def test_extreme_temperatures_end_at_a_certain_and_an_even_choice() -> None:
    scores = np.array([1.0, 2.0, -np.inf, 2.0], dtype=np.float32)
    for temperature, expected in ((1e-320, [0, 1, 0, 1]), (1e300, [1, 1, 0, 1])):
        with np.errstate(over="ignore"):
            assert ScoreRow(scores, Scratch()).weights(temperature).tolist() == expected
            everything = ScoreRow(scores, Scratch()).exact(np.arange(4), temperature)
        assert everything.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 70, 128])
def test_row_with_a_broken_logit_is_refused_wherever_it_stands(bad: float, place: int) -> None:
    scores = np.zeros(2 * N_LEVELS + 1, dtype=np.float32)
    scores[place] = bad
    with pytest.raises(GenerationError, match="logits"):
        ScoreRow(scores, Scratch())


@pytest.mark.parametrize("n", [5, 4095, 4097, 20_011])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pick_draws_by_weight(n: int, dtype: type[np.floating]) -> None:
    rng = np.random.default_rng(n)
    weights = np.exp(rng.standard_normal(n) * 3.0).astype(dtype)
    weights[rng.random(n) < 0.3] = 0.0
    picked = [pick(weights, rng.random()) for _ in range(20_000)]
    counts = np.bincount(picked, minlength=n)
    assert counts[weights == 0.0].sum() == 0
    expected = weights.astype(float) / weights.sum(dtype=float) * len(picked)
    common = expected >= 5
    observed = np.append(counts[common], counts[~common].sum())
    wanted = np.append(expected[common], expected[~common].sum())
    keep = wanted > 0
    assert chisquare(observed[keep], wanted[keep], sum_check=False).pvalue > 1e-4


@pytest.mark.parametrize("n", [5, 5000])
@pytest.mark.parametrize("fraction", [0.0, 0.5, math.nextafter(1.0, 0.0)])
def test_pick_at_the_ends_gives_an_index_that_has_weight(n: int, fraction: float) -> None:
    weights = np.zeros(n)
    weights[n // 2] = 0.1
    assert pick(weights, fraction) == n // 2


def test_scratch_fits_rows_of_any_length_in_turn() -> None:
    scratch = Scratch()
    for n in (1000, 64, 5000, 1000):
        scores = np.arange(n, dtype=np.float32)
        assert ScoreRow(scores, scratch).at_least(n - 2.0).tolist() == [n - 2, n - 1]


@pytest.mark.parametrize("n", [1, 63, 64, 65, 5000])
def test_ranked_masses_are_running_sums(n: int) -> None:
    row = row_of(n)
    ranked = Ranked(row, np.arange(n), 0.5)
    order = np.argsort(-row.scores, kind="stable")
    sums = np.cumsum(np.exp((row.scores[order].astype(float) - row.top) / 0.5))
    for i in (1, n // 2, n):
        if i:
            assert ranked.mass(i) == pytest.approx(sums[i - 1])
            assert ranked.place(float(sums[i - 1]) * (1 - 1e-9)) == i
            assert set(ranked.first(i).tolist()) == set(order[:i].tolist())
    assert ranked.mass(0) == 0.0
    assert ranked.place(2.0 * float(sums[-1])) == n, "all, where they have less"
    assert ranked.nearest(0.0, 2.0 * float(sums[-1])).tolist() == list(range(n))


def test_ranked_takes_the_first_of_equal_scores() -> None:
    row = ScoreRow(np.array([0, 1, 0, 1, 0, 1], dtype=np.float32), Scratch())
    ranked = Ranked(row, np.arange(6), 1.0)
    assert ranked.first(2).tolist() == [1, 3]
    assert ranked.first(4).tolist() == [0, 1, 3, 5]
    assert ranked.nearest(0.9, 2.0).tolist() == [1, 3]
    assert ranked.nearest(0.1, math.exp(-1.0)).tolist() == [0]
