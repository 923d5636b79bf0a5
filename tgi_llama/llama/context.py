"""A llama.cpp context: one model's KV memory and its decode calls, behind guards.

llama.cpp checks much of its input with assertions that end the process. Everything of that kind
that our input could trigger is checked here first and raised as an exception.
"""

import contextlib
import ctypes
from types import TracebackType
from typing import Self

import attrs
import llama_cpp.llama_cpp as native
import numpy as np
from numpy.typing import NDArray

from tgi_llama.config import Config
from tgi_llama.engine.kv_cache import MAX_SLOTS, KvPlan
from tgi_llama.engine.model_runner import Batch, Logits, SlotId
from tgi_llama.errors import (
    ConfigError,
    DecodeAborted,
    DecodeError,
    DecodeFailed,
    InvalidBatch,
    OutOfCells,
    StartError,
)
from tgi_llama.llama.backend import NativeLog
from tgi_llama.llama.model import Model
from tgi_llama.llama.native_batch import NativeBatch

CACHE_TYPES = {
    "f32": native.GGML_TYPE_F32,
    "f16": native.GGML_TYPE_F16,
    "bf16": 30,  # GGML_TYPE_BF16, which llama-cpp-python does not name
    "q8_0": native.GGML_TYPE_Q8_0,
    "q4_0": native.GGML_TYPE_Q4_0,
    "q4_1": native.GGML_TYPE_Q4_1,
    "iq4_nl": native.GGML_TYPE_IQ4_NL,
    "q5_0": native.GGML_TYPE_Q5_0,
    "q5_1": native.GGML_TYPE_Q5_1,
}
"""What ``llama-server --cache-type-k`` takes (common/arg.cpp); with other types making a context
ends the process or computes nonsense."""

PROMPT_ROWS_BYTES = 24 * 2**20
"""What the logits of a chunk of a prompt may take, where its logprobs are wanted. 24 MiB are 41
rows of 152k entries or 192 of 32k. Resident memory grows by nearly twice as much, for llama.cpp has
such rows in its compute buffer too: 1.16 MB a row of 152k entries. More would gain little: a prompt
of 246 tokens took 2.38 s in chunks of 20, 2.34 in chunks of 41 and 2.03 in one (0.5 B parameters,
152k entries, one thread), and 1.39 s without logprobs."""

_FLASH_ATTENTION = {
    native.LLAMA_FLASH_ATTN_TYPE_ENABLED: "enabled",
    native.LLAMA_FLASH_ATTN_TYPE_DISABLED: "disabled",
}
"""As llama.cpp logs it."""

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


@attrs.frozen(kw_only=True)
class ContextFacts:
    """What llama.cpp says it does, read back after the context was made."""

    n_cells: int
    cells_per_slot: int
    n_slots: int
    max_batch_tokens: int
    physical_batch_tokens: int
    n_threads: int
    n_threads_batch: int
    flash_attention: str
    kv_layout: str
    type_k: str
    type_v: str
    kv_device: str


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
            self.facts = _read_back(pointer, lines)
            _compare(params, self.facts)
            self.plan = plan
            memory = native.llama_get_memory(pointer)
            if memory is None:
                raise StartError("this model has no KV memory, so it cannot generate text")
            self._memory = memory
            self._n_vocab = model.n_vocab
            self.max_outputs: int = params.n_outputs_max
            self._batch = NativeBatch(
                self.facts.max_batch_tokens, n_positions=self.facts.cells_per_slot
            )
            self._lengths = [0] * plan.n_slots
            self._abort_flag = ctypes.create_string_buffer(2)
            native.llama_set_abort_callback(pointer, _STRLEN, ctypes.addressof(self._abort_flag))
            self._output_index: dict[int, int] = {}
            self._outputs_address = 0
            self._n_output_rows = plan.n_slots
            self._outputs: NDArray[np.float32] = np.empty((0, 0), np.float32)
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
        code = native.llama_decode(self.pointer, self._batch.fill(batch))
        if code != 0:
            kind, words = _DECODE_ERRORS.get(code, (DecodeFailed, "unknown failure"))
            self._reread(ends)
            raise kind(f"{words} (llama_decode returned {code})")
        for slot, length in ends.items():
            self._lengths[slot] = length
        self._find_outputs(batch)

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

    def n_cached(self, slot: SlotId) -> int:
        """How many positions of the slot hold cells."""
        return self._lengths[slot]

    def abort(self) -> None:
        """Makes the running decode and all later ones raise DecodeAborted. For the end; any thread
        may call it. Has no effect on work that is on a GPU already."""
        self._abort_flag[0] = b"\x01"

    def clear(self, slot: SlotId) -> None:
        """Frees all cells of the slot."""
        native.llama_memory_seq_rm(self._memory, slot, -1, -1)
        self._lengths[slot] = 0

    def truncate(self, slot: SlotId, length: int) -> bool:
        """See ``ModelRunner.truncate``."""
        if length >= self._lengths[slot]:
            return True
        if not native.llama_memory_seq_rm(self._memory, slot, length, -1):
            return False
        self._lengths[slot] = length
        return True

    def copy(self, source: SlotId, target: SlotId, length: int) -> None:
        """Gives the target the first ``length`` cells of the source; the target must be empty.

        ValueError for a part of a stream: llama.cpp copies streams whole and asserts so.
        """
        if source == target or self._lengths[target] != 0:
            raise ValueError(f"slot {target} cannot take a copy of slot {source}: it is not empty")
        if not 0 < length <= self._lengths[source]:
            raise ValueError(f"slot {source} has {self._lengths[source]} cells, not {length}")
        if not self.plan.unified and length != self._lengths[source]:
            raise ValueError("a stream is copied whole or not at all")
        end = length if self.plan.unified else -1
        native.llama_memory_seq_cp(self._memory, source, target, -1, end)
        self._lengths[target] = length

    def _check(self, batch: Batch) -> dict[int, int]:
        """The slots' new lengths. InvalidBatch for what llama.cpp would abort on or mix up; token
        ids it checks itself, without harm."""
        n = batch.tokens.shape[0]
        if not 0 < n <= self._batch.capacity:
            raise InvalidBatch(f"{n} tokens in a batch of 1 to {self._batch.capacity}")
        ends: dict[int, int] = {}
        for run in batch.runs:
            if not 0 <= run.slot < self.plan.n_slots:
                raise InvalidBatch(f"slot {run.slot} is not in 0 <= slot < {self.plan.n_slots}")
            if run.slot in ends:
                raise InvalidBatch(f"slot {run.slot} is in the batch twice")
            if run.n_tokens < 1 or run.start != self._lengths[run.slot]:
                raise InvalidBatch(
                    f"slot {run.slot} goes on at {self._lengths[run.slot]}, "
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

    def _reread(self, ends: dict[int, int]) -> None:
        for slot in ends:
            self._lengths[slot] = native.llama_memory_seq_pos_max(self._memory, slot) + 1


def context_params(config: Config, plan: KvPlan, *, n_vocab: int) -> native.llama_context_params:
    """llama.cpp's context parameters for our options."""
    physical = max(config.max_physical_batch_total_tokens, plan.n_slots)
    params: native.llama_context_params = native.llama_context_default_params()
    params.n_ctx = plan.n_cells
    params.n_seq_max = plan.n_slots
    params.kv_unified = plan.unified
    params.n_batch = min(physical, plan.n_cells)
    params.n_ubatch = params.n_batch
    # One output per sequence and step, and some for the logprobs of prompts. The default, one per
    # token, costs a vocabulary row of compute buffer per token: 300 MB at 512 tokens and 152k
    # entries.
    n_prompt_rows = PROMPT_ROWS_BYTES // (np.dtype(np.float32).itemsize * n_vocab)
    params.n_outputs_max = plan.n_slots + max(1, min(n_prompt_rows, params.n_ubatch))
    params.n_threads = config.n_threads
    params.n_threads_batch = config.n_threads_batch
    params.flash_attn_type = (
        native.LLAMA_FLASH_ATTN_TYPE_ENABLED
        if config.flash_attention
        else native.LLAMA_FLASH_ATTN_TYPE_DISABLED
    )
    params.offload_kqv = config.offload_kqv
    params.type_k = cache_type("--type-k", config.type_k)
    params.type_v = cache_type("--type-v", config.type_v)
    params.no_perf = True
    return params


def cache_type(option: str, name: str) -> int:
    """The number of a ggml type. ConfigError for one that llama.cpp's KV memory cannot have."""
    if name not in CACHE_TYPES:
        raise ConfigError(
            f"{option}: llama.cpp's KV memory can be {', '.join(CACHE_TYPES)}, not {name}"
        )
    return CACHE_TYPES[name]


def _read_back(pointer: native.llama_context_p, lines: list[str]) -> ContextFacts:
    def logged(name: str) -> str:
        for line in lines:
            key, found, value = line.partition("=")
            if found and key.split(":", 1)[-1].strip() == name:
                return value.strip()
        return "unknown"

    unified = logged("kv_unified")
    return ContextFacts(
        n_cells=native.llama_n_ctx(pointer),
        cells_per_slot=native.llama_n_ctx_seq(pointer),
        n_slots=native.llama_n_seq_max(pointer),
        max_batch_tokens=native.llama_n_batch(pointer),
        physical_batch_tokens=native.llama_n_ubatch(pointer),
        n_threads=native.llama_n_threads(pointer),
        n_threads_batch=native.llama_n_threads_batch(pointer),
        flash_attention=logged("flash_attn"),
        kv_layout={"true": "unified", "false": "streams"}.get(unified, unified),
        type_k=_cache_type(lines, "K ("),
        type_v=_cache_type(lines, "V ("),
        kv_device=_kv_device(lines),
    )


def _cache_type(lines: list[str], marker: str) -> str:
    """The type in llama.cpp's line on the KV memory: ``K (f16): 1.0 MiB, V (f16): 1.0 MiB``."""
    for line in lines:
        if "K (" in line and "V (" in line:
            return line.split(marker, 1)[1].split(")", 1)[0]
    return "unknown"  # a recurrent memory has no such line


def _kv_device(lines: list[str]) -> str:
    """The devices in lines like ``llama_kv_cache:    CPU KV buffer size =    16.00 MiB``."""
    marker = " KV buffer size"
    names = [line.split(marker)[0].split(":")[-1].strip() for line in lines if marker in line]
    return ", ".join(dict.fromkeys(names)) or "unknown"


def _compare(params: native.llama_context_params, facts: ContextFacts) -> None:
    """StartError when llama.cpp runs with other numbers than it was given."""
    asked_and_given: dict[str, tuple[object, object]] = {
        "--max-batch-total-tokens": (params.n_ctx, facts.n_cells),
        "--max-batch-size": (params.n_seq_max, facts.n_slots),
        "--max-physical-batch-total-tokens": (params.n_ubatch, facts.physical_batch_tokens),
        "--n-threads": (params.n_threads, facts.n_threads),
        "--n-threads-batch": (params.n_threads_batch, facts.n_threads_batch),
        "--disable-flash-attention": (
            _FLASH_ATTENTION[params.flash_attn_type],
            facts.flash_attention,
        ),
        "--kv-layout": ("unified" if params.kv_unified else "streams", facts.kv_layout),
        "--type-k": (params.type_k, CACHE_TYPES.get(facts.type_k, params.type_k)),
        "--type-v": (params.type_v, CACHE_TYPES.get(facts.type_v, params.type_v)),
    }
    for option, (asked, given) in asked_and_given.items():
        if given not in (asked, "unknown"):  # a recurrent memory, say, has no log line for it
            raise StartError(f"{option}: llama.cpp runs with {given} where {asked} was asked")


def _last_words(lines: list[str]) -> str:
    words = [line for line in lines if "failed" in line or "error" in line or "requires" in line]
    return (words or lines or ["no reason was given"])[-1].strip()
