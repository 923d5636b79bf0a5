"""Choices under a mask against the plain definition: what is not allowed has no chance, before any
filter looks at the row."""

import itertools
import tracemalloc

import attrs
import numpy as np
import pytest
from fakes.letter_grammars import RuleGrammar
from fakes.sampling import FILTERS, PROMPT, Scores, assert_drawn_from, changed, reference, row
from numpy.typing import NDArray

from tgi_llama.engine.guide import Guide
from tgi_llama.engine.legal_row import legal_row
from tgi_llama.engine.sampler import Sampler, Scratch
from tgi_llama.errors import GenerationError
from tgi_llama.generation import SamplingParameters, TokenId

N_VOCAB = 9_000
"""So many that a half of them is no short row."""


def masks(scores: Scores) -> dict[str, NDArray[np.bool_]]:
    """Which tokens are allowed."""
    n = scores.shape[0]
    rng = np.random.default_rng(n)
    order = np.argsort(-scores)
    few, without_best, unlikely = (np.zeros(n, dtype=np.bool_) for _ in range(3))
    few[rng.choice(n, 12, replace=False)] = True
    few[order[3]] = True
    without_best[:] = True
    without_best[order[:3]] = False
    unlikely[order[-(n // 2) :]] = True
    most = rng.random(n) < 0.95
    return {"few": few, "most": most, "without the best": without_best, "unlikely": unlikely}


def guide_of(allowed: NDArray[np.bool_], parameters: SamplingParameters) -> Guide:
    tokens = frozenset(allowed.nonzero()[0].tolist())
    grammar = RuleGrammar(lambda _tokens: tokens, n_vocab=allowed.shape[0])
    always = Sampler(parameters).always_masks
    return Guide(grammar.start(), allowed.shape[0], always_masks=always)


def masked(scores: Scores, allowed: NDArray[np.bool_]) -> Scores:
    return np.where(allowed, scores, np.float32(-np.inf)).astype(np.float32)


KINDS = ("few", "most", "without the best", "unlikely")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("parameters", [*FILTERS, changed(FILTERS[1]), changed(FILTERS[12])])
@pytest.mark.parametrize("n_vocab", [300, N_VOCAB])
def test_choice_under_a_mask_is_drawn_from_the_masked_row(
    kind: str, parameters: SamplingParameters, n_vocab: int
) -> None:
    scores = row(7, n_vocab, scale=1.5 if n_vocab == 300 else 2.5)
    allowed = masks(scores)[kind]
    # What makes -inf of a logit before the penalties makes it after them, too.
    expected = reference(masked(scores, allowed), parameters)
    guide, scratch = guide_of(allowed, parameters), Scratch()
    n_draws = 1500
    samplers = (
        Sampler.for_prompt(attrs.evolve(parameters, seed=seed), PROMPT) for seed in range(n_draws)
    )
    if not parameters.watermark:
        samplers = itertools.repeat(Sampler.for_prompt(parameters, PROMPT), n_draws)
    drawn = [sampler.choose(scores, scratch, guide) for sampler in samplers]
    assert_drawn_from(expected, drawn)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("penalty", [1.0, 1.5])
def test_greedy_takes_the_largest_that_is_allowed(kind: str, penalty: float) -> None:
    parameters = SamplingParameters(greedy=True, repetition_penalty=penalty)
    for seed in range(10):
        scores = row(seed, N_VOCAB)
        allowed = masks(scores)[kind]
        guide = guide_of(allowed, parameters)
        plain = Sampler.for_prompt(parameters, PROMPT).choose(masked(scores, allowed))
        assert Sampler.for_prompt(parameters, PROMPT).choose(scores, Scratch(), guide) == plain


def test_greedy_of_equal_scores_takes_the_first_that_is_allowed() -> None:
    scores = np.zeros(300, dtype=np.float32)
    allowed = np.zeros(300, dtype=np.bool_)
    allowed[[40, 41, 200]] = True
    greedy = SamplingParameters(greedy=True)
    assert Sampler(greedy).choose(scores, Scratch(), guide_of(allowed, greedy)) == 40


@pytest.mark.parametrize("parameters", [SamplingParameters(), SamplingParameters(greedy=True)])
def test_legal_choice_needs_no_mask(parameters: SamplingParameters) -> None:
    def unwanted(_tokens: tuple[int, ...]) -> None:
        raise AssertionError("a mask that nobody needs")

    guide = Guide(RuleGrammar(lambda _: frozenset(range(300)), unwanted, 300).start(), 300)
    sampler = Sampler(parameters)
    for seed in range(50):
        sampler.choose(row(seed, 300), Scratch(), guide)


def test_choice_of_likely_tokens_far_above_the_allowed_ones_stays_exact() -> None:
    """The weights of the allowed ones relative to the likeliest of all would be zero."""
    scores = np.full(N_VOCAB, -300.0, dtype=np.float32)
    scores[:4000] = 300.0
    allowed = np.zeros(N_VOCAB, dtype=np.bool_)
    allowed[[5000, 5001]] = True
    scores[5001] += np.log(3.0)
    parameters = SamplingParameters()
    guide, sampler, scratch = guide_of(allowed, parameters), Sampler(parameters), Scratch()
    drawn = [sampler.choose(scores, scratch, guide) for _ in range(2000)]
    assert set(drawn) == {5000, 5001}
    assert np.mean(np.array(drawn) == 5001) == pytest.approx(0.75, abs=0.04)


@pytest.mark.parametrize("parameters", [*FILTERS[:6], SamplingParameters(greedy=True)], ids=str)
def test_choice_where_nothing_is_allowed_is_an_error(parameters: SamplingParameters) -> None:
    guide = guide_of(np.zeros(300, dtype=np.bool_), parameters)
    with pytest.raises(GenerationError, match="allows no token"):
        Sampler(parameters).choose(row(1, 300), Scratch(), guide)


@pytest.mark.parametrize("parameters", [*FILTERS[:6], SamplingParameters(greedy=True)], ids=str)
@pytest.mark.parametrize("kind", ["few", "most"])
def test_choice_of_a_broken_row_is_an_error(kind: str, parameters: SamplingParameters) -> None:
    scores = row(1, N_VOCAB)
    allowed = masks(scores)[kind]
    scores[allowed.nonzero()[0][5]] = np.nan
    guide = guide_of(allowed, parameters)
    with pytest.raises(GenerationError, match="logits"):
        Sampler(parameters).choose(scores, Scratch(), guide)


@pytest.mark.parametrize("n_vocab", [1, 7, 64, 300, 9_001])
@pytest.mark.parametrize("share", [0.1, 0.9])
def test_legal_row_has_the_scores_of_the_allowed_tokens(n_vocab: int, share: float) -> None:
    rng = np.random.default_rng(n_vocab)
    scores = row(3, n_vocab)
    allowed = rng.random(n_vocab) < share
    allowed[n_vocab // 2] = True
    bits = np.full(-(-n_vocab // 64) * 8, 0xFF, dtype=np.uint8)  # beyond the vocabulary: all set
    marks = np.unpackbits(bits)
    marks[:n_vocab] = allowed
    legal = legal_row(scores, np.packbits(marks, bitorder="little"), Scratch())
    kept = {
        legal.token(int(place)): float(legal.scores[place])
        for place in np.isfinite(legal.scores).nonzero()[0]
    }
    assert kept == {int(token): float(scores[token]) for token in allowed.nonzero()[0]}


@pytest.mark.parametrize(
    "parameters",
    [
        SamplingParameters(greedy=True, repetition_penalty=1.3),
        SamplingParameters(temperature=0.7),
        SamplingParameters(top_k=40, top_p=0.9, min_p=0.05),
        SamplingParameters(top_p=0.95, temperature=0.7),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["few", "without the best"])
def test_nothing_of_a_rows_size_is_allocated_under_a_mask(
    kind: str, parameters: SamplingParameters
) -> None:
    scores = row(1)
    allowed = masks(scores)[kind]
    scratch, sampler = Scratch(), Sampler.for_prompt(parameters, [TokenId(3)])
    guide = guide_of(allowed, parameters)
    sampler.choose(scores, scratch, guide)
    legal_row(scores, guide.mask(), scratch)
    tracemalloc.start()
    try:
        for _ in range(10):
            sampler.choose(scores, scratch, guide)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < scores.nbytes / 2
