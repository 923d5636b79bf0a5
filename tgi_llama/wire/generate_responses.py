"""What the native routes answer, their errors and ``/info`` included. The order of fields is the
order of keys on the wire.
"""

import attrs

from tgi_llama.generation import FinishReason, Token

from .fields import F32, OMIT_WHEN_DEFAULT

_OMITTED = {OMIT_WHEN_DEFAULT: True}

# The token object of the wire (`id`, `text`, `logprob`, `special`) is `generation.Token` itself:
# one object per token and event less.


@attrs.frozen
class PrefillToken:
    """A token of the prompt; the first one has no logprob."""

    id: int
    text: str
    logprob: F32 | None


@attrs.frozen(kw_only=True)
class BestOfSequence:
    """A generation of a ``best_of`` call that did not win."""

    generated_text: str
    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    prefill: tuple[PrefillToken, ...] = ()
    tokens: tuple[Token, ...]
    top_tokens: tuple[tuple[Token, ...], ...] = attrs.field(default=(), metadata=_OMITTED)


@attrs.frozen(kw_only=True)
class Details:
    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    """None where the generation was greedy."""
    prefill: tuple[PrefillToken, ...] = ()
    tokens: tuple[Token, ...]
    best_of_sequences: tuple[BestOfSequence, ...] = attrs.field(default=(), metadata=_OMITTED)
    top_tokens: tuple[tuple[Token, ...], ...] = attrs.field(default=(), metadata=_OMITTED)


@attrs.frozen(kw_only=True)
class GenerateResponse:
    generated_text: str
    details: Details | None = attrs.field(default=None, metadata=_OMITTED)


@attrs.frozen(kw_only=True)
class StreamDetails:
    finish_reason: FinishReason
    generated_tokens: int
    seed: int | None
    input_length: int


@attrs.frozen(kw_only=True)
class StreamResponse:
    """One event of a native stream."""

    index: int
    """Counts from 1."""
    token: Token
    top_tokens: tuple[Token, ...] = attrs.field(default=(), metadata=_OMITTED)
    generated_text: str | None = None
    """The whole text; set on the last event only."""
    details: StreamDetails | None = None
    """Set on the last event, where the client asked for it."""


@attrs.frozen(kw_only=True)
class TokenizeEntry:
    """One token of ``/tokenize``; an added special token has an empty span at 0."""

    id: int
    text: str
    start: int
    """Offset of the first byte in the UTF-8 form of ``inputs``."""
    stop: int
    """Offset after the last byte."""


@attrs.frozen(kw_only=True)
class LoraAdapter:
    """A LoRA adapter that requests can ask for."""

    name: str
    scale: F32
    n_bytes: int
    rank: int


@attrs.frozen(kw_only=True)
class Info:
    """``/info``: TGI's keys in TGI's order, then ours."""

    model_id: str
    model_sha: str | None = None
    model_pipeline_tag: str | None = "text-generation"
    max_concurrent_requests: int
    max_best_of: int
    max_stop_sequences: int
    max_input_tokens: int
    max_total_tokens: int
    validation_workers: int
    max_client_batch_size: int
    router: str = "tgi_llama"
    version: str
    sha: str | None = None
    docker_label: str | None = None

    max_top_n_tokens: int
    backend: str
    architecture: str
    description: str
    """Size class and quantization, as llama.cpp words them."""
    n_parameters: int
    size_bytes: int
    n_vocab: int
    n_context_train: int
    n_context: int
    """Cells of the KV memory over all slots."""
    n_slots: int
    kv_layout: str
    max_batch_tokens: int
    physical_batch_tokens: int
    n_threads: int
    n_threads_batch: int
    n_gpu_layers: int
    split_mode: str
    type_k: str
    type_v: str
    flash_attention: str
    mmap: bool
    mlock: bool
    numa: str
    offload_kqv: bool
    kv_device: str
    tool_format: str | None
    """How tool calls are written and read; None where no tools are taken."""
    lora_adapters: tuple[LoraAdapter, ...]


@attrs.frozen(kw_only=True)
class ErrorBody:
    """What the native routes answer when they refuse, and the last event of a failed stream."""

    error: str
    error_type: str
