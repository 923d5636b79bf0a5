"""The seam between the engine and llama.cpp: what the engine needs of a model.

``llama/runner.py`` implements it on the native library, ``tests/fakes`` with scripted logits. The
engine never imports either. All methods are called from the decode thread only, unless a method
says otherwise.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NewType, Protocol

import attrs
import numpy as np
from numpy.typing import NDArray

from tgi_llama.generation import AdapterFacts, AdapterId, TokenId

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
    adapter: AdapterId | None = None
    """The LoRA adapter to compute all of it with; None: the model alone. All cells of the runs'
    slots must have been computed with the same."""


@attrs.frozen(eq=False)
class SavedState:
    """What one slot held, in host memory. Immutable; freed like any other object."""

    length: int
    """Positions."""
    data: NDArray[np.uint8]
    """The model's business alone."""

    @property
    def n_bytes(self) -> int:
        return self.data.nbytes


class Vocabulary(Protocol):
    """What the output side needs of a vocabulary. Immutable, so any thread may call it."""

    @property
    def n_vocab(self) -> int: ...

    def piece(self, token: TokenId) -> bytes:
        """The token's bytes, a leading space included; a control token's spelling."""
        ...

    def is_control(self, token: TokenId) -> bool: ...

    def is_end_of_generation(self, token: TokenId) -> bool: ...

    def end_of_generation_ids(self) -> Sequence[TokenId]:
        """All tokens of which that is true. Takes long the first time."""
        ...


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
        """Most outputs in one batch, all runs together; more than the sequences that may run at a
        time."""
        ...

    def decode(self, batch: Batch) -> None:
        """Computes the batch and waits for the result.

        Raises OutOfCells, DecodeAborted, InvalidBatch or DecodeFailed; see ``errors`` for the state
        each leaves behind. Any other exception means that the runner is broken. Another adapter
        than the one before takes longer: see ``switch_s``.
        """
        ...

    def load_adapter(self, adapter: AdapterId, path: Path, *, scale: float) -> AdapterFacts:
        """Makes the adapter in the file available to batches, applied ``scale`` times. Reads the
        file and so blocks. AdapterError, with everything as it was, where it cannot be; ValueError
        for an id that is in use."""
        ...

    def free_adapter(self, adapter: AdapterId) -> None:
        """Forgets a loaded adapter. Cells that were computed with it must not be used again, which
        is the caller's business. KeyError for one that is not loaded."""
        ...

    @property
    def switch_s(self) -> float:
        """How many seconds the last change of adapters has cost the decode after it; 0 before the
        first."""
        ...

    def logits(self, row: int) -> Logits:
        """The logits after the token at index ``row`` of the last batch, which must be one
        of its run's outputs. A read-only view, valid until the next ``decode``."""
        ...

    @property
    def can_cut(self) -> bool:
        """Whether any slot can be cut to any shorter length at any time. True of plain memories;
        where it is False, ``truncate`` works only sometimes, which ``shortest_cut`` tells."""
        ...

    def length(self, slot: SlotId) -> int:
        """How many positions the slot has. After DecodeAborted and DecodeFailed it may be anything
        from none to what it would have been; where ``can_cut`` is False, that goes for the slots
        that were not in the batch as well."""
        ...

    def shortest_cut(self, slot: SlotId) -> int:
        """The least length, but for 0, to which ``truncate`` can cut the slot now; its own length
        where it cannot be cut. Decodes of any slot may raise it."""
        ...

    def shortest_copy(self, slot: SlotId) -> int:
        """The least length that ``copy`` can copy now, not less than ``shortest_cut``."""
        ...

    def truncate(self, slot: SlotId, length: int) -> bool:
        """Keeps the first ``length`` positions of the slot and frees the rest. True when the slot
        has that length now. False when it is shorter, or when this memory cannot be cut there
        (recurrent states, sliding windows); it is then unchanged. 0 and its own length always
        work."""
        ...

    def copy(self, source: SlotId, target: SlotId, length: int) -> bool:
        """Gives the target, which must be empty, the first ``length`` positions of the source. Done
        when it returns: both slots may be used in any way right after.

        False when this memory cannot give away that length, or has no cells or host memory for
        it; the target is then empty. ValueError when slots and length do not fit. In the unified
        layout the cells are shared and cost nothing, apart from those of a sliding window.
        """
        ...

    def saved_size(self, slot: SlotId) -> int:
        """How many bytes ``save`` would take."""
        ...

    def save(self, slot: SlotId) -> SavedState | None:
        """All that the slot holds, in host memory; the slot keeps it. None when it cannot be read.
        MemoryError when there is no room, ValueError for an empty slot."""
        ...

    def restore(self, slot: SlotId, state: SavedState) -> bool:
        """Fills the slot, which must be empty (ValueError), with a state that this runner saved, of
        whichever slot and however often. False when cells are missing; the slot is then empty.

        A slot with a sliding window can be cut less far afterwards than what was saved could.
        """
        ...

    def clear(self, slot: SlotId) -> None:
        """Frees all cells of the slot."""
        ...
