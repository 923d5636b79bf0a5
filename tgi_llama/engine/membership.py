"""Drawing first and filtering afterwards, where a filter keeps a large part of the vocabulary.

A token drawn from all, drawn again until it is one that the filter keeps, is distributed like one
drawn from those that it keeps. With top-p 0.95 the first draw is kept 95 times in a hundred, and
whether *one* token is kept takes no sorting: it is, if what comes before it has less mass than the
filter asks for. Often the sums of the columns tell.
"""

import math

import numpy as np
from numpy.typing import NDArray

from tgi_llama.engine.filters import FIRST_CUT, min_p_cut
from tgi_llama.engine.score_row import (
    ScoreRow,
    Weights,
    column_sums,
    pick,
    rounded_down,
    rounded_up,
    total,
)
from tgi_llama.generation import SamplingParameters, TokenId

_TRIES = 4
"""After so many draws in vain the set is small, and finding all of it is cheaper."""

_WIDE = 2.0
"""Mass beyond the first candidates, in weights of the likeliest token, from which on they are
unlikely to hold the nucleus. A guess: it decides what is tried first, never what is chosen."""


def draw_and_test(row: ScoreRow, p: SamplingParameters, rng: np.random.Generator) -> TokenId | None:
    """A token by the distribution that the filters leave; None where ``survivors`` is the better
    way to it, or where ``_TRIES`` draws were in vain."""
    if not _keeps_much(row, p):
        return None
    weights = row.weights(p.temperature)
    sums = column_sums(weights)
    kept: Nucleus | TypicalSet | None = None
    if p.typical_p < 1.0:
        kept = TypicalSet(row, p, sums)
    elif p.top_p < 1.0:
        kept = Nucleus(row, p, sums)
    for _ in range(_TRIES):
        token = pick(weights, rng.random(), sums)
        if _passes_min_p(row, p, token) and (kept is None or kept.holds(token)):
            return TokenId(token)
    return None


def _keeps_much(row: ScoreRow, p: SamplingParameters) -> bool:
    """Whether the filters can be tested token by token and probably keep much."""
    if 0 < p.top_k < row.n:
        return False
    if p.typical_p < 1.0:  # the entropy is that of the tokens that the others leave
        return p.top_p >= 1.0 and p.min_p <= 0.0
    if p.min_p > 0.0 and float(row.scratch.maxima.min()) < min_p_cut(row, p):
        return False
    return p.top_p >= 1.0 or row.most_below(row.cut_for(FIRST_CUT), p.temperature) > _WIDE


def _passes_min_p(row: ScoreRow, p: SamplingParameters, token: int) -> bool:
    return math.exp((float(row.scores[token]) - row.top) / p.temperature) >= p.min_p


class Nucleus:
    """Top-p over the whole vocabulary: does a token belong to it? ``sums``: of the columns of the
    row's weights."""

    def __init__(self, row: ScoreRow, p: SamplingParameters, sums: Weights) -> None:
        self._row = row
        self._weights = row.weights(p.temperature)
        self._sums = sums
        self._bound = p.top_p * float(np.add.reduce(sums))

    def holds(self, token: int) -> bool:
        row, marks = self._row, self._row.scratch.marks
        score = row.scores[token]
        in_columns = self._sums * (row.scratch.maxima >= score)
        if float(np.add.reduce(in_columns)) < self._bound:
            return True  # all that are as likely have less, and much besides
        np.greater(row.scores, score, out=marks)
        return _mass_before(row, self._weights, token) < self._bound


class TypicalSet:
    """Typical-p over the whole vocabulary: does a token belong to it? ``sums``: as for Nucleus."""

    def __init__(self, row: ScoreRow, p: SamplingParameters, sums: Weights) -> None:
        self._row = row
        self._weights = row.weights(p.temperature)
        whole = float(np.add.reduce(sums))
        self._middle = row.mean(p.temperature, whole)
        self._bound = p.typical_p * whole

    def holds(self, token: int) -> bool:
        row, marks = self._row, self._row.scratch.marks
        score = float(row.scores[token])
        opposite = 2.0 * self._middle - score
        np.greater(row.scores, rounded_down(min(score, opposite)), out=marks)
        marks &= row.scores < rounded_up(max(score, opposite))
        return _mass_before(row, self._weights, token) < self._bound


def _mass_before(row: ScoreRow, weights: NDArray[np.float32], token: int) -> float:
    """The weight of the marked tokens and of those before ``token`` that score the same."""
    marks = row.scratch.marks
    mass = total(np.multiply(weights, marks, out=row.scratch.products))
    equal = np.equal(row.scores[:token], row.scores[token], out=marks[:token])
    return mass + int(np.count_nonzero(equal)) * float(weights[token])
