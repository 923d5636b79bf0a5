"""Which tokens survive top-k, top-p, min-p and typical-p, without sorting the vocabulary.

Each filter keeps what its plain definition keeps, and of tokens with equal scores the first. They
are applied in the order that ``SamplingParameters`` tells:

* top-k: candidates are the tokens above the k-th largest column maximum;
* min-p: candidates are the tokens above ``top + temperature * log(min_p)``;
* top-p: candidates are the 128 likeliest or, where min-p follows anyway, those that it keeps. How
  much mass the others can have at most follows from the column maxima. If that leaves a doubt
  where the nucleus ends, it is summed: one exponential over the row;
* typical-p: one exponential and one product over the row give the entropy, and from it follows
  which tokens can be typical.

Candidates get their weights in float64. Where they are many (flat rows, high temperatures) their
scores are sorted without their ids (``ranked``), which is five times as fast.
"""

import math

import attrs
import numpy as np

from tgi_llama.engine.ranked import Ranked
from tgi_llama.engine.score_row import Ids, ScoreRow, Weights, total
from tgi_llama.generation import SamplingParameters

FIRST_CUT = 128
"""Candidates of top-p. Trained models put 0.95 of the mass on fewer than that almost always."""

_FEW = 4096
"""Up to so many candidates are put in order; of more of them only the scores are."""

_ROUNDING = 1e-6
"""More than a float32 or a sum of them is off, relatively. Cuts are lower by it, so that the exact
weights decide."""


def survivors(row: ScoreRow, p: SamplingParameters) -> tuple[Ids, Weights]:
    """The tokens that may be drawn, at least one, and their weights (not normed)."""
    if 0 < p.top_k < row.n:
        ids, weights = _top_k(row, p)
    elif p.top_p < 1.0:
        ids, weights = _nucleus(row, p)
    elif p.min_p > 0.0:
        ids = row.at_least(min_p_cut(row, p))
        weights = row.exact(ids, p.temperature)
    elif p.typical_p < 1.0:
        return _typical_of_all(row, p)
    else:
        ids = np.arange(row.n)
        weights = row.exact(ids, p.temperature)
    if p.min_p > 0.0:  # the likeliest has weight 1 and is always there
        kept = (weights >= p.min_p).nonzero()[0]
        if kept.shape[0] < ids.shape[0]:
            ids, weights = ids[kept], weights[kept]
    if p.typical_p < 1.0:
        ids, weights = _typical_of(row, p, ids, weights)
    return ids, weights


def _top_k(row: ScoreRow, p: SamplingParameters) -> tuple[Ids, Weights]:
    """Top-k and then top-p."""
    ids = row.at_least(row.cut_for(p.top_k))
    if ids.shape[0] > _FEW:
        return _wide_top_k(row, p, ids)
    ids = _descending(row, ids)[: p.top_k]
    weights = row.exact(ids, p.temperature)
    if p.top_p < 1.0:
        mass = np.add.accumulate(weights)
        keep = _place(mass, p.top_p * float(mass[-1]))
        ids, weights = ids[:keep], weights[:keep]
    return ids, weights


def _wide_top_k(row: ScoreRow, p: SamplingParameters, ids: Ids) -> tuple[Ids, Weights]:
    ranked = Ranked(row, ids, p.temperature)
    keep = p.top_k
    if p.top_p < 1.0:
        keep = min(keep, ranked.place(p.top_p * ranked.mass(keep)))
    ids = ranked.first(keep)
    return ids, row.exact(ids, p.temperature)


def _nucleus(row: ScoreRow, p: SamplingParameters) -> tuple[Ids, Weights]:
    """Top-p over the whole vocabulary. May leave out tokens that min-p would remove next."""
    has_floor = p.min_p > 0.0
    cut = row.cut_for(FIRST_CUT)
    if has_floor:
        cut = min(cut, min_p_cut(row, p))
    ids = row.at_least(cut)
    if ids.shape[0] > _FEW:
        return _wide_nucleus(row, p)
    ids = _descending(row, ids)
    weights = row.exact(ids, p.temperature)
    n_above_floor = int(np.count_nonzero(weights >= p.min_p)) if has_floor else row.n
    mass = np.add.accumulate(weights)
    held = float(mass[-1])
    keep = min(_place(mass, p.top_p * held), n_above_floor)
    if ids.shape[0] < row.n:
        most = held + row.most_below(cut, p.temperature)
        if min(_place(mass, p.top_p * most), n_above_floor) != keep:
            whole = held + row.mass_without(ids, p.temperature)
            keep = min(_place(mass, p.top_p * whole), n_above_floor)
            if keep > ids.shape[0]:
                return _wide_nucleus(row, p)
    return ids[:keep], weights[:keep]


def _wide_nucleus(row: ScoreRow, p: SamplingParameters) -> tuple[Ids, Weights]:
    """Top-p where many tokens are needed. Tokens with less than ``(1 - top_p) / n`` of the mass
    have less than ``1 - top_p`` of it together, so the nucleus is found among the others."""
    whole = total(row.weights(p.temperature))
    floor = (1.0 - _ROUNDING) * (1.0 - p.top_p) * whole / row.n
    ids = row.at_least(row.top + p.temperature * math.log(max(floor, p.min_p)) - _slack(row))
    ranked = Ranked(row, ids, p.temperature)
    whole = ranked.mass(ids.shape[0]) + row.mass_without(ids, p.temperature)
    ids = ranked.first(ranked.place(p.top_p * whole))
    return ids, row.exact(ids, p.temperature)


def _typical_of_all(row: ScoreRow, p: SamplingParameters) -> tuple[Ids, Weights]:
    """The typical set of the whole vocabulary.

    The likeliest token is the least surprising. Those that are at most as far from the entropy as
    it is, on either side, are all that score at least ``2 * middle - top``, where ``middle`` is the
    score whose surprise is the entropy. If they do not reach the mass, all of them belong to the
    set and what is still missing comes in the order of surprise: then the set is top-p's.
    """
    whole = total(row.weights(p.temperature))
    middle = row.mean(p.temperature, whole)
    ids = row.at_least(2.0 * middle - row.top - _slack(row))
    bound = p.typical_p * whole
    if float(np.add.reduce(row.exact(ids, p.temperature))) < bound:
        return _nucleus(row, attrs.evolve(p, top_p=p.typical_p))
    return _typical(row, p, ids, middle, bound)


def _typical_of(
    row: ScoreRow, p: SamplingParameters, ids: Ids, weights: Weights
) -> tuple[Ids, Weights]:
    """The typical set of the tokens that other filters left."""
    whole = float(np.add.reduce(weights))
    below_top = np.maximum(row.scores.take(ids).astype(np.float64) - row.top, -1e300)
    middle = row.top + float(np.add.reduce(below_top * weights)) / whole
    return _typical(row, p, ids, middle, p.typical_p * whole)


def _typical(
    row: ScoreRow, p: SamplingParameters, ids: Ids, middle: float, bound: float
) -> tuple[Ids, Weights]:
    """Of ``ids`` those whose scores are nearest to ``middle``, until their weights reach ``bound``
    (Meister et al., 2022). ``middle`` is the mean score: its surprise is the entropy, so a score is
    as far from it as its surprise from the entropy."""
    if ids.shape[0] > _FEW:
        ids = Ranked(row, ids, p.temperature).nearest(middle, bound)
        return ids, row.exact(ids, p.temperature)
    distance = np.abs(row.scores.take(ids).astype(np.float64) - middle)
    ids = ids[np.argsort(distance, kind="stable")]
    weights = row.exact(ids, p.temperature)
    keep = _place(np.add.accumulate(weights), bound)
    return ids[:keep], weights[:keep]


def _descending(row: ScoreRow, ids: Ids) -> Ids:
    return ids[np.argsort(-row.scores.take(ids), kind="stable")]


def _place(mass: Weights, bound: float) -> int:
    """How many of the first entries it takes until the running sum reaches ``bound``; one more
    than there are where it does not."""
    return int(mass.searchsorted(bound)) + 1


def min_p_cut(row: ScoreRow, p: SamplingParameters) -> float:
    """A score just below the lowest that min-p keeps; the weights decide exactly."""
    return row.top + p.temperature * math.log(p.min_p) - _slack(row)


def _slack(row: ScoreRow) -> float:
    return _ROUNDING * max(1.0, abs(row.top))
