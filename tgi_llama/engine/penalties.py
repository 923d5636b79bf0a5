"""Watermark, penalties and bias: what one sequence changes in every row before it chooses.

Only the touched entries are computed. They are written into a copy of the row, because the row
itself belongs to llama.cpp and siblings choose from the same one; into a buffer that stays, the
copy costs 0.01 ms at 152k tokens.
"""

from collections.abc import Sequence as Seq

import attrs
import numpy as np
from numpy.typing import NDArray

from tgi_llama.engine.model_runner import Logits
from tgi_llama.engine.score_row import Ids, Scratch
from tgi_llama.engine.watermark import add_watermark
from tgi_llama.generation import SamplingParameters, TokenId

_LARGEST = np.finfo(np.float32).max
"""Where an extreme but allowed penalty would leave the numbers."""

_FIRST_ROOM = 64


class TokenCounts:
    """Which tokens occurred and how often, as arrays that grow in place."""

    def __init__(self) -> None:
        self._places: dict[int, int] = {}
        self._n = 0
        self._ids = np.empty(_FIRST_ROOM, dtype=np.intp)
        self._counts = np.empty(_FIRST_ROOM, dtype=np.float32)

    def __len__(self) -> int:
        return self._n

    @property
    def ids(self) -> Ids:
        """The distinct tokens."""
        return self._ids[: self._n]

    @property
    def counts(self) -> NDArray[np.float32]:
        """How often each of ``ids`` occurred."""
        return self._counts[: self._n]

    def add(self, token: int) -> None:
        place = self._places.setdefault(token, self._n)
        if place == self._ids.shape[0]:
            self._ids = np.concatenate((self._ids, np.empty_like(self._ids)))
            self._counts = np.concatenate((self._counts, np.empty_like(self._counts)))
        if place == self._n:
            self._n += 1
            self._ids[place], self._counts[place] = token, 0
        self._counts[place] += 1


@attrs.define(eq=False)
class Penalties:
    """What one sequence's parameters and tokens so far do to its next row. Decode thread only."""

    _parameters: SamplingParameters
    _seen: TokenCounts = attrs.field(factory=TokenCounts, init=False)
    """Tokens of prompt and output, for the repetition penalty."""
    _generated: TokenCounts = attrs.field(factory=TokenCounts, init=False)
    """Tokens of the output, for frequency and presence penalty."""
    _previous: TokenId = attrs.field(default=TokenId(0), init=False)
    """The token before the next one, for the watermark; 0 where there is none."""
    _biased: Ids = attrs.field(init=False)
    _biases: NDArray[np.float32] = attrs.field(init=False)
    _repeats: bool = attrs.field(init=False)
    _counts: bool = attrs.field(init=False)
    """Whether there is a repetition penalty; a frequency or presence penalty."""

    def __attrs_post_init__(self) -> None:
        p = self._parameters
        self._biased = np.array([token for token, _ in p.logit_bias], dtype=np.intp)
        self._biases = np.array([bias for _, bias in p.logit_bias], dtype=np.float32)
        self._repeats = p.repetition_penalty != 1.0
        self._counts = p.frequency_penalty != 0.0 or p.presence_penalty != 0.0

    def start(self, prompt_ids: Seq[TokenId]) -> None:
        """Takes note of the prompt, at least one token."""
        self._previous = prompt_ids[-1]
        if self._repeats:
            for token in dict.fromkeys(prompt_ids):
                self._seen.add(token)

    def remember(self, token: TokenId) -> None:
        """Takes note of a token that was chosen."""
        self._previous = token
        if self._repeats:
            self._seen.add(token)
        if self._counts:
            self._generated.add(token)

    @property
    def are_off(self) -> bool:
        """Whether the next row stays as it is."""
        return not (
            self._parameters.watermark
            or (self._repeats and len(self._seen) > 0)
            or (self._counts and len(self._generated) > 0)
            or self._biased.shape[0] > 0
        )

    def apply(self, logits: Logits, scratch: Scratch) -> Logits:
        """The row with everything applied, in the scratch; ``logits`` itself when they are off."""
        if self.are_off:
            return logits
        p = self._parameters
        scratch.fit(logits.shape[0])
        scores = scratch.adjusted
        np.copyto(scores, logits)
        if p.watermark:
            add_watermark(scores, self._previous)
        if self._repeats:
            self._penalise_repetition(scores)
        if self._counts:
            ids, counts = self._generated.ids, self._generated.counts
            scores[ids] -= p.frequency_penalty * counts + p.presence_penalty
        np.add.at(scores, self._biased, self._biases)  # a token may be listed twice
        return scores

    def _penalise_repetition(self, scores: Logits) -> None:
        ids, penalty = self._seen.ids, self._parameters.repetition_penalty
        seen = scores.take(ids)
        penalised = np.where(seen < 0, seen * penalty, seen / penalty)
        scores[ids] = np.clip(penalised, -_LARGEST, _LARGEST)  # NaN stays
