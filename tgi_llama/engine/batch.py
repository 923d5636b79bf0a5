"""What one step computes: the plan the scheduler makes, and the arrays the runner takes."""

import attrs
import numpy as np

from tgi_llama.engine.model_runner import Batch
from tgi_llama.engine.sequence import Phase, Sequence


@attrs.frozen(eq=False)
class Chunk:
    """The next ``n_tokens`` tokens of one sequence."""

    sequence: Sequence
    n_tokens: int

    @property
    def is_prefill(self) -> bool:
        return self.sequence.phase is Phase.PREFILL

    @property
    def wants_output(self) -> bool:
        """True when the step reaches the end of what is known, so that a token can be chosen."""
        return not self.is_prefill or self.n_tokens == self.sequence.n_prompt_left


@attrs.frozen(eq=False)
class StepPlan:
    """The chunks of one step in slot order: llama.cpp puts only consecutive slots into one
    physical batch (streams layout)."""

    chunks: tuple[Chunk, ...]
    n_joined: int = 0
    """Sequences that got a slot for this step."""

    @property
    def n_tokens(self) -> int:
        return sum(chunk.n_tokens for chunk in self.chunks)


def build_batch(chunks: tuple[Chunk, ...]) -> tuple[Batch, list[int]]:
    """The chunks as arrays, and for each chunk the index of its last token in the batch."""
    n_tokens = sum(chunk.n_tokens for chunk in chunks)
    tokens = np.empty(n_tokens, dtype=np.int32)
    positions = np.empty(n_tokens, dtype=np.int32)
    slots = np.empty(n_tokens, dtype=np.int32)
    outputs = np.zeros(n_tokens, dtype=np.bool_)
    rows = []
    end = 0
    for chunk in chunks:
        sequence = chunk.sequence
        start, end = end, end + chunk.n_tokens
        assert sequence.slot is not None
        tokens[start:end] = sequence.pending(chunk.n_tokens)
        positions[start:end] = np.arange(sequence.n_cached, sequence.n_cached + chunk.n_tokens)
        slots[start:end] = sequence.slot
        outputs[end - 1] = chunk.wants_output
        rows.append(end - 1)
    return Batch(tokens=tokens, positions=positions, slots=slots, outputs=outputs), rows
