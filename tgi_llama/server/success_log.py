"""The log line of a generation that went well: what was asked for, and where the time went.

TGI's line, field for field, and ours at its end. Prompts and outputs never appear in it, nor stop
strings, which may say what a prompt is about: they are counted.
"""

import logging
from collections.abc import Iterator

import attrs

from tgi_llama.generation import Finish, GenerationRequest, SamplingParameters
from tgi_llama.metrics import GenerationTimes
from tgi_llama.validation.prepared import PreparedGeneration

_log = logging.getLogger(__name__)

_UNITS = ((1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "µs"), (1, "ns"))
"""Nanoseconds of each, the longest first."""


def log_success(prepared: PreparedGeneration, finish: Finish, times: GenerationTimes) -> None:
    """Writes the line. Call it once per generation that ``Metrics.generation_finished`` counts."""
    if not _log.isEnabledFor(logging.INFO):
        return
    adapter = {} if prepared.adapter is None else {"adapter": prepared.adapter}
    _log.info(
        "Success",
        extra={
            "parameters": describe_parameters(prepared.request),
            "total_time": describe_duration(times.total_s),
            "validation_time": describe_duration(times.validation_s),
            "queue_time": describe_duration(times.queue_s),
            "inference_time": describe_duration(times.inference_s),
            "time_per_token": describe_duration(times.per_token_s),
            "seed": prepared.reported_seed,
            "cached_tokens": finish.n_cached_prompt_tokens,
            **adapter,
        },
    )


def describe_parameters(request: GenerationRequest) -> str:
    """The parameters that are not at their defaults: ``{temperature: 0.5, max_new_tokens: 20}``.
    The seed has a field of its own."""
    return "{" + ", ".join(f"{name}: {value}" for name, value in _parameters(request)) + "}"


def describe_duration(seconds: float) -> str:
    """As Rust words it: ``1.5s``, ``12.3ms``, ``850ns``; to the nanosecond."""
    nanoseconds = round(seconds * 1e9)
    size, unit = next((one for one in _UNITS if nanoseconds >= one[0]), _UNITS[-1])
    whole, rest = divmod(nanoseconds, size)
    digits = f"{rest:0{len(str(size)) - 1}d}".rstrip("0") if rest else ""
    return f"{whole}.{digits}{unit}" if digits else f"{whole}{unit}"


def _parameters(request: GenerationRequest) -> Iterator[tuple[str, object]]:
    sampling, stopping = request.sampling, request.stopping
    for field in attrs.fields(SamplingParameters):
        value = getattr(sampling, field.name)
        if field.name not in ("seed", "logit_bias") and value != field.default:
            yield field.name, value
    if sampling.logit_bias:
        yield "n_logit_bias", len(sampling.logit_bias)
    yield "max_new_tokens", stopping.max_new_tokens
    if stopping.stop_strings:
        yield "n_stop_strings", len(stopping.stop_strings)
    if stopping.ignore_eos:
        yield "ignore_eos", True
    if request.constraint is not None:
        yield "grammar", True
    if request.n_top_tokens:
        yield "n_top_tokens", request.n_top_tokens
    if request.prompt_logprobs:
        yield "prompt_logprobs", True
