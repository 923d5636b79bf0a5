"""A model runner with scripted logits behind the real ``ModelRunner`` protocol.

``FakeRunner`` keeps the tokens of every slot and is as strict about batches as llama.cpp. What
comes after a slot's tokens is up to ``script``. ``failures`` holds exceptions for the next decodes.
``layout`` and ``can_cut`` say which kind of memory it plays. Every slot and every saved state knows
with which adapter its cells were computed, and they are used with no other.
"""

import functools
import itertools
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from weakref import WeakKeyDictionary

import attrs
import numpy as np
from numpy.typing import NDArray

from tgi_llama.engine.model_runner import Batch, Logits, SavedState, SlotId
from tgi_llama.errors import (
    AdapterError,
    DecodeAborted,
    DecodeError,
    DecodeFailed,
    InvalidBatch,
    OutOfCells,
)
from tgi_llama.generation import AdapterFacts, AdapterId, TokenId

EOS = TokenId(1)

Script = Callable[[Sequence[int]], int | Logits]
"""From the tokens of a slot to the next token, or to a whole row of logits."""


def under(adapter: AdapterId | None, tokens: Sequence[int]) -> Sequence[int]:
    """What a script is asked for tokens that are computed with an adapter."""
    return tokens if adapter is None else [-1 - adapter, *tokens]


def counting(tokens: Sequence[int]) -> int:
    """The next token is the last one plus one."""
    return tokens[-1] + 1


def noisy(tokens: Sequence[int]) -> Logits:
    """Logits that all tokens together decide, with several likely ones."""
    return _noise(tuple(tokens))


@functools.lru_cache(maxsize=100_000)
def _noise(tokens: tuple[int, ...]) -> Logits:
    rng = np.random.default_rng(zlib.crc32(repr(tokens).encode()))
    row = rng.normal(scale=2.0, size=64).astype(np.float32)
    row.flags.writeable = False
    return row


@attrs.define(eq=False)
class FakeVocabulary:
    """Token 0 is a control token, token 1 ends the generation, the others are letters."""

    n_vocab: int = 64
    pieces: dict[int, bytes] = attrs.field(factory=dict)

    def piece(self, token: TokenId) -> bytes:
        named = {0: b"<control>", 1: b"<end>"}
        return self.pieces.get(token) or named.get(token) or bytes([ord("A") + token % 26])

    def is_control(self, token: TokenId) -> bool:
        return token <= 1

    def is_end_of_generation(self, token: TokenId) -> bool:
        return token == EOS

    def end_of_generation_ids(self) -> list[TokenId]:
        return [EOS]


@attrs.define(eq=False)
class FakeRunner:
    n_slots: int = 4
    max_batch_tokens: int = 16
    n_prompt_rows: int = 4
    """Outputs in a batch beyond one for each slot."""
    n_vocab: int = 64
    script: Script = counting
    failures: deque[DecodeError | Exception | None] = attrs.field(factory=deque)
    """Taken one per decode; None lets that decode work."""
    layout: str = "streams"
    """``streams`` or ``unified``, where copies share their source's cells."""
    can_cut: bool = True
    """False plays a recurrent state: only all of a slot can be kept, copied or cut."""
    n_cells: int | None = None
    """Cells in all (unified) or of a slot (streams); None: any number."""
    n_bytes_free: int | None = None
    """Host memory for saved states; beyond it ``save`` raises MemoryError. None: any amount."""
    batches: list[Batch] = attrs.field(factory=list)
    cells: dict[int, list[int]] = attrs.field(init=False)
    """The tokens of each slot."""
    before_decode: Callable[[], None] = lambda: None
    switch_s: float = 0.0
    adapters: dict[AdapterId, tuple[Path, float]] = attrs.field(factory=dict)
    """The loaded ones: file and scale. A file named ``bad...`` is not an adapter."""
    n_switches: int = 0
    made_with: dict[int, AdapterId | None] = attrs.field(init=False)
    """The adapter of each slot's cells."""
    _saved_with: "WeakKeyDictionary[SavedState, AdapterId | None]" = attrs.field(
        factory=WeakKeyDictionary, init=False
    )
    _adapter: AdapterId | None = attrs.field(default=None, init=False)
    _owned: dict[int, list[int]] = attrs.field(init=False)
    """The cells that those tokens are in."""
    _new_cells: "itertools.count[int]" = attrs.field(factory=itertools.count, init=False)
    _rows: dict[int, Logits] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        assert self.layout in ("streams", "unified")
        self.cells = {slot: [] for slot in range(self.n_slots)}
        self._owned = {slot: [] for slot in range(self.n_slots)}
        self.made_with = dict.fromkeys(range(self.n_slots))

    @property
    def max_outputs(self) -> int:
        return self.n_slots + self.n_prompt_rows

    def decode(self, batch: Batch) -> None:
        self.before_decode()
        self.batches.append(batch)
        failure = self.failures.popleft() if self.failures else None
        if failure is not None and not isinstance(failure, DecodeAborted | DecodeFailed):
            raise failure  # those two leave cells behind
        self._check(batch)
        self.n_switches += batch.adapter != self._adapter
        self._adapter = batch.adapter
        self._rows = {}
        row = 0
        for run in batch.runs:
            tokens = self.cells[run.slot]
            self.made_with[run.slot] = batch.adapter
            self._fill(run.slot, batch.tokens[row : row + run.n_tokens].tolist())
            row += run.n_tokens
            for n_after in range(run.n_outputs):
                known = tokens[: len(tokens) - n_after]
                self._rows[row - 1 - n_after] = self._logits(under(batch.adapter, known))
        if failure is not None:
            if not self.can_cut:
                for slot in self.cells:
                    self.clear(SlotId(slot))
            raise failure

    def load_adapter(self, adapter: AdapterId, path: Path, *, scale: float) -> AdapterFacts:
        if adapter in self.adapters:
            raise ValueError(f"adapter {adapter} is loaded already")
        if path.name.startswith("bad"):
            raise AdapterError(f"{path} is not an adapter")
        self.adapters[adapter] = (path, scale)
        return AdapterFacts(n_bytes=1000, n_weights=2, rank=4)

    def free_adapter(self, adapter: AdapterId) -> None:
        del self.adapters[adapter]
        assert adapter not in self.adapters_of_cells(), "cells are left that nobody may use"

    def adapters_of_cells(self) -> set[AdapterId | None]:
        """With which adapters the cells in slots and in saved states that still exist were made."""
        in_slots = {self.made_with[slot] for slot, cells in self.cells.items() if cells}
        return in_slots | set(self._saved_with.values())

    def logits(self, row: int) -> Logits:
        return self._rows[row]

    def length(self, slot: SlotId) -> int:
        return len(self.cells[slot])

    def shortest_cut(self, slot: SlotId) -> int:
        return min(1, self.length(slot)) if self.can_cut else self.length(slot)

    def shortest_copy(self, slot: SlotId) -> int:
        return self.shortest_cut(slot)

    def truncate(self, slot: SlotId, length: int) -> bool:
        if length < 0:
            raise ValueError(f"slot {slot} cannot have {length} positions")
        if length > self.length(slot) or 0 < length < self.shortest_cut(slot):
            return False
        del self.cells[slot][length:], self._owned[slot][length:]
        return True

    def copy(self, source: SlotId, target: SlotId, length: int) -> bool:
        if source == target or self.cells[target]:
            raise ValueError(f"slot {target} is not empty")
        if not 0 < length <= self.length(source):
            raise ValueError(f"slot {source} has {self.length(source)} positions, not {length}")
        if length < self.shortest_copy(source):
            return False
        self.made_with[target] = self.made_with[source]
        if self.layout == "unified":
            self.cells[target].extend(self.cells[source][:length])
            self._owned[target].extend(self._owned[source][:length])
        else:
            self._fill(target, self.cells[source][:length])
        return True

    def saved_size(self, slot: SlotId) -> int:
        return 4 * self.length(slot)

    def save(self, slot: SlotId) -> SavedState | None:
        data = self._tokens_as_bytes(slot)
        if self.n_bytes_free is not None and data.nbytes > self.n_bytes_free:
            raise MemoryError(f"{data.nbytes} bytes")
        state = SavedState(self.length(slot), data)
        self._saved_with[state] = self.made_with[slot]
        return state

    def restore(self, slot: SlotId, state: SavedState) -> bool:
        if self.cells[slot]:
            raise ValueError(f"slot {slot} is not empty")
        if not self._has_room(slot, state.length):
            return False
        self.made_with[slot] = self._saved_with[state]
        self._fill(slot, state.data.view(np.int32).tolist())
        return True

    def clear(self, slot: SlotId) -> None:
        self.cells[slot].clear()
        self._owned[slot].clear()

    @property
    def n_cells_used(self) -> int:
        """Different cells."""
        return len(set(itertools.chain.from_iterable(self._owned.values())))

    def _fill(self, slot: int, tokens: Sequence[int]) -> None:
        self.cells[slot].extend(tokens)
        self._owned[slot].extend(itertools.islice(self._new_cells, len(tokens)))

    def _has_room(self, slot: int, n_more: int) -> bool:
        n_used = self.n_cells_used if self.layout == "unified" else len(self.cells[slot])
        return self.n_cells is None or n_used + n_more <= self.n_cells

    def _tokens_as_bytes(self, slot: SlotId) -> NDArray[np.uint8]:
        if not self.cells[slot]:
            raise ValueError(f"slot {slot} is empty")
        data = np.array(self.cells[slot], dtype=np.int32).view(np.uint8)
        data.flags.writeable = False
        return data

    def _check(self, batch: Batch) -> None:
        slots = [run.slot for run in batch.runs]
        assert 0 < batch.tokens.shape[0] <= self.max_batch_tokens
        assert sum(run.n_tokens for run in batch.runs) == batch.tokens.shape[0]
        assert len(set(slots)) == len(slots), "a slot's tokens must stand together"
        assert all(0 <= run.n_outputs <= run.n_tokens for run in batch.runs)
        assert sum(run.n_outputs for run in batch.runs) <= self.max_outputs
        if batch.adapter is not None and batch.adapter not in self.adapters:
            raise InvalidBatch(f"adapter {batch.adapter} is not loaded")
        for run in batch.runs:
            is_own = not self.cells[run.slot] or self.made_with[run.slot] == batch.adapter
            assert is_own, f"slot {run.slot} has cells of another adapter"
            if self.length(run.slot) != run.start:
                raise InvalidBatch(f"position {run.start} after {self.length(run.slot)} cells")
            if self.layout == "streams" and not self._has_room(run.slot, run.n_tokens):
                raise InvalidBatch(f"slot {run.slot} has only {self.n_cells} cells")
        if self.layout == "unified" and not self._has_room(0, batch.tokens.shape[0]):
            raise OutOfCells(f"{self.n_cells_used} of {self.n_cells} cells are used")

    def _logits(self, tokens: Sequence[int]) -> Logits:
        said = self.script(tokens)
        if isinstance(said, int):
            row = np.zeros(self.n_vocab, dtype=np.float32)
            row[said] = 10.0
            return row
        return said
