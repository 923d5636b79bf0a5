"""One row of scores in two levels, so that little of it has to be looked at more than once.

A row of 152k scores is 0.6 MB. A pass over it costs 0.01 ms when it is cached and several times
that after a decode; sorting it costs 1.6 ms, a cumulative sum 0.4 ms. So a row is read as a table
of ``N_LEVELS`` lines, and one pass finds the maximum of each *column*: 2374 numbers that say where
large scores can be at all. Sums work in the same way. What is left over when the length is no
multiple of ``N_LEVELS`` counts as columns of one entry each.

Passes write into a ``Scratch``. A fresh array of that size is fresh memory from the kernel each
time, and its page faults cost more than the arithmetic.
"""

import math

import numpy as np
from numpy.typing import NDArray

from tgi_llama.engine.model_runner import Logits
from tgi_llama.errors import GenerationError

N_LEVELS = 64
"""Lines of the table: 64 x 2374 for 151,936 tokens. Of 32, 64, 128 and 256 this is the fastest."""

_FEW_COLUMNS = 256
"""Up to so many columns are looked through one by one; more of them by a pass over the row."""

_LARGEST_SCALE = 1e37
_SMALLEST_SCALE = 1e-37
"""Of 1 / temperature in float32. Differences between logits that an extreme temperature would
send to infinity times zero end at the same limit, a certain or an even choice."""

Ids = NDArray[np.intp]
Weights = NDArray[np.float64]


class Scratch:
    """Buffers for one row at a time, (n_vocab,) each: 2 MB at 152k tokens.

    One thread may use it, for any number of samplers one after the other. Nothing in it outlives a
    call, so it is no part of a sampler's state.
    """

    def __init__(self) -> None:
        self._n_vocab = -1
        self.fit(0)

    def fit(self, n_vocab: int) -> None:
        """Makes the buffers this long, if they are not; then their contents are undefined."""
        if n_vocab == self._n_vocab:
            return
        self._n_vocab = n_vocab
        n_columns = n_vocab // N_LEVELS + n_vocab % N_LEVELS
        self.adjusted = np.empty(n_vocab, dtype=np.float32)
        """Scores after penalties."""
        self.weights = np.empty(n_vocab, dtype=np.float32)
        self.products = np.empty(n_vocab, dtype=np.float32)
        self.marks = np.empty(n_vocab, dtype=np.bool_)
        self.maxima = np.empty(n_columns, dtype=np.float32)
        self._n_limits = 0

    def fit_legal(self, n_limits: int) -> None:
        """Makes the buffers that only rows under a grammar need, if they are not there."""
        if n_limits == self._n_limits:
            return
        self._n_limits = n_limits
        self.limits = np.empty((n_limits, 8), dtype=np.float32)
        """What a score may be at most: infinity, or minus infinity where it is not allowed."""
        self.legal_scores = np.empty(self._n_vocab, dtype=np.float32)


class ScoreRow:
    """Scores of one row, (n_vocab,) float32, with the maxima of its columns in ``scratch``.

    Valid until the scratch is used for another row. Raises GenerationError when the largest score
    is not a number or not finite: then there is nothing to choose.
    """

    def __init__(self, scores: Logits, scratch: Scratch) -> None:
        n = scores.shape[0]
        scratch.fit(n)
        self.scores = scores
        self.n = n
        self._is_weighed = False
        self.scratch = scratch
        self._width = n // N_LEVELS
        self._end = self._width * N_LEVELS
        self._table = scores[: self._end].reshape(N_LEVELS, self._width)
        maxima = scratch.maxima
        if self._width:
            np.maximum.reduce(self._table, axis=0, out=maxima[: self._width])
        maxima[self._width :] = scores[self._end :]
        self.top = float(np.maximum.reduce(maxima))
        if not math.isfinite(self.top):
            raise GenerationError(f"the model's logits hold {self.top} where a number is due")

    def cut_for(self, count: int) -> float:
        """A score that at least ``count`` tokens reach, and usually few more: ``count`` columns
        have a maximum that does. Far more of them where ``count`` is not small."""
        if count >= self.n:
            return -math.inf
        maxima = self.scratch.maxima
        if 4 * count > maxima.shape[0]:
            return float(np.partition(self.scores, self.n - count)[self.n - count])
        place = maxima.shape[0] - count
        return float(np.partition(maxima, place)[place])

    def at_least(self, cut: float) -> Ids:
        """The tokens with this score or more, ascending."""
        limit = rounded_up(cut)
        columns = np.greater_equal(self.scratch.maxima, limit).nonzero()[0]
        if columns.shape[0] > _FEW_COLUMNS:
            return np.greater_equal(self.scores, limit, out=self.scratch.marks).nonzero()[0]
        n_whole = int(columns.searchsorted(self._width))
        whole = columns[:n_whole]
        lines, places = (self._table.take(whole, axis=1) >= limit).nonzero()
        ids: Ids = lines * self._width + whole[places]
        if n_whole == columns.shape[0]:
            return ids
        return np.concatenate((ids, columns[n_whole:] + (self._end - self._width)))

    def exact(self, ids: Ids, temperature: float) -> Weights:
        """exp((score - top) / temperature) of these tokens."""
        weights = self.scores.take(ids).astype(np.float64)
        weights -= self.top
        weights /= temperature
        return np.exp(weights, out=weights)

    def weights(self, temperature: float) -> NDArray[np.float32]:
        """exp((score - top) / temperature) of all tokens, in the scratch. They are computed once:
        always ask for the same temperature."""
        weights = self.scratch.weights
        if not self._is_weighed:
            exponentials(self.scores, self.top, 1.0 / temperature, out=weights)
            self._is_weighed = True
        return weights

    def mass_without(self, ids: Ids, temperature: float) -> float:
        """The weight of all tokens but these. They are left out before summing, not subtracted
        afterwards: what is left may be less than the rounding of the whole sum."""
        weights = self.weights(temperature)
        kept = weights.take(ids)
        weights[ids] = 0.0
        mass = total(weights)
        weights[ids] = kept
        return mass

    def mean(self, temperature: float, whole: float) -> float:
        """The mean score, each token counting by its weight; ``whole`` is the sum of weights."""
        weights, products = self.weights(temperature), self.scratch.products
        np.subtract(self.scores, np.float32(self.top), out=products)
        # 1e4 temperatures below the top a weight is zero, and zero times minus infinity is not.
        np.maximum(products, np.float32(max(-1e4 * temperature, -_LARGEST_SCALE)), out=products)
        np.multiply(products, weights, out=products)
        return self.top + total(products) / whole

    def most_below(self, cut: float, temperature: float) -> float:
        """What the weights of all scores below ``cut`` cannot exceed, from the columns' maxima."""
        bounds = np.minimum(self.scratch.maxima, np.float32(cut))
        exponentials(bounds, self.top, 1.0 / temperature, out=bounds)
        return N_LEVELS * float(np.add.reduce(bounds, dtype=np.float64))


def rounded_down(value: float) -> np.float32:
    """The next float32 that is not larger, so that comparisons mean the same."""
    near = np.float32(value)
    return near if float(near) <= value else np.nextafter(near, np.float32(-np.inf))


def rounded_up(value: float) -> np.float32:
    return -rounded_down(-value)


def exponentials(scores: Logits, top: float, scale: float, *, out: NDArray[np.float32]) -> None:
    """exp((scores - top) * scale) into ``out``, in float32. ``top``: the largest score or more."""
    np.subtract(scores, np.float32(top), out=out)
    if scale != 1.0:
        scale = min(max(scale, _SMALLEST_SCALE), _LARGEST_SCALE)
        np.multiply(out, np.float32(scale), out=out)
    np.exp(out, out=out)


def column_sums(values: NDArray[np.floating]) -> Weights:
    """The sums of the columns. In the precision of ``values``, which is enough for 64 addends."""
    width = values.shape[0] // N_LEVELS
    end = width * N_LEVELS
    sums = np.empty(width + values.shape[0] - end, dtype=np.float64)
    if width:
        sums[:width] = np.add.reduce(values[:end].reshape(N_LEVELS, width), axis=0)
    sums[width:] = values[end:]
    return sums


def total(values: NDArray[np.floating]) -> float:
    """The sum, to a few parts in ten million also for float32."""
    return float(np.add.reduce(column_sums(values)))


def pick(weights: NDArray[np.floating], fraction: float, sums: Weights | None = None) -> int:
    """The index at which the running sum of ``weights`` passes ``fraction`` (0 <= fraction < 1) of
    the whole, so that a random fraction draws each index as often as its weight says.

    The sum runs column after column: first the column is found, then the place in it. ``sums``:
    those of the columns, where they are known.
    """
    width: int = weights.shape[0] // N_LEVELS
    if width < N_LEVELS:
        place, _ = _passes(weights, fraction)
        return place
    column, fraction = _passes(column_sums(weights) if sums is None else sums, fraction)
    if column >= width:
        return width * N_LEVELS + column - width
    line, _ = _passes(weights[column : width * N_LEVELS : width], fraction)
    return line * width + column


def _passes(weights: NDArray[np.floating], fraction: float) -> tuple[int, float]:
    """Where the running sum passes ``fraction`` of the whole, and by which fraction of the weight
    that stands there."""
    sums = np.add.accumulate(weights, dtype=np.float64)
    whole = float(sums[-1])
    wanted = fraction * whole
    index = int(sums.searchsorted(wanted, side="right"))
    if index == sums.shape[0]:  # rounding: the last one that has any weight
        index = int(sums.searchsorted(whole))
    before = float(sums[index - 1]) if index else 0.0
    return index, min(max((wanted - before) / (float(sums[index]) - before), 0.0), 1.0)


def largest(scores: Logits, count: int, scratch: Scratch | None = None) -> Ids:
    """The indices of the ``count`` largest scores, in descending order; of equal ones the first.

    Raises GenerationError when the largest is not a finite number.
    """
    row = ScoreRow(scores, scratch or Scratch())
    ids = row.at_least(row.cut_for(count))
    return ids[np.argsort(-scores.take(ids), kind="stable")[:count]]


def likeliest(logits: Logits, count: int, scratch: Scratch | None = None) -> Ids:
    """The ``count`` likeliest tokens in descending order, and all that tie with the last.

    Raises GenerationError when the largest logit is not a finite number.
    """
    row = ScoreRow(logits, scratch or Scratch())
    ids = row.at_least(row.cut_for(count))
    scores = logits.take(ids)
    order = np.argsort(-scores, kind="stable")
    last = scores[order[min(count, order.shape[0]) - 1]]
    return ids[order[: int(np.count_nonzero(scores >= last))]]


def log_sum_exp(logits: Logits, scratch: Scratch | None = None) -> float:
    """log(sum(exp(logits))), the log-softmax's normaliser. NaN where a logit is NaN."""
    scratch = scratch or Scratch()
    scratch.fit(logits.shape[0])
    top = float(np.maximum.reduce(logits))
    exponentials(logits, top, 1.0, out=scratch.weights)
    return top + math.log(total(scratch.weights))
