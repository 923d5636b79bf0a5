"""Choosing the next token from a row of logits, in numpy.

Why not llama.cpp's sampler chain: its seeds have 32 bits (clients send 64), its penalties do not
know the prompt, and without top-k it sorts the whole vocabulary (13 ms a token for typical-p at
152k tokens). Here a pass over the whole vocabulary happens only where the request needs one:

* greedy: ``argmax``, 0.02 ms at 152k tokens;
* top-k: the best columns of a two-level maximum hold the k best tokens exactly, about 0.1 ms;
* top-p and min-p without top-k: candidates grow until they hold the mass that was asked for;
* neither: one exponential and one cumulative sum over the row;
* a watermark: a copy of the row and a random bit for every second token, about 0.2 ms.
"""

from collections.abc import Sequence as Seq

import attrs
import numpy as np
from numpy.typing import NDArray

from tgi_llama.engine.model_runner import Logits
from tgi_llama.engine.watermark import add_watermark
from tgi_llama.errors import GenerationError
from tgi_llama.generation import SamplingParameters, TokenId

_ROWS = 64
"""Rows of the two-level maximum: 64 x 2374 for 151,936 tokens."""

_FIRST_CUT = 128
"""Candidates tried first when a mass, not a count, bounds the choice. Trained models put 0.95 of
the mass on fewer than that almost always; each further try takes sixteen times as many."""

_LARGEST = np.finfo(np.float32).max
"""Where an extreme but allowed penalty would leave the numbers."""

Ids = NDArray[np.intp]
Weights = NDArray[np.float64]


def largest(scores: Logits, count: int) -> Ids:
    """The indices of the ``count`` largest scores, in descending order.

    Exact: each of the k largest scores stands in one of the k columns with the largest maxima.
    """
    n = scores.shape[0]
    if count >= n:
        return np.argsort(-scores, kind="stable")
    if count * _ROWS * 2 >= n:
        best = np.argpartition(scores, n - count)[n - count :]
    else:
        width = n // _ROWS
        table = scores[: width * _ROWS].reshape(_ROWS, width)
        columns = np.argpartition(table.max(axis=0), width - count)[width - count :]
        rest = np.arange(width * _ROWS, n)
        near = (np.arange(_ROWS)[:, None] * width + columns).ravel()
        candidates = np.concatenate([near, rest])
        values = scores[candidates]
        best = candidates[np.argpartition(values, values.shape[0] - count)[-count:]]
    return best[np.argsort(-scores[best], kind="stable")]


def log_sum_exp(logits: Logits) -> float:
    """log(sum(exp(logits))), the log-softmax's normaliser."""
    top = logits.max()
    return float(top + np.log(np.exp(logits - top).sum(dtype=np.float64)))


def likeliest(logits: Logits, count: int) -> Ids:
    """The ``count`` likeliest tokens in descending order, and all that tie with the last."""
    at_least = np.flatnonzero(logits >= logits[largest(logits, count)[-1]])
    return at_least[np.argsort(-logits[at_least], kind="stable")]


@attrs.define(eq=False)
class Sampler:
    """The choices of one sequence: its parameters, its random stream, and what it has seen.

    The same parameters, prompt and logits give the same tokens. Decode thread only.
    """

    parameters: SamplingParameters
    _rng: np.random.Generator = attrs.field(init=False)
    _seen: Ids = attrs.field(init=False)
    """Distinct tokens of prompt and output, for the repetition penalty."""
    _counts: dict[int, int] = attrs.field(factory=dict, init=False)
    """Occurrences in the output, for frequency and presence penalty."""
    _previous: TokenId = attrs.field(default=TokenId(0), init=False)
    """The token before the next one, for the watermark; 0 where there is none."""

    def __attrs_post_init__(self) -> None:
        self._rng = np.random.default_rng(self.parameters.seed)
        self._seen = np.empty(0, dtype=np.intp)

    @classmethod
    def for_prompt(cls, parameters: SamplingParameters, prompt_ids: Seq[TokenId]) -> "Sampler":
        sampler = cls(parameters)
        if parameters.repetition_penalty != 1.0:
            sampler._seen = np.unique(np.asarray(prompt_ids, dtype=np.intp))
        sampler._previous = prompt_ids[-1]
        return sampler

    def choose(self, logits: Logits) -> TokenId:
        """The next token. Remembers it for the penalties and the watermark.

        Raises GenerationError when the logits hold NaN or leave nothing to choose.
        """
        # Extreme but allowed parameters overflow to infinity, which is refused where it is chosen.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return self._choose(logits)

    def _choose(self, logits: Logits) -> TokenId:
        scores = self._adjusted(logits)
        if self.parameters.greedy:
            chosen = int(scores.argmax())
        else:
            ids, weights = self._candidates(scores)
            chosen = int(ids[self._draw(weights)])
        if not np.isfinite(scores[chosen]):
            raise GenerationError(f"the model's logits hold {scores[chosen]} where a number is due")
        self._remember(chosen)
        return TokenId(chosen)

    def _adjusted(self, logits: Logits) -> Logits:
        """Watermark, penalties and bias; the row itself where there are none."""
        p = self.parameters
        repetition = p.repetition_penalty != 1.0 and self._seen.size > 0
        counted = (p.frequency_penalty != 0.0 or p.presence_penalty != 0.0) and self._counts
        if not (p.watermark or repetition or counted or p.logit_bias):
            return logits
        scores = logits.copy()
        if p.watermark:
            add_watermark(scores, self._previous)
        if repetition:
            seen = scores[self._seen]
            penalised = np.where(seen < 0, seen * p.repetition_penalty, seen / p.repetition_penalty)
            scores[self._seen] = np.clip(penalised, -_LARGEST, _LARGEST)  # NaN stays
        if counted:
            ids = np.fromiter(self._counts.keys(), dtype=np.intp, count=len(self._counts))
            counts = np.fromiter(self._counts.values(), dtype=np.float32, count=len(self._counts))
            scores[ids] -= p.frequency_penalty * counts + p.presence_penalty
        for token, bias in p.logit_bias:
            scores[token] += bias
        return scores

    def _candidates(self, scores: Logits) -> tuple[Ids, Weights]:
        """The tokens that survive the filters, likeliest first, and their weights (not normed)."""
        p = self.parameters
        if 0 < p.top_k < scores.shape[0]:
            ids = largest(scores, p.top_k)
            return self._filtered(ids, _weights(scores[ids], p.temperature), total=None)
        if p.typical_p < 1.0 or p.top_p >= 1.0:
            ids = np.arange(scores.shape[0])
            if p.min_p > 0.0 and p.typical_p >= 1.0:
                ids = np.flatnonzero(scores >= scores.max() + p.temperature * np.log(p.min_p))
            weights = _weights(scores[ids], p.temperature)
            if p.top_p >= 1.0 and p.typical_p >= 1.0:
                return ids, weights
            order = np.argsort(-weights, kind="stable")
            return self._filtered(ids[order], weights[order], total=None)
        return self._nucleus(scores)

    def _nucleus(self, scores: Logits) -> tuple[Ids, Weights]:
        """Top-p over the whole vocabulary without sorting it: more and more of the likeliest
        tokens are taken until they hold the mass."""
        p = self.parameters
        total = float(_weights(scores, p.temperature).sum())
        count = _FIRST_CUT
        while True:
            ids = largest(scores, min(count, scores.shape[0]))
            weights = _weights(scores[ids], p.temperature)
            if count >= scores.shape[0] or weights.sum() >= p.top_p * total:
                return self._filtered(ids, weights, total=total)
            count *= 16

    def _filtered(self, ids: Ids, weights: Weights, total: float | None) -> tuple[Ids, Weights]:
        """Top-p, min-p and typical-p over candidates in descending order. ``total`` is the mass
        of all tokens where the candidates are not all of them."""
        p = self.parameters
        if p.top_p < 1.0:
            mass = np.cumsum(weights)
            bound = p.top_p * (mass[-1] if total is None else total)
            keep = min(int(np.searchsorted(mass, bound)) + 1, ids.shape[0])
            ids, weights = ids[:keep], weights[:keep]
        if p.min_p > 0.0:
            keep = int(np.count_nonzero(weights >= p.min_p * weights[0]))
            ids, weights = ids[:keep], weights[:keep]
        if p.typical_p < 1.0:
            kept = _typical(weights, p.typical_p)
            ids, weights = ids[kept], weights[kept]
        return ids, weights

    def _draw(self, weights: Weights) -> int:
        mass = np.cumsum(weights)
        if not (np.isfinite(mass[-1]) and mass[-1] > 0.0):
            raise GenerationError(f"the model's logits leave a mass of {mass[-1]} to draw from")
        drawn = int(np.searchsorted(mass, self._rng.random() * mass[-1], side="right"))
        return min(drawn, len(mass) - 1)

    def _remember(self, token: int) -> None:
        p = self.parameters
        self._previous = TokenId(token)
        if p.repetition_penalty != 1.0 and token not in self._seen:
            self._seen = np.append(self._seen, token)
        if p.frequency_penalty != 0.0 or p.presence_penalty != 0.0:
            self._counts[token] = self._counts.get(token, 0) + 1


def _weights(scores: Logits, temperature: float) -> Weights:
    """exp((scores - max) / temperature)."""
    weights: Weights = np.exp((scores - scores.max()) / np.float32(temperature)).astype(float)
    return weights


def _typical(weights: Weights, mass: float) -> Ids:
    """Indices of the locally typical set: tokens whose surprise is nearest to the distribution's
    entropy, until their probabilities reach ``mass`` (Meister et al., 2022)."""
    probabilities = weights / weights.sum()
    surprise = -np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    entropy = float((probabilities * surprise).sum())
    order = np.argsort(np.abs(surprise - entropy), kind="stable")
    reached = np.cumsum(probabilities[order])
    keep = min(int(np.searchsorted(reached, mass)) + 1, order.shape[0])
    return order[:keep]
