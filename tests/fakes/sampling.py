"""What sampling is to give, by its plain definition, and parameters to try."""

from collections.abc import Sequence

import attrs
import numpy as np
from numpy.typing import NDArray
from scipy.stats import chisquare

from tgi_llama.engine.watermark import DELTA, green_tokens
from tgi_llama.generation import SamplingParameters, TokenId

Scores = NDArray[np.float32]
Chances = NDArray[np.float64]


def row(seed: int, n: int = 151_936, scale: float = 3.0) -> Scores:
    return (np.random.default_rng(seed).standard_normal(n) * scale).astype(np.float32)


def reference(scores: Scores, p: SamplingParameters) -> Chances:
    """The definitions, one filter after the other on the whole vocabulary, slowly. ``PROMPT`` came
    before, nothing was generated yet."""
    logits = scores.astype(np.float64)
    if p.watermark:
        logits += DELTA * green_tokens(PROMPT[-1], scores.shape[0])
    for token in set(PROMPT):
        if logits[token] < 0:
            logits[token] *= p.repetition_penalty
        else:
            logits[token] /= p.repetition_penalty
    for token, bias in p.logit_bias:
        logits[token] += bias
    logits /= p.temperature

    def probabilities() -> Chances:
        weights = np.exp(logits - logits.max())
        return weights / weights.sum()

    if p.top_k:
        logits[np.argsort(-logits, kind="stable")[p.top_k :]] = -np.inf
    if p.top_p < 1.0:
        order = np.argsort(-logits, kind="stable")
        before = np.cumsum(probabilities()[order]) - probabilities()[order]
        logits[order[before >= p.top_p]] = -np.inf
    if p.min_p > 0.0:
        chances = probabilities()
        logits[chances < p.min_p * chances.max()] = -np.inf
    if p.typical_p < 1.0:
        chances = probabilities()
        with np.errstate(divide="ignore", invalid="ignore"):
            surprise = -np.log(chances)
            entropy = np.nansum(chances * surprise)
        order = np.argsort(np.abs(surprise - entropy), kind="stable")
        before = np.cumsum(chances[order]) - chances[order]
        logits[order[before >= p.typical_p]] = -np.inf
    return probabilities()


PROMPT = [TokenId(i) for i in (3, 200, 17, 3, 8)]

FILTERS = [
    SamplingParameters(),
    SamplingParameters(temperature=0.5),
    SamplingParameters(temperature=2.5, top_k=7),
    SamplingParameters(top_p=0.6),
    SamplingParameters(top_p=0.9999, temperature=1.7),
    SamplingParameters(top_p=0.95, temperature=5.0),
    SamplingParameters(min_p=0.05),
    SamplingParameters(min_p=0.01, temperature=1.5),
    SamplingParameters(min_p=0.01, temperature=20.0),
    SamplingParameters(typical_p=0.4),
    SamplingParameters(typical_p=0.95),
    SamplingParameters(typical_p=0.02),
    SamplingParameters(top_k=20, top_p=0.8, min_p=0.02),
    SamplingParameters(top_k=20, top_p=0.8, typical_p=0.7),
    SamplingParameters(top_p=0.8, min_p=0.1),
    SamplingParameters(top_p=0.9, min_p=0.3, temperature=20.0),
    SamplingParameters(top_p=0.9, typical_p=0.6, min_p=0.01),
]

BIAS = ((TokenId(17), -3.0), (TokenId(250), 4.0), (TokenId(251), 3.0), (TokenId(250), 0.5))


def changed(p: SamplingParameters) -> SamplingParameters:
    """The same filters after everything that changes single logits."""
    return attrs.evolve(p, watermark=True, repetition_penalty=1.6, logit_bias=BIAS)


def assert_drawn_from(expected: Chances, drawn: Sequence[int]) -> None:
    """By a chi-square test; what has no chance may not occur at all."""
    n_draws = len(drawn)
    counts = np.bincount(drawn, minlength=expected.shape[0])
    assert counts[expected == 0].sum() == 0, "a token was drawn that is excluded"
    common = expected * n_draws >= 5
    rest = ~common
    observed = np.append(counts[common], counts[rest].sum())
    wanted = np.append(expected[common], expected[rest].sum()) * n_draws
    keep = wanted > 0
    if keep.sum() > 1:
        assert chisquare(observed[keep], wanted[keep]).pvalue > 1e-4
