"""The seam between the engine and llama.cpp: what the engine needs of a model.

``llama/runner.py`` implements it on the native library, ``tests/fakes`` with scripted logits. The
engine never imports either. All methods are called from the decode thread only, unless a method
says otherwise.
"""

from typing import NewType, Protocol

import attrs
import numpy as np
from numpy.typing import NDArray

from tgi_llama.generation import TokenId

SlotId = NewType("SlotId", int)
"""Index of a sequence's place in the KV memory, 0 <= slot < n_slots; llama.cpp's ``seq_id``."""

Logits = NDArray[np.float32]
"""One row of raw logits, shape ``(n_vocab,)``."""


@attrs.frozen
class Run:
    """The part of a batch that belongs to one sequence: tokens at consecutive positions."""

    slot: SlotId
    start: int
    """Position of the first token: how many cells the slot has so far."""
    n_tokens: int
    n_outputs: int
    """Compute the logits after this many of its last tokens; 0 <= n_outputs <= n_tokens."""


@attrs.frozen(eq=False)
class Batch:
    """What one decode computes. The runs stand one after the other, each slot at most once."""

    tokens: NDArray[np.int32]
    """(n,) token ids of all runs, in their order"""
    runs: tuple[Run, ...]


class Vocabulary(Protocol):
    """What the output side needs of a vocabulary. Immutable, so any thread may call it."""

    @property
    def n_vocab(self) -> int: ...

    def piece(self, token: TokenId) -> bytes:
        """The token's bytes, a leading space included; a control token's spelling."""
        ...

    def is_control(self, token: TokenId) -> bool: ...

    def is_end_of_generation(self, token: TokenId) -> bool: ...


class ModelRunner(Protocol):
    """One model with its KV memory, owned by the decode thread."""

    @property
    def n_slots(self) -> int: ...

    @property
    def max_batch_tokens(self) -> int:
        """Most tokens in one batch."""
        ...

    @property
    def max_outputs(self) -> int:
        """Most outputs in one batch, all runs together; more than ``n_slots``."""
        ...

    def decode(self, batch: Batch) -> None:
        """Computes the batch and waits for the result.

        Raises OutOfCells, DecodeAborted, InvalidBatch or DecodeFailed; see ``errors`` for the state
        each leaves behind. Any other exception means that the runner is broken.
        """
        ...

    def logits(self, row: int) -> Logits:
        """The logits after the token at index ``row`` of the last batch, which must be one
        of its run's outputs. A read-only view, valid until the next ``decode``."""
        ...

    def truncate(self, slot: SlotId, length: int) -> bool:
        """Keeps the first ``length`` positions of the slot and frees the rest. False when this
        model's memory cannot be cut (recurrent states, sliding windows); it is then unchanged."""
        ...

    def copy(self, source: SlotId, target: SlotId, length: int) -> None:
        """Gives the target, which must be empty, all ``length`` positions of the source. The source
        may be changed or cleared right after. ValueError when slots and length do not fit."""
        ...

    def clear(self, slot: SlotId) -> None:
        """Frees all cells of the slot."""
        ...
