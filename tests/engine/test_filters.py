"""The sets that the filters keep against plain definitions, and single tokens against the sets."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tgi_llama.engine.filters import survivors
from tgi_llama.engine.membership import Nucleus, TypicalSet, draw_and_test
from tgi_llama.engine.score_row import ScoreRow, Scratch, column_sums
from tgi_llama.generation import SamplingParameters

Scores = NDArray[np.float32]
Ids = NDArray[np.intp]

N_VOCAB = 151_936


def reference(scores: Scores, p: SamplingParameters) -> Ids:
    """The definitions, one filter after the other, each over all tokens that are left, in float64.
    In descending order of scores, of equal ones the first first."""
    ids = np.argsort(-scores, kind="stable")
    logits = scores[ids].astype(np.float64) / p.temperature
    weights = np.exp(logits - logits[0])
    if p.top_k:
        ids, weights = ids[: p.top_k], weights[: p.top_k]
    if p.top_p < 1.0:
        n = int(np.searchsorted(np.cumsum(weights), p.top_p * weights.sum())) + 1
        ids, weights = ids[:n], weights[:n]
    if p.min_p > 0.0:
        n = int((weights >= p.min_p).sum())
        ids, weights = ids[:n], weights[:n]
    if p.typical_p < 1.0:
        chances = weights / weights.sum()
        surprise = -np.log(np.maximum(chances, np.finfo(np.float64).tiny))
        distance = np.abs(surprise - (chances * surprise).sum())
        order = np.argsort(distance, kind="stable")
        n = int(np.searchsorted(np.cumsum(chances[order]), p.typical_p)) + 1
        ids = ids[order[:n]]
    return ids


def noise(n: int, deviation: float) -> Scores:
    return (np.random.default_rng(n).standard_normal(n) * deviation).astype(np.float32)


def peaked(n: int, lead: float) -> Scores:
    """A background, some dozen tokens far above it, and one above all."""
    scores = noise(n, 1.5) - np.float32(2.0)
    likely = np.random.default_rng(1).choice(n, 60, replace=False)
    scores[likely] = 12.0 - 1.7 * np.log1p(np.arange(60))
    scores[likely[0]] += np.float32(lead)
    return scores


def tied(n: int) -> Scores:
    return np.random.default_rng(2).integers(-3, 4, n).astype(np.float32)


def masked(n: int) -> Scores:
    """Most tokens are impossible."""
    scores = noise(n, 3.0)
    scores[np.random.default_rng(3).random(n) < 0.9] = -np.inf
    return scores


ROWS: dict[str, Callable[[int], Scores]] = {
    "random": lambda n: noise(n, 3.0),
    "sure": lambda n: peaked(n, 9.0),
    "peaked": lambda n: peaked(n, 1.0),
    "flat": lambda n: noise(n, 0.1),
    "tied": tied,
    "equal": lambda n: np.full(n, -7.25, dtype=np.float32),
    "masked": masked,
}

FILTERS = [
    SamplingParameters(top_k=1),
    SamplingParameters(top_k=40, temperature=0.8),
    SamplingParameters(top_k=20_000),
    SamplingParameters(top_k=20_000, top_p=0.9),
    SamplingParameters(top_p=0.1),
    SamplingParameters(top_p=0.6),
    SamplingParameters(top_p=0.95, temperature=0.8),
    SamplingParameters(top_p=0.9999, temperature=1.7),
    SamplingParameters(min_p=0.05),
    SamplingParameters(min_p=1.0),
    SamplingParameters(min_p=1e-9, temperature=2.0),
    SamplingParameters(top_p=0.95, min_p=0.05, temperature=0.8),
    SamplingParameters(top_p=0.5, min_p=1e-6),
    SamplingParameters(top_k=40, top_p=0.95, min_p=0.05, temperature=0.8),
    SamplingParameters(typical_p=0.95),
    SamplingParameters(typical_p=0.5, temperature=0.7),
    SamplingParameters(typical_p=0.03, temperature=1.5),
    SamplingParameters(top_k=40, typical_p=0.5),
    SamplingParameters(top_p=0.9, typical_p=0.6),
    SamplingParameters(top_k=30_000, top_p=0.97, min_p=1e-7, typical_p=0.7),
]


def kept_by(scores: Scores, p: SamplingParameters) -> set[int]:
    ids, weights = survivors(ScoreRow(scores, Scratch()), p)
    assert weights.shape == ids.shape
    expected = np.exp((scores[ids].astype(np.float64) - scores.max()) / p.temperature)
    assert np.allclose(weights, expected, rtol=1e-12)
    assert len(set(ids.tolist())) == len(ids)
    return set(ids.tolist())


# Lengths at which no share of equal tokens is a whole number: rounding would decide on one token.
CASES = [(kind, n) for kind in ROWS for n in (307, 5003, N_VOCAB)]
CASES += [(kind, 7) for kind in ("random", "flat", "tied", "equal")]


@pytest.mark.parametrize(("kind", "n"), CASES)
@pytest.mark.parametrize("parameters", FILTERS, ids=str)
def test_filters_keep_the_set_that_their_definitions_give(
    parameters: SamplingParameters, kind: str, n: int
) -> None:
    scores = ROWS[kind](n)
    assert kept_by(scores, parameters) == set(reference(scores, parameters).tolist())


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(-40, 40), min_size=1, max_size=400),
    st.sampled_from([p for p in FILTERS if p.typical_p == 1.0]),
)
def test_filters_keep_the_set_of_any_small_row(halves: list[int], p: SamplingParameters) -> None:
    """Typical-p is left out: opposite scores as far from the entropy tie but for rounding."""
    scores = np.array(halves, dtype=np.float32) / np.float32(2.0)
    weights = np.exp((scores.astype(np.float64) - scores.max()) / p.temperature)
    mass = np.cumsum(np.sort(weights)[::-1]) / weights.sum()
    if np.abs(mass - p.top_p).min() < 1e-6:
        return  # which side of the bound a sum is on is a matter of rounding
    assert kept_by(scores, p) == set(reference(scores, p).tolist())


@pytest.mark.parametrize("kind", ["random", "peaked", "flat", "tied", "masked"])
@pytest.mark.parametrize("mass", [0.3, 0.95])
@pytest.mark.parametrize("filter_type", [Nucleus, TypicalSet])
def test_a_single_token_is_held_exactly_when_the_set_has_it(
    filter_type: type[Nucleus] | type[TypicalSet], mass: float, kind: str
) -> None:
    scores = ROWS[kind](20_011)
    if filter_type is Nucleus:
        p = SamplingParameters(top_p=mass)
    else:
        p = SamplingParameters(typical_p=mass)
    kept = set(reference(scores, p).tolist())
    row = ScoreRow(scores, Scratch())
    filter_ = filter_type(row, p, column_sums(row.weights(p.temperature)))
    # The last that belong and the first that do not, in the filter's own order, and some others.
    wider = reference(scores, SamplingParameters(top_p=p.top_p, typical_p=p.typical_p + 1e-3))
    some = np.random.default_rng(5).choice(scores.shape[0], 300, replace=False)
    borders = np.concatenate((reference(scores, p)[-50:], wider[-50:]))
    for token in (*some.tolist(), *borders.tolist()):
        assert filter_.holds(token) == (token in kept)


@pytest.mark.parametrize(
    "parameters",
    [SamplingParameters(top_p=0.95), SamplingParameters(top_p=0.95, min_p=0.9)],
)
def test_wide_sets_are_drawn_from_without_being_found(parameters: SamplingParameters) -> None:
    scores = noise(5000, 0.01)
    kept = kept_by(scores, parameters)
    rng = np.random.default_rng(0)
    for _ in range(200):
        assert draw_and_test(ScoreRow(scores, Scratch()), parameters, rng) in kept


def test_small_sets_are_found_after_a_few_draws_in_vain() -> None:
    row = ScoreRow(noise(5000, 1.0), Scratch())
    parameters = SamplingParameters(typical_p=1e-4)
    assert draw_and_test(row, parameters, np.random.default_rng(0)) is None
