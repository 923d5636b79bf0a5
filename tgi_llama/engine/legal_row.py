"""A row of scores without the tokens that a grammar does not allow.

A mask has a bit per token. Where few are allowed, which is most of the time between two values of a
JSON text, only their scores are kept, and choosing among them is cheaper than without a grammar.
Else a table turns each byte of the mask into eight limits, and no score stays above its limit:
0.03 ms for 152k tokens, whatever the mask. (``copyto`` with ``where`` takes up to 0.6 ms when the
bits are mixed.)
"""

import attrs
import numpy as np
from numpy.typing import NDArray

from tgi_llama.engine.guide import MaskBits
from tgi_llama.engine.model_runner import Logits
from tgi_llama.engine.score_row import Ids, Scratch
from tgi_llama.errors import GenerationError
from tgi_llama.generation import TokenId

_WORD = 64
_FEW_WORDS = 256
"""Up to so many words of a mask with allowed tokens in them are unpacked, and these become a row of
their own."""

_BLOCK = 4096
"""Bytes of a mask at a time: their limits, 128 KiB, stay in the cache until they are used."""

_BITS = (np.arange(256)[:, np.newaxis] >> np.arange(8) & 1).astype(np.bool_)
_LIMITS: NDArray[np.float32] = np.where(_BITS, np.float32(np.inf), np.float32(-np.inf))
"""From a byte of a mask to what eight scores may be at most."""


@attrs.frozen(eq=False)
class LegalRow:
    """What may be chosen from: the scores of all tokens, minus infinity where one is not allowed,
    or of the allowed ones only. The order of tokens is kept, and with it who wins a tie."""

    scores: Logits
    ids: Ids | None
    """The tokens that the scores belong to; None: all."""
    _scratch: Scratch
    """For all tokens."""

    @property
    def scratch(self) -> Scratch:
        """For the choice; ``scores`` is no part of what it overwrites. A short row has a new one,
        so that the one for all tokens keeps its size."""
        return self._scratch if self.ids is None else Scratch()

    def token(self, place: int) -> TokenId:
        return TokenId(int(place if self.ids is None else self.ids[place]))


def legal_row(scores: Logits, mask: MaskBits, scratch: Scratch) -> LegalRow:
    """The part of ``scores``, (n_vocab,) float32, that the mask allows. Valid until the scratch is
    used for another row. Raises GenerationError where nothing is allowed."""
    words = mask.view(np.uint64).nonzero()[0]
    if words.shape[0] == 0:
        raise GenerationError("the grammar allows no token here")
    if words.shape[0] <= _FEW_WORDS:
        ids = _allowed(mask, words, scores.shape[0])
        return LegalRow(scores.take(ids), ids, scratch)
    scratch.fit(scores.shape[0])
    scratch.fit_legal(_BLOCK)
    for start in range(0, mask.shape[0], _BLOCK):
        block = mask[start : start + _BLOCK]
        limits = scratch.limits[: block.shape[0]]
        np.take(_LIMITS, block, axis=0, out=limits, mode="clip")  # "raise" makes a copy first
        part = scores[8 * start : 8 * (start + _BLOCK)]
        legal = scratch.legal_scores[8 * start : 8 * (start + _BLOCK)]
        np.minimum(part, limits.reshape(-1)[: part.shape[0]], out=legal)  # a NaN stays
    return LegalRow(scratch.legal_scores, None, scratch)


def _allowed(mask: MaskBits, words: Ids, n_vocab: int) -> Ids:
    """The tokens of these words, ascending."""
    packed = mask.reshape(-1, _WORD // 8)[words]
    marks = np.unpackbits(packed, axis=1, bitorder="little").view(np.bool_)
    lines, places = marks.nonzero()
    ids: Ids = words[lines] * _WORD + places
    return ids if ids[-1] < n_vocab else ids[: int(ids.searchsorted(n_vocab))]
