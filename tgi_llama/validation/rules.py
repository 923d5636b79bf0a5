"""The rules that a request's numbers must meet, with TGI's texts and in TGI's order.

Pure functions over plain values, shared by the native and the OpenAI routes. A ValidationError's
message comes without TGI's prefix ``Input validation error: ``, which the server adds.
"""

from typing import NoReturn

import attrs

from tgi_llama.errors import ValidationError
from tgi_llama.generation import SamplingParameters, TokenId


@attrs.frozen(kw_only=True)
class Limits:
    """What the server was configured to allow one request. All counts in tokens or items."""

    max_input_tokens: int
    max_total_tokens: int
    """Most prompt and generated tokens together."""
    max_best_of: int = 2
    max_stop_sequences: int = 4
    max_top_n_tokens: int = 5
    """On the native routes; OpenAI's ``top_logprobs`` has its own limit of 20."""
    max_client_batch_size: int = 32
    """Most prompts in one call of ``/v1/completions``, and most choices of one prompt."""
    grammar_support: bool = True


@attrs.frozen(kw_only=True)
class RequestedSampling:
    """The sampling fields of a request as the client sent them; None where it sent none."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: tuple[tuple[TokenId, float], ...] = ()
    watermark: bool = False
    seed: int | None = None

    @property
    def narrows(self) -> bool:
        """True when a field is set that has a meaning only while sampling."""
        fields = (self.temperature, self.top_k, self.top_p, self.typical_p)
        return any(field is not None for field in fields)

    @property
    def differs_from_neutral(self) -> bool:
        """True when one of these fields alone makes TGI sample without ``do_sample``."""
        return (
            self.temperature not in (None, 1.0)
            or self.top_k not in (None, 0)
            or (self.top_p is not None and self.top_p < 1.0)
            or (self.typical_p is not None and self.typical_p < 1.0)
        )

    def parameters(self, *, greedy: bool, seed: int) -> SamplingParameters:
        """The engine's form. A greedy request keeps only what changes the largest logit."""
        penalties = SamplingParameters(
            greedy=greedy,
            repetition_penalty=_default(self.repetition_penalty, 1.0),
            frequency_penalty=_default(self.frequency_penalty, 0.0),
            presence_penalty=_default(self.presence_penalty, 0.0),
            logit_bias=self.logit_bias,
            watermark=self.watermark,
        )
        if greedy:
            return penalties
        return attrs.evolve(
            penalties,
            temperature=_default(self.temperature, 1.0),
            top_k=self.top_k or 0,
            top_p=_default(self.top_p, 1.0),
            min_p=_default(self.min_p, 0.0),
            typical_p=_default(self.typical_p, 1.0),
            seed=seed,
        )


def _default(value: float | None, default: float) -> float:
    return default if value is None else value


def reject(message: str, *, field: str | None = None) -> NoReturn:
    """Raises ValidationError; ``field`` is the JSON path of the culprit."""
    raise ValidationError(message, field=field)


def reject_unsupported(name: str, *, field: str) -> NoReturn:
    """Refuses what is understood but not implemented, rather than ignoring it."""
    reject(f"`{name}` is not supported by this server", field=field)


def check_sampling(requested: RequestedSampling, *, path: str, neutral_filters: bool) -> None:
    """Rules 2 to 7. ``path`` stands before the name of each field. ``neutral_filters``: take 1 for
    ``top_p`` and ``typical_p`` ("off"), as OpenAI's clients send it; TGI refuses it."""
    _check_strictly_positive(requested.temperature, "temperature", path=path)
    _check_strictly_positive(requested.repetition_penalty, "repetition_penalty", path=path)
    _check_penalty(requested.frequency_penalty, "frequency_penalty", path=path)
    for value, name in ((requested.top_p, "top_p"), (requested.typical_p, "typical_p")):
        _check_mass(value, name, path=path, one_is_off=neutral_filters)
    _check_strictly_positive(requested.top_k, "top_k", path=path)
    _check_penalty(requested.presence_penalty, "presence_penalty", path=path)
    if requested.min_p is not None and not 0.0 <= requested.min_p <= 1.0:
        reject("`min_p` must be >= 0.0 and <= 1.0", field=f"{path}min_p")


def _check_strictly_positive(value: float | None, name: str, *, path: str) -> None:
    if value is not None and value <= 0:
        reject(f"`{name}` must be strictly positive", field=f"{path}{name}")


def _check_penalty(value: float | None, name: str, *, path: str) -> None:
    if value is not None and not -2.0 <= value <= 2.0:
        reject(f"`{name}` must be >= -2.0 and <= 2.0", field=f"{path}{name}")


def _check_mass(value: float | None, name: str, *, path: str, one_is_off: bool) -> None:
    if value is None or 0.0 < value < 1.0 or (one_is_off and value == 1.0):
        return
    upper = "<= 1.0" if one_is_off else "< 1.0"
    reject(f"`{name}` must be > 0.0 and {upper}", field=f"{path}{name}")


def check_max_new_tokens(value: int | None, *, field: str) -> None:
    """Rule 8."""
    if value == 0:
        reject("`max_new_tokens` must be strictly positive", field=field)


def check_stop(stop: tuple[str, ...], limits: Limits, *, field: str) -> None:
    """Rule 9."""
    if len(stop) > limits.max_stop_sequences:
        reject(
            f"`stop` supports up to {limits.max_stop_sequences} stop sequences. Given: {len(stop)}",
            field=field,
        )


def token_budget(
    requested: int | None,
    limits: Limits,
    *,
    n_prompt_tokens: int,
    prompt_field: str,
    budget_field: str,
) -> int:
    """Rules 16 and 17; returns the number of tokens to generate, at least 1. Without a request the
    context is filled. The fields are JSON paths, to name the culprit: the prompt where it is too
    long by itself."""
    room = limits.max_total_tokens - n_prompt_tokens
    budget = max(room, 1) if requested is None else requested
    if budget > room:
        reject(
            f"`inputs` tokens + `max_new_tokens` must be <= {limits.max_total_tokens}. "
            f"Given: {n_prompt_tokens} `inputs` tokens and {budget} `max_new_tokens`",
            field=budget_field if n_prompt_tokens <= limits.max_input_tokens else prompt_field,
        )
    if n_prompt_tokens > limits.max_input_tokens:
        reject(
            f"`inputs` must have less than {limits.max_input_tokens} tokens. "
            f"Given: {n_prompt_tokens}",
            field=prompt_field,
        )
    return budget
