"""A model runner with scripted logits behind the real ``ModelRunner`` protocol.

``FakeRunner`` keeps the tokens of every slot and is as strict about batches as llama.cpp. What
comes after a slot's tokens is up to ``script``. ``failures`` holds exceptions for the next decodes.
"""

from collections import deque
from collections.abc import Callable, Sequence

import attrs
import numpy as np

from tgi_llama.engine.model_runner import Batch, Logits, SlotId
from tgi_llama.errors import DecodeAborted, DecodeError, DecodeFailed, InvalidBatch
from tgi_llama.generation import TokenId

EOS = TokenId(1)

Script = Callable[[Sequence[int]], int | Logits]
"""From the tokens of a slot to the next token, or to a whole row of logits."""


def counting(tokens: Sequence[int]) -> int:
    """The next token is the last one plus one."""
    return tokens[-1] + 1


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
    can_truncate: bool = True
    batches: list[Batch] = attrs.field(factory=list)
    cells: dict[int, list[int]] = attrs.field(init=False)
    before_decode: Callable[[], None] = lambda: None
    _rows: dict[int, Logits] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.cells = {slot: [] for slot in range(self.n_slots)}

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
        self._rows = {}
        row = 0
        for run in batch.runs:
            tokens = self.cells[run.slot]
            if len(tokens) != run.start:
                raise InvalidBatch(f"position {run.start} after {len(tokens)} cells")
            tokens.extend(batch.tokens[row : row + run.n_tokens].tolist())
            row += run.n_tokens
            for n_after in range(run.n_outputs):
                known = tokens[: len(tokens) - n_after]
                self._rows[row - 1 - n_after] = self._logits(known)
        if failure is not None:
            raise failure

    def logits(self, row: int) -> Logits:
        return self._rows[row]

    def truncate(self, slot: SlotId, length: int) -> bool:
        if self.can_truncate:
            del self.cells[slot][length:]
        return self.can_truncate

    def copy(self, source: SlotId, target: SlotId, length: int) -> None:
        if source == target or self.cells[target]:
            raise ValueError(f"slot {target} is not empty")
        if not 0 < length == len(self.cells[source]):
            raise ValueError(f"{length} of {len(self.cells[source])} cells; streams go whole")
        self.cells[target].extend(self.cells[source])

    def clear(self, slot: SlotId) -> None:
        self.cells[slot].clear()

    @property
    def n_cells_used(self) -> int:
        return sum(len(tokens) for tokens in self.cells.values())

    def _check(self, batch: Batch) -> None:
        slots = [run.slot for run in batch.runs]
        assert 0 < batch.tokens.shape[0] <= self.max_batch_tokens
        assert sum(run.n_tokens for run in batch.runs) == batch.tokens.shape[0]
        assert len(set(slots)) == len(slots), "a slot's tokens must stand together"
        assert all(0 <= run.n_outputs <= run.n_tokens for run in batch.runs)
        assert sum(run.n_outputs for run in batch.runs) <= self.max_outputs

    def _logits(self, tokens: Sequence[int]) -> Logits:
        said = self.script(tokens)
        if isinstance(said, int):
            row = np.zeros(self.n_vocab, dtype=np.float32)
            row[said] = 10.0
            return row
        return said
