"""What one step computes: the plan the scheduler makes, and the arrays the runner takes."""

import itertools

import attrs
import numpy as np

from tgi_llama.engine.model_runner import Batch, Run
from tgi_llama.engine.sequence import Phase, Sequence


@attrs.frozen(eq=False)
class Chunk:
    """The next ``n_tokens`` known tokens of one sequence."""

    sequence: Sequence
    n_tokens: int

    @property
    def is_prefill(self) -> bool:
        return self.sequence.phase is Phase.PREFILL

    @property
    def yields_token(self) -> bool:
        """True when the step reaches the end of what is known, so that a token can be chosen."""
        return self.n_tokens == self.sequence.n_left

    @property
    def n_outputs(self) -> int:
        """Of how many of its last tokens the logits are needed."""
        sequence = self.sequence
        if sequence.scores is not None and not sequence.scores.is_complete:
            return min(sequence.scores.n_rows(sequence.n_cached + self.n_tokens), self.n_tokens)
        n_outputs = int(self.yields_token)
        if sequence.n_forced and sequence.wants_rows:
            n_told = len(sequence.tokens) - sequence.n_forced
            end = sequence.n_cached + self.n_tokens
            n_outputs = max(0, min(self.n_tokens, end + 1 - n_told))
        return n_outputs


@attrs.frozen(eq=False)
class StepPlan:
    """The chunks of one step in slot order: llama.cpp puts only consecutive slots into one
    physical batch (streams layout)."""

    chunks: tuple[Chunk, ...]
    prefill_budget: int = 0
    """Prompt tokens that the step was allowed."""
    n_leapt: int = 0
    """Forced tokens beyond the one token that each sequence has in a step."""

    @property
    def n_tokens(self) -> int:
        return sum(chunk.n_tokens for chunk in self.chunks)


def build_batch(chunks: tuple[Chunk, ...]) -> tuple[Batch, list[int]]:
    """The batch of the chunks, of which all have one adapter, and for each chunk the index of its
    last token in it."""
    tokens: list[int] = []
    for chunk in chunks:
        start = chunk.sequence.n_cached
        tokens += chunk.sequence.tokens[start : start + chunk.n_tokens]
    runs = tuple(_run(chunk) for chunk in chunks)
    adapter = chunks[0].sequence.request.adapter
    assert all(chunk.sequence.request.adapter == adapter for chunk in chunks)
    last_rows = [end - 1 for end in itertools.accumulate(run.n_tokens for run in runs)]
    return Batch(np.array(tokens, dtype=np.int32), runs, adapter), last_rows


def _run(chunk: Chunk) -> Run:
    slot = chunk.sequence.slot
    assert slot is not None
    return Run(slot, chunk.sequence.n_cached, chunk.n_tokens, chunk.n_outputs)
