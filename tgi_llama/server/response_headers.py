"""The ``x-*`` headers of generated answers: what was computed, and where the time went."""

from collections.abc import Callable, Sequence

from tgi_llama.metrics import GenerationTimes

from .generations import Collected, Generations


def streamed(generations: Generations, compute_type: str) -> dict[str, str]:
    """What is known before the first token."""
    n_characters = sum(len(member.prepared.prompt) for member in generations.members)
    return {"x-compute-type": compute_type, "x-compute-characters": str(n_characters)}


def collected(results: Sequence[Collected], compute_type: str) -> dict[str, str]:
    """For a whole answer; the values of several generations are summed."""
    return {
        "x-compute-type": compute_type,
        "x-compute-characters": str(sum(len(one.prepared.prompt) for one in results)),
        "x-total-time": _sum_ms(results, lambda times: times.total_s),
        "x-validation-time": _sum_ms(results, lambda times: times.validation_s),
        "x-queue-time": _sum_ms(results, lambda times: times.queue_s),
        "x-inference-time": _sum_ms(results, lambda times: times.inference_s),
        "x-time-per-token": _sum_ms(results, lambda times: times.per_token_s),
        "x-prompt-tokens": str(sum(one.prepared.n_prompt_tokens for one in results)),
        "x-generated-tokens": str(sum(one.finish.n_generated for one in results)),
    }


def with_compute_time(headers: dict[str, str], result: Collected) -> dict[str, str]:
    """TGI has this header, seconds as a decimal number, on all routes but completions."""
    return {**headers, "x-compute-time": f"{result.times.total_s:.9f}".rstrip("0").rstrip(".")}


def _sum_ms(results: Sequence[Collected], seconds: Callable[[GenerationTimes], float]) -> str:
    """Whole milliseconds, each rounded down."""
    return str(sum(int(seconds(one.times) * 1000) for one in results))
