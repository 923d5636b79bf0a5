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


@attrs.frozen(eq=False)
class Batch:
    """What one decode step computes: n tokens of one or more sequences, in batch order.

    The tokens of a sequence stand together and at consecutive positions that continue its cells.
    """

    tokens: NDArray[np.int32]
    """(n,) token ids"""
    positions: NDArray[np.int32]
    """(n,) position of each token in its sequence"""
    slots: NDArray[np.int32]
    """(n,) slot of each token"""
    outputs: NDArray[np.bool_]
    """(n,) True where the logits after this token are wanted"""


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

    def decode(self, batch: Batch) -> None:
        """Computes the batch and waits for the result.

        Raises OutOfCells, DecodeAborted, InvalidBatch or DecodeFailed; see ``errors`` for the state
        each leaves behind. Any other exception means that the runner is broken.
        """
        ...

    def logits(self, row: int) -> Logits:
        """The logits after the token at index ``row`` of the last batch, which must have been
        marked in ``outputs``. A read-only view, valid until the next ``decode``."""
        ...

    def truncate(self, slot: SlotId, length: int) -> bool:
        """Keeps the first ``length`` positions of the slot and frees the rest. False when this
        model's memory cannot be cut (recurrent states, sliding windows); it is then unchanged."""
        ...

    def clear(self, slot: SlotId) -> None:
        """Frees all cells of the slot."""
        ...
