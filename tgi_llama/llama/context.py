"""A llama.cpp context: one model's KV memory and its decode calls, behind guards.

llama.cpp checks much of its input with assertions that end the process. Everything of that kind
that our input could trigger is checked here first and raised as an exception.
"""

import contextlib
import ctypes
import logging
from types import TracebackType
from typing import Self

import llama_cpp.llama_cpp as native
import numpy as np
from numpy.typing import NDArray

from tgi_llama.config import Config
from tgi_llama.engine.kv_cache import MAX_SLOTS, KvPlan
from tgi_llama.engine.model_runner import Batch, Logits, Run, SlotId
from tgi_llama.errors import (
    DecodeAborted,
    DecodeError,
    DecodeFailed,
    InvalidBatch,
    OutOfCells,
    StartError,
)
from tgi_llama.generation import AdapterId
from tgi_llama.llama.adapters import Adapters, graph_room, switch_seconds
from tgi_llama.llama.backend import NativeLog
from tgi_llama.llama.cell_state import CellState, memory_kind
from tgi_llama.llama.context_params import compare, context_params, read_back
from tgi_llama.llama.model import Model
from tgi_llama.llama.native_batch import NativeBatch

_DECODE_ERRORS: dict[int, tuple[type[DecodeError], str]] = {
    1: (OutOfCells, "no room in the KV memory"),
    2: (DecodeAborted, "aborted between physical batches"),
    -1: (InvalidBatch, "llama.cpp refused the batch"),
    -2: (DecodeFailed, "llama.cpp could not allocate memory"),
    -3: (DecodeFailed, "the computation failed"),
}


# llama.cpp asks its abort callback after every operation of the graph. A Python function there
# would take the interpreter lock thousands of times per decode; C's strlen does as well: of an
# empty string it returns 0, which means go on, and of a character 1.
_STRLEN = ctypes.cast(ctypes.CDLL(None).strlen, native.ggml_abort_callback)

_NOTHING_COMPUTED = (1, -1)
"""Codes after which everything is as it was."""


class Context:
    """Owns a native ``llama_context``; a context manager that frees it. Decode thread only.

    All decodes must come from one OS thread: OpenMP keeps a team of workers per calling thread.
    """

    def __init__(self, model: Model, config: Config, plan: KvPlan, log: NativeLog) -> None:
        """Makes the context. StartError when llama.cpp cannot, or does other than it was asked."""
        if plan.n_slots > MAX_SLOTS:
            raise StartError(f"--max-batch-size: at most {MAX_SLOTS} sequences, not {plan.n_slots}")
        params = context_params(config, plan, n_vocab=model.n_vocab)
        with log.captured() as lines:
            pointer = native.llama_init_from_model(model.pointer, params)
        if not pointer:
            raise StartError(f"llama.cpp could not make a context: {_last_words(lines)}")
        with contextlib.ExitStack() as stack:
            stack.callback(native.llama_free, pointer)
            self.pointer = pointer
            self.facts = read_back(pointer, lines)
            compare(params, self.facts)
            self.plan = plan
            self.adapters = Adapters(model, pointer, graph_room(lines), log)
            self._log = log
            self.switch_s = 0.0
            kind = memory_kind(model.pointer, plan, n_window_cells=self.facts.n_window_cells)
            self.cells = CellState(pointer, plan, kind)
            self._n_vocab = model.n_vocab
            self.max_outputs: int = params.n_outputs_max
            self._batch = NativeBatch(
                self.facts.max_batch_tokens, n_positions=self.facts.cells_per_slot
            )
            self._abort_flag = ctypes.create_string_buffer(2)
            native.llama_set_abort_callback(pointer, _STRLEN, ctypes.addressof(self._abort_flag))
            self._output_index: dict[int, int] = {}
            self._outputs_address = 0
            self._n_output_rows = plan.n_slots
            self._outputs: NDArray[np.float32] = np.empty((0, 0), np.float32)
            self._try_cut()
            stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        native.llama_free(self.pointer)

    def decode(self, batch: Batch) -> None:
        """Computes the batch and waits for it. See ``ModelRunner.decode``."""
        ends = self._check(batch)
        if batch.adapter == self.adapters.current:
            code = native.llama_decode(self.pointer, self._batch.fill(batch))
        else:
            code = self._decode_with_other(batch.adapter, self._batch.fill(batch))
        if code != 0:
            kind, words = _DECODE_ERRORS.get(code, (DecodeFailed, "unknown failure"))
            self.cells.reread(ends, computed=code not in _NOTHING_COMPUTED)
            raise kind(f"{words} (llama_decode returned {code})")
        self.cells.extend(ends)
        self._find_outputs(batch)

    def _decode_with_other(self, adapter: AdapterId | None, batch: native.llama_batch) -> int:
        """Changes the adapter and decodes. What llama.cpp says of its new graphs each time is not
        worth a reader's while; how long they took it says nowhere else."""
        self.adapters.use(adapter)
        with self._log.quiet(below=logging.WARNING), self._log.captured() as lines:
            code: int = native.llama_decode(self.pointer, batch)
        self.switch_s = switch_seconds(lines)
        return code

    def logits(self, row: int) -> Logits:
        """See ``ModelRunner.logits``."""
        index = self._output_index.get(row)
        if index is None:
            raise IndexError(f"no logits were computed for row {row}")
        logits: Logits = self._outputs[index]
        return logits

    def _find_outputs(self, batch: Batch) -> None:
        """Waits for the results and maps the rows of the batch to those of the output buffer,
        where llama.cpp keeps them in batch order."""
        native.llama_synchronize(self.pointer)
        self._output_index = {}
        end = 0
        for run in batch.runs:
            end += run.n_tokens
            for row in range(end - run.n_outputs, end):
                self._output_index[row] = len(self._output_index)
        if self._output_index:
            address = ctypes.addressof(native.llama_get_logits(self.pointer).contents)
            # llama.cpp's buffer has room for one row a slot, or for the most rows there ever were;
            # it moves when it grows.
            n_rows = max(self._n_output_rows, len(self._output_index))
            if address != self._outputs_address or n_rows != self._n_output_rows:
                self._outputs_address = address
                self._n_output_rows = n_rows
                self._outputs = self._view(address, n_rows)

    def _view(self, address: int, n_rows: int) -> "NDArray[np.float32]":
        """llama.cpp's output buffer, shape (n_rows, n_vocab), read-only."""
        shape = (n_rows, self._n_vocab)
        memory = (ctypes.c_float * (shape[0] * shape[1])).from_address(address)
        rows: NDArray[np.float32] = np.frombuffer(memoryview(memory), np.float32).reshape(shape)
        rows.flags.writeable = False
        return rows

    def abort(self) -> None:
        """Makes the running decode and all later ones raise DecodeAborted. For the end; any thread
        may call it. Has no effect on work that is on a GPU already."""
        self._abort_flag[0] = b"\x01"

    def clear(self, slot: SlotId) -> None:
        """Frees all cells of the slot."""
        self.cells.clear(slot)

    def _check(self, batch: Batch) -> dict[int, int]:
        """The slots' new lengths. InvalidBatch for what llama.cpp would abort on or mix up; token
        ids it checks itself, without harm."""
        n = batch.tokens.shape[0]
        if not 0 < n <= self._batch.capacity:
            raise InvalidBatch(f"{n} tokens in a batch of 1 to {self._batch.capacity}")
        if not self.adapters.is_loaded(batch.adapter):
            raise InvalidBatch(f"adapter {batch.adapter} is not loaded")
        ends: dict[int, int] = {}
        for run in batch.runs:
            if not 0 <= run.slot < self.plan.n_slots:
                raise InvalidBatch(f"slot {run.slot} is not in 0 <= slot < {self.plan.n_slots}")
            if run.slot in ends:
                raise InvalidBatch(f"slot {run.slot} is in the batch twice")
            length = self.cells.length(run.slot)
            if run.n_tokens < 1 or run.start != length:
                raise InvalidBatch(
                    f"slot {run.slot} goes on at {length}, "
                    f"the batch has {run.n_tokens} tokens at {run.start}"
                )
            if not 0 <= run.n_outputs <= run.n_tokens:
                raise InvalidBatch(f"{run.n_outputs} outputs of {run.n_tokens} tokens")
            ends[run.slot] = run.start + run.n_tokens
            if ends[run.slot] > self.facts.cells_per_slot:
                raise InvalidBatch(f"slot {run.slot} has only {self.facts.cells_per_slot} cells")
        if sum(run.n_tokens for run in batch.runs) != n:
            raise InvalidBatch(f"the runs do not add up to {n} tokens")
        n_outputs = sum(run.n_outputs for run in batch.runs)
        if n_outputs > self.max_outputs:
            raise InvalidBatch(f"{n_outputs} outputs in a batch of at most {self.max_outputs}")
        return ends

    def _try_cut(self) -> None:
        slot = SlotId(0)
        try:
            for position in range(2):
                token = np.zeros(1, dtype=np.int32)
                self.decode(Batch(token, (Run(slot, position, 1, n_outputs=1),)))
        except DecodeError as error:
            raise StartError(f"the first decode failed: {error}") from error
        self.cells.try_cut(slot)


def _last_words(lines: list[str]) -> str:
    words = [line for line in lines if "failed" in line or "error" in line or "requires" in line]
    return (words or lines or ["no reason was given"])[-1].strip()
