"""The watermark: what it favours, and that the text written with it is found and no other."""

import numpy as np
import pytest

from tgi_llama.engine.sampler import Sampler
from tgi_llama.engine.watermark import DELTA, add_watermark, detect, green_tokens
from tgi_llama.generation import SamplingParameters, TokenId

N_VOCAB = 1000
N_TOKENS = 200
CERTAIN = 4.0
"""A z-score that chance reaches once in thirty thousand texts."""


def written(parameters: SamplingParameters, *, scale: float = 0.0) -> list[TokenId]:
    """The prompt's last token and 200 more, from logits that spread by ``scale``."""
    prompt = [TokenId(3), TokenId(5)]
    sampler = Sampler.for_prompt(parameters, prompt)
    rows = np.random.default_rng(11)
    tokens = [prompt[-1]]
    for _ in range(N_TOKENS):
        tokens.append(sampler.choose((rows.standard_normal(N_VOCAB) * scale).astype(np.float32)))
    return tokens


@pytest.mark.parametrize("n_vocab", [1, 2, 127, 128, 129, 32_000, 151_936])
def test_green_half_is_exactly_half(n_vocab: int) -> None:
    green = green_tokens(TokenId(7), n_vocab)
    assert green.shape == (n_vocab,)
    assert green.sum() == n_vocab // 2


def test_green_half_is_chosen_by_the_token_before() -> None:
    a, b = (green_tokens(TokenId(i), 10_000) for i in (1, 2))
    assert a.tolist() == green_tokens(TokenId(1), 10_000).tolist()
    # Two independent halves agree on half of the tokens, give or take 5 standard deviations.
    assert abs(int((a == b).sum()) - 5000) < 5 * np.sqrt(5000)


def test_green_half_stays_the_same_on_every_machine_and_version() -> None:
    """Whoever looks for the watermark later must find the same halves."""
    green = green_tokens(TokenId(1000), 64)
    assert "".join("01"[bit] for bit in green.astype(int)) == (
        "0110011010010110101010011001011010101001100110100110011001101010"
    )


def test_every_token_is_green_after_half_of_all_tokens() -> None:
    n_previous = 2000
    shares = sum(green_tokens(TokenId(i), 100).astype(int) for i in range(n_previous))
    assert np.abs(shares - n_previous / 2).max() < 5 * np.sqrt(n_previous) / 2


def test_watermark_adds_delta_to_green_logits_only() -> None:
    scores = np.array([1.0, -2.0, 0.5, 0.0], dtype=np.float32)
    marked = scores.copy()
    add_watermark(marked, TokenId(9))
    expected = np.where(green_tokens(TokenId(9), 4), DELTA, 0.0)
    assert (marked - scores).tolist() == expected.tolist()


def test_text_from_flat_logits_is_mostly_green() -> None:
    found = detect(written(SamplingParameters(watermark=True, seed=1)), N_VOCAB)
    assert found.n_scored > 0.9 * N_TOKENS
    # e^2 / (1 + e^2) = 0.88 of the mass is green.
    assert found.n_green / found.n_scored > 0.7
    assert found.z_score > CERTAIN


def test_watermark_is_found_in_greedy_text() -> None:
    parameters = SamplingParameters(watermark=True, greedy=True)
    assert detect(written(parameters, scale=1.0), N_VOCAB).z_score > CERTAIN


def test_watermark_is_not_found_in_other_text() -> None:
    for seed in range(20):
        assert detect(written(SamplingParameters(seed=seed)), N_VOCAB).z_score < CERTAIN


def test_watermark_does_not_outvote_a_model_that_is_certain() -> None:
    scores = np.zeros(N_VOCAB, dtype=np.float32)
    red = int(np.flatnonzero(~green_tokens(TokenId(5), N_VOCAB))[0])
    scores[red] = DELTA + 0.5
    sampler = Sampler.for_prompt(SamplingParameters(watermark=True, greedy=True), [TokenId(5)])
    assert sampler.choose(scores) == red


def test_same_seed_gives_the_same_watermarked_text() -> None:
    parameters = SamplingParameters(watermark=True, seed=2**64 - 1)
    assert written(parameters) == written(parameters)


def test_detector_counts_a_repeated_pair_once() -> None:
    green = green_tokens(TokenId(0), N_VOCAB)
    token = TokenId(int(np.flatnonzero(green)[-1]))
    once = detect([TokenId(0), token], N_VOCAB)
    assert (once.n_scored, once.n_green) == (1, 1)
    again = detect([TokenId(0), token] * 50, N_VOCAB)
    assert again.n_scored == 2


@pytest.mark.parametrize("tokens", [[], [TokenId(3)]])
def test_detector_says_nothing_about_nothing(tokens: list[TokenId]) -> None:
    assert detect(tokens, N_VOCAB).z_score == 0.0
