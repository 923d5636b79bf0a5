"""The ``x-*`` headers of generated answers: what was computed, and where the time went.

Values of several generations are summed; those of a prompt are counted once, however many
generations it has.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import quote

from tgi_llama.metrics import GenerationTimes
from tgi_llama.validation.prepared import PreparedGeneration

from .generations import Collected, Generations, n_cached, one_per_prompt
from .header_names import GRAMMAR_WARNINGS

_MOST_WARNINGS = 10
_LONGEST_PATH = 200
"""Characters. Some clients and proxies take no more than 4 KiB of headers."""


def streamed(generations: Generations, compute_type: str) -> dict[str, str]:
    """What is known before the first token."""
    validation_times = (member.submitted - member.received for member in generations.members)
    return {
        "x-compute-type": compute_type,
        "x-compute-characters": _n_characters(generations.prepared),
        "x-validation-time": _sum_ms(validation_times),
        "x-prompt-tokens": _n_prompt_tokens(generations.prepared),
        **_grammar_warnings(generations.prepared),
    }


def collected(
    results: Sequence[Collected], all_results: Sequence[Collected], compute_type: str
) -> dict[str, str]:
    """For a whole answer that shows ``results``, at least one of each prompt, of all that were
    generated."""

    def sum_ms(seconds: Callable[[GenerationTimes], float]) -> str:
        return _sum_ms(seconds(one.times) for one in results)

    prepared = [one.prepared for one in results]
    return {
        "x-compute-type": compute_type,
        "x-compute-characters": _n_characters(prepared),
        "x-total-time": sum_ms(lambda times: times.total_s),
        "x-validation-time": sum_ms(lambda times: times.validation_s),
        "x-queue-time": sum_ms(lambda times: times.queue_s),
        "x-inference-time": sum_ms(lambda times: times.inference_s),
        "x-time-per-token": sum_ms(lambda times: times.per_token_s),
        "x-prompt-tokens": _n_prompt_tokens(prepared),
        "x-generated-tokens": str(sum(one.finish.n_generated for one in results)),
        "x-cached-tokens": str(n_cached(one.cached for one in all_results)),
        **_grammar_warnings(prepared),
    }


def with_compute_time(headers: dict[str, str], results: Sequence[Collected]) -> dict[str, str]:
    """TGI has this header, seconds as a decimal number, on all routes but completions."""
    total_s = sum(one.times.total_s for one in results)
    return {**headers, "x-compute-time": f"{total_s:.9f}".rstrip("0").rstrip(".")}


def _grammar_warnings(prepared: Iterable[PreparedGeneration]) -> dict[str, str]:
    paths = dict.fromkeys(path for one in prepared for path in one.relaxed_paths)
    if not paths:
        return {}
    listed = [quote(path, safe="$.[]/") for path in itertools.islice(paths, _MOST_WARNINGS)]
    if len(paths) > _MOST_WARNINGS:
        listed.append("...")
    return {GRAMMAR_WARNINGS: ", ".join(path[:_LONGEST_PATH] for path in listed)}


def _n_characters(prepared: Iterable[PreparedGeneration]) -> str:
    return str(sum(len(one.prompt) for one in one_per_prompt(prepared)))


def _n_prompt_tokens(prepared: Iterable[PreparedGeneration]) -> str:
    return str(sum(one.n_prompt_tokens for one in one_per_prompt(prepared)))


def _sum_ms(seconds: Iterable[float]) -> str:
    """Whole milliseconds, each rounded down."""
    return str(sum(int(one * 1000) for one in seconds))
