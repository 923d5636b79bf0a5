"""A watermark that a statistic can find in generated text (Kirchenbauer et al., 2023).

The token before seeds a generator that splits the vocabulary into a green and a red half, and every
green logit gets ``DELTA`` more. Text written this way holds more green tokens than chance explains;
who knows the rule can count them, with ``detect``. Half, bonus and seed are TGI's. Its lists are
not: they come out of torch's generator, which differs between devices.

Which half a token is in is decided pair by pair, (0, 1), (2, 3), ...: one random bit makes one
token of the pair green and the other red. So the half has exactly the size it should, a token is
green with probability one half for each seed, and 76k bits (0.1 ms) do for 152k tokens; selecting a
random half takes 2 ms, for which every stream would wait. The bits are PCG64's own output, which
numpy promises to keep, so a text can be judged elsewhere and later.
"""

import itertools
import math
from collections.abc import Sequence

import attrs
import numpy as np
from numpy.typing import NDArray

from tgi_llama.engine.model_runner import Logits
from tgi_llama.generation import TokenId

GAMMA = 0.5
"""Share of the vocabulary that is green."""
DELTA = 2.0
"""Added to the logit of every green token."""

_HASH_KEY = 15_485_863
"""TGI's, the millionth prime."""
_BITS_PER_WORD = 64


def green_tokens(previous: TokenId, n_vocab: int) -> NDArray[np.bool_]:
    """Which tokens are favoured after ``previous``: (n_vocab,), ``int(n_vocab * GAMMA)`` of them
    true. With an odd number of tokens the last one is never green. Any thread."""
    n_pairs = n_vocab // 2
    words = np.random.PCG64(_HASH_KEY * previous).random_raw(math.ceil(n_pairs / _BITS_PER_WORD))
    little_endian = words.astype("<u8").view(np.uint8)
    first_is_green = np.unpackbits(little_endian, count=n_pairs, bitorder="little").view(np.bool_)
    green = np.zeros(n_vocab, dtype=np.bool_)
    green[: 2 * n_pairs : 2] = first_is_green
    green[1 : 2 * n_pairs : 2] = ~first_is_green
    return green


def add_watermark(scores: Logits, previous: TokenId) -> None:
    """Adds DELTA to the green half of ``scores``, (n_vocab,) float32, in place."""
    scores += green_tokens(previous, scores.shape[0]) * np.float32(DELTA)


@attrs.frozen(kw_only=True)
class Detection:
    """How green a text is."""

    n_scored: int
    """Different pairs of neighbouring tokens."""
    n_green: int
    """Pairs whose second token is green after the first."""

    @property
    def z_score(self) -> float:
        """By how many standard deviations there are more green tokens than in text that knows
        nothing of the watermark: beyond 4, chance is one in thirty thousand. 0 for no pairs."""
        if self.n_scored == 0:
            return 0.0
        expected = GAMMA * self.n_scored
        return (self.n_green - expected) / math.sqrt(expected * (1.0 - GAMMA))


def detect(token_ids: Sequence[TokenId], n_vocab: int) -> Detection:
    """Judges a text by its tokens, from the same tokenizer and for the same ``n_vocab`` (the
    model's, as ``/info`` tells it). The first token is judged by nobody: give the last one of the
    prompt there if it is known.

    A pair that occurs again is not counted again: text that repeats itself would look like a
    watermark, or like its opposite.
    """
    pairs = set(itertools.pairwise(token_ids))
    by_previous: dict[TokenId, list[TokenId]] = {}
    for previous, token in pairs:
        by_previous.setdefault(previous, []).append(token)
    n_green = sum(
        int(np.count_nonzero(green_tokens(previous, n_vocab)[tokens]))
        for previous, tokens in by_previous.items()
    )
    return Detection(n_scored=len(pairs), n_green=n_green)
