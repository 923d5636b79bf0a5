"""What llama.cpp is asked for a context, and what it says it made of that.

llama.cpp tells some of it through functions and the rest only in its log. Where the two differ, the
server does not start.
"""

import attrs
import llama_cpp.llama_cpp as native
import numpy as np

from tgi_llama.config import Config
from tgi_llama.engine.kv_cache import KvPlan, plan_kv
from tgi_llama.errors import ConfigError, StartError

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

PROMPT_ROWS_BYTES = 12 * 2**20
"""What the logits of a chunk of a prompt may take, where its logprobs are wanted. 12 MiB are 20
rows of 152k entries or 96 of 32k. Resident memory grows by nearly twice as much, for llama.cpp has
such rows in its compute buffer too: 1.16 MB a row of 152k entries. More would gain little: a prompt
of 246 tokens took 2.38 s in chunks of 20, 2.34 in chunks of 41 and 2.03 in one (0.5 B parameters,
152k entries, one thread), and 1.39 s without logprobs."""

_FLASH_ATTENTION = {
    native.LLAMA_FLASH_ATTN_TYPE_ENABLED: "enabled",
    native.LLAMA_FLASH_ATTN_TYPE_DISABLED: "disabled",
}
"""As llama.cpp logs it."""


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
    n_window_cells: int | None
    """Size of a sliding window's memory (of a stream in the streams layout), if there is one."""


def kv_plan(config: Config) -> KvPlan:
    """How the cells are shared out, for our options."""
    return plan_kv(
        layout=config.kv_layout,
        n_slots=config.max_batch_size,
        cells_per_sequence=config.max_total_tokens,
        n_cells=config.max_batch_total_tokens,
    )


def context_params(config: Config, plan: KvPlan, *, n_vocab: int) -> native.llama_context_params:
    """llama.cpp's context parameters for our options."""
    physical = max(config.max_physical_batch_total_tokens, plan.n_sequences)
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
    params.n_outputs_max = plan.n_sequences + max(1, min(n_prompt_rows, params.n_ubatch))
    params.n_threads = config.n_threads
    params.n_threads_batch = config.n_threads_batch
    params.flash_attn_type = (
        native.LLAMA_FLASH_ATTN_TYPE_ENABLED
        if config.flash_attention
        else native.LLAMA_FLASH_ATTN_TYPE_DISABLED
    )
    params.offload_kqv = config.offload_kqv
    params.swa_full = config.swa_full
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


def read_back(pointer: native.llama_context_p, lines: list[str]) -> ContextFacts:
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
        n_window_cells=_window_cells(lines),
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


def _window_cells(lines: list[str]) -> int | None:
    """From a line like ``creating     SWA KV cache, size = 1024 cells``, in which the spaces set
    off the memory that is made beside one of all positions."""
    for line in lines:
        if "creating     SWA KV cache" in line:
            return int(line.split("size =")[1].split()[0])
    return None


def compare(params: native.llama_context_params, facts: ContextFacts) -> None:
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
