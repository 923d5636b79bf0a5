"""Choosing the next token from a row of logits, in numpy.

Why not llama.cpp's sampler chain: its seeds have 32 bits (clients send 64), its penalties do not
know the prompt, and without top-k it sorts the whole vocabulary (13 ms a token for typical-p at
152k tokens). Here a row is copied only where it is changed (``penalties``), never sorted
(``score_row``, ``filters``), and nothing of its size is allocated:

* greedy: ``argmax``;
* top-k, top-p, min-p: a pass over the row, and what follows concerns some hundred tokens;
* no filter: exponentials and their sums in two levels, one random number for both.

Under a grammar the tokens that it does not allow have no probability, as if their logits were minus
infinity after penalties and before filters. A choice looks at the mask only where it must:

* greedy: if the largest score's token is allowed, it is the largest of the allowed ones too;
* no filter: a token t is drawn from all, and if it is not allowed, once more from the allowed ones.
  With their mass L that gives an allowed t the probability p(t) + (1 - L) p(t) / L = p(t) / L;
* filters: which tokens they keep depends on the mass or the number of all, so the row is masked
  first. With few allowed tokens that leaves a short row (``legal_row``).

docs/performance.md has the times.
"""

import math
from collections.abc import Sequence as Seq

import attrs
import numpy as np

from tgi_llama.engine.filters import survivors
from tgi_llama.engine.guide import Guide
from tgi_llama.engine.legal_row import legal_row
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

    @property
    def always_masks(self) -> bool:
        """Whether every choice under a grammar needs its mask."""
        p = self.parameters
        return not p.greedy and (p.top_k > 0 or p.top_p < 1.0 or p.min_p > 0.0 or p.typical_p < 1.0)

    def choose(
        self, logits: Logits, scratch: Scratch | None = None, guide: Guide | None = None
    ) -> TokenId:
        """The next token. Remembers it for the penalties and the watermark.

        ``scratch``: the calling thread's; without it a new one is made where one is needed, which
        takes longer than the choice. ``guide``: says which tokens are allowed; it is not told which
        one was chosen. Raises GenerationError when the logits hold NaN or leave nothing to choose,
        or the grammar does.
        """
        if self.parameters.greedy and self._penalties.are_off:
            chosen = _best(logits)
            if guide is not None and not guide.allows(chosen):
                chosen = _best_legal(logits, scratch or Scratch(), guide)
        else:
            # Extreme but allowed parameters overflow to infinity, which is refused where it is
            # chosen.
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                chosen = self._choose(logits, scratch or Scratch(), guide)
        self._penalties.remember(chosen)
        return chosen

    def remember(self, token: TokenId) -> None:
        """Takes note of a token that came without a choice."""
        self._penalties.remember(token)

    def _choose(self, logits: Logits, scratch: Scratch, guide: Guide | None) -> TokenId:
        scores = self._penalties.apply(logits, scratch)
        if self.parameters.greedy:
            chosen = _best(scores)
            if guide is not None and not guide.allows(chosen):
                return _best_legal(scores, scratch, guide)
            return chosen
        if guide is None:
            return self._draw(scores, scratch)
        if not self.always_masks:
            drawn = self._draw(scores, scratch)
            if guide.allows(drawn):
                return drawn
        legal = legal_row(scores, guide.mask(), scratch)
        return legal.token(self._draw(legal.scores, legal.scratch))

    def _draw(self, scores: Logits, scratch: Scratch) -> TokenId:
        """By the distribution that temperature and filters leave."""
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


def _best_legal(scores: Logits, scratch: Scratch, guide: Guide) -> TokenId:
    legal = legal_row(scores, guide.mask(), scratch)
    return legal.token(_best(legal.scores))
