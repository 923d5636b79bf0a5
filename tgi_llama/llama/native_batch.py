"""The arrays of a ``llama_batch``, allocated once and refilled every step."""

import ctypes

import llama_cpp.llama_cpp as native
import numpy as np

from tgi_llama.engine.model_runner import Batch


class NativeBatch:
    """A ``llama_batch`` of up to ``capacity`` tokens with one sequence each.

    The memory belongs to numpy, which the struct's pointers look into, so nothing must be freed.
    """

    def __init__(self, capacity: int, *, n_positions: int) -> None:
        """``n_positions``: the most positions that a sequence can have."""
        self.capacity = capacity
        self._counting = np.arange(n_positions, dtype=np.int32)
        self._tokens = np.zeros(capacity, dtype=np.int32)
        self._positions = np.zeros(capacity, dtype=np.int32)
        self._slots = np.zeros(capacity, dtype=np.int32)
        self._outputs = np.zeros(capacity, dtype=np.int8)
        self._n_slots = np.ones(capacity, dtype=np.int32)
        # seq_id is an array of pointers, one per token, to that token's list of sequences.
        start = self._slots.ctypes.data
        self._slot_pointers = np.arange(
            start, start + 4 * capacity, self._slots.itemsize, dtype=np.uintp
        )
        self._struct = native.llama_batch(
            n_tokens=0,
            token=_pointer(self._tokens, ctypes.c_int32),
            embd=None,
            pos=_pointer(self._positions, ctypes.c_int32),
            n_seq_id=_pointer(self._n_slots, ctypes.c_int32),
            seq_id=_pointer(self._slot_pointers, ctypes.POINTER(ctypes.c_int32)),
            logits=_pointer(self._outputs, ctypes.c_int8),
        )

    def fill(self, batch: Batch) -> native.llama_batch:
        """The struct holding ``batch``; valid until the next ``fill``."""
        n = batch.tokens.shape[0]
        self._tokens[:n] = batch.tokens
        self._outputs[:n] = 0
        end = 0
        for run in batch.runs:
            start, end = end, end + run.n_tokens
            self._positions[start:end] = self._counting[run.start : run.start + run.n_tokens]
            self._slots[start:end] = run.slot
            self._outputs[end - run.n_outputs : end] = 1
        self._struct.n_tokens = n
        return self._struct


def _pointer(array: "np.ndarray[tuple[int], np.dtype[np.generic]]", kind: type) -> object:
    return ctypes.cast(array.ctypes.data, ctypes.POINTER(kind))
