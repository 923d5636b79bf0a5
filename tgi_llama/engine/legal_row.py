"""A row of scores without the tokens that a grammar does not allow.

A mask has a bit per token. Tables turn its bytes into eight marks or eight limits at a time:
0.03 ms for 152k tokens, whatever the mask. (``copyto`` with ``where`` takes up to 0.6 ms when the
bits are mixed.) Where few tokens are allowed, which is most of the time between two values of a
JSON text, only their scores are kept, and choosing among them is cheaper than without a grammar.
"""

import attrs
import numpy as np
from numpy.typing import NDArray

from tgi_llama.engine.guide import MaskBits
from tgi_llama.engine.model_runner import Logits
from tgi_llama.engine.score_row import Ids, Scratch
from tgi_llama.errors import GenerationError
from tgi_llama.generation import TokenId

_FEW = 4096
"""Up to so many allowed tokens become a row of their own."""

_BITS = (np.arange(256)[:, np.newaxis] >> np.arange(8) & 1).astype(np.bool_)
_MARKS = np.ascontiguousarray(_BITS).view(np.uint64).reshape(256)
"""From a byte of a mask to eight booleans, seen as one number."""
_LIMITS: NDArray[np.float32] = np.where(_BITS, np.float32(np.inf), np.float32(-np.inf))
"""From a byte of a mask to what eight scores may be at most."""


@attrs.frozen(eq=False)
class LegalRow:
    """What may be chosen from: the scores of all tokens, minus infinity where one is not allowed,
    or of the allowed ones only. The order of tokens is kept, and with it who wins a tie."""

    scores: Logits
    scratch: Scratch
    """For the choice; ``scores`` is no part of what it overwrites."""
    ids: Ids | None
    """The tokens that the scores belong to; None: all."""

    def token(self, place: int) -> TokenId:
        return TokenId(int(place if self.ids is None else self.ids[place]))


def legal_row(scores: Logits, mask: MaskBits, scratch: Scratch) -> LegalRow:
    """The part of ``scores``, (n_vocab,) float32, that the mask allows. Valid until the scratch is
    used for another row. Raises GenerationError where nothing is allowed."""
    n = scores.shape[0]
    scratch.fit(n)
    scratch.fit_legal()
    marks = scratch.legal[: mask.shape[0]]
    np.take(_MARKS, mask, out=marks, mode="clip")  # with "raise" numpy makes a copy first
    allowed = marks.view(np.bool_)[:n]
    n_allowed = int(np.count_nonzero(allowed))
    if n_allowed == 0:
        raise GenerationError("the grammar allows no token here")
    if n_allowed <= min(_FEW, n // 2):
        ids = allowed.nonzero()[0]
        return LegalRow(scores.take(ids), Scratch(), ids)
    limits = scratch.limits[: mask.shape[0]]
    np.take(_LIMITS, mask, axis=0, out=limits, mode="clip")
    legal = scratch.legal_scores
    np.minimum(scores, limits.reshape(-1)[:n], out=legal)  # a NaN stays
    return LegalRow(legal, scratch, None)
