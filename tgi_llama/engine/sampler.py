"""Choosing the next token from a row of logits, in numpy.

Why not llama.cpp's sampler chain: its seeds have 32 bits (clients send 64), its penalties do not
know the prompt, and without top-k it sorts the whole vocabulary (13 ms a token for typical-p at
152k tokens). Here a row is copied only where it is changed (``penalties``), never sorted
(``score_row``, ``filters``), and nothing of its size is allocated:

* greedy: ``argmax``;
* top-k, top-p, min-p: a pass over the row, and what follows concerns some hundred tokens;
* no filter: exponentials and their sums in two levels, one random number for both.

docs/performance.md has the times.
"""

import math
from collections.abc import Sequence as Seq

import attrs
import numpy as np

from tgi_llama.engine.filters import survivors
from tgi_llama.engine.membership import draw_and_test
from tgi_llama.engine.model_runner import Logits
from tgi_llama.engine.penalties import Penalties
from tgi_llama.engine.score_row import ScoreRow, Scratch, largest, likeliest, log_sum_exp, pick
from tgi_llama.errors import GenerationError
from tgi_llama.generation import SamplingParameters, TokenId

__all__ = ["Sampler", "Scratch", "largest", "likeliest", "log_sum_exp"]


@attrs.define(eq=False)
class Sampler:
    """The choices of one sequence: its parameters, its random stream, and what it has seen.

    The same parameters, prompt and logits give the same tokens. Decode thread only.
    """

    parameters: SamplingParameters
    _rng: np.random.Generator = attrs.field(init=False)
    _penalties: Penalties = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._rng = np.random.default_rng(self.parameters.seed)
        self._penalties = Penalties(self.parameters)

    @classmethod
    def for_prompt(cls, parameters: SamplingParameters, prompt_ids: Seq[TokenId]) -> "Sampler":
        sampler = cls(parameters)
        sampler._penalties.start(prompt_ids)
        return sampler

    def choose(self, logits: Logits, scratch: Scratch | None = None) -> TokenId:
        """The next token. Remembers it for the penalties and the watermark.

        ``scratch``: the calling thread's; without it a new one is made where one is needed, which
        takes longer than the choice. Raises GenerationError when the logits hold NaN or leave
        nothing to choose.
        """
        if self.parameters.greedy and self._penalties.are_off:
            chosen = _best(logits)
        else:
            # Extreme but allowed parameters overflow to infinity, which is refused where it is
            # chosen.
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                chosen = self._choose(logits, scratch or Scratch())
        self._penalties.remember(chosen)
        return chosen

    def _choose(self, logits: Logits, scratch: Scratch) -> TokenId:
        scores = self._penalties.apply(logits, scratch)
        if self.parameters.greedy:
            return _best(scores)
        row = ScoreRow(scores, scratch)
        tried = draw_and_test(row, self.parameters, self._rng)
        if tried is not None:
            return tried
        ids, weights = survivors(row, self.parameters)
        return TokenId(int(ids[pick(weights, self._rng.random())]))


def _best(scores: Logits) -> TokenId:
    """The token with the largest score, of equal ones the first."""
    best = int(scores.argmax())  # a NaN, where there is one
    if not math.isfinite(scores[best]):
        raise GenerationError(f"the model's logits hold {scores[best]} where a number is due")
    return TokenId(best)
