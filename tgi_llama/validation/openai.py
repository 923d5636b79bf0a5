"""What the OpenAI routes ask for, in the terms of ``rules``. Pure functions."""

import attrs

from tgi_llama.errors import SuffixNotSupported
from tgi_llama.generation import TokenId
from tgi_llama.wire.openai_requests import (
    ChatRequest,
    CompletionRequest,
    LogitBias,
    OpenAiRequest,
    Prompt,
    TextFormat,
)

from .rules import (
    Limits,
    RequestedSampling,
    check_max_new_tokens,
    check_sampling,
    check_stop,
    reject,
    reject_unsupported,
)

_MAX_TOP_LOGPROBS = 20
"""OpenAI's own limit."""

_MAX_LOGIT_BIAS = 100.0
"""OpenAI's own limit, either sign: as good as a ban, or as the only choice."""


@attrs.frozen(kw_only=True)
class OpenAiAnswer:
    """What every choice of the answer is to be like; validated."""

    sampling: RequestedSampling
    greedy: bool
    max_new_tokens: int | None
    max_tokens_field: str
    """Under which name ``max_new_tokens`` came."""
    stop: tuple[str, ...]
    ignore_eos: bool
    logprobs: bool
    n_top_logprobs: int
    include_usage: bool
    model: str | None
    """None for the served model's own name."""


def check_openai(
    request: ChatRequest | CompletionRequest, limits: Limits, *, n_vocab: int
) -> OpenAiAnswer:
    """Judges all fields but the prompt. Raises ValidationError; its text is TGI's where TGI has the
    rule, so that ``max_tokens`` is called ``max_new_tokens`` there. The field has OpenAI's name."""
    sampling = _sampling(request, n_vocab=n_vocab)
    stop = (request.stop,) if isinstance(request.stop, str) else request.stop or ()
    max_new_tokens = _max_new_tokens(request)
    max_tokens_field = _max_tokens_field(request)
    check_sampling(sampling, path="", neutral_filters=True)
    check_max_new_tokens(max_new_tokens, field=max_tokens_field)
    check_stop(stop, limits, field="stop")
    n_top_logprobs = _n_top_logprobs(request)
    _check_supported(request)
    logprobs = _wants_logprobs(request)
    return OpenAiAnswer(
        sampling=sampling,
        greedy=request.temperature == 0.0,
        max_new_tokens=max_new_tokens,
        max_tokens_field=max_tokens_field,
        stop=stop,
        ignore_eos=request.ignore_eos,
        logprobs=logprobs,
        n_top_logprobs=n_top_logprobs if logprobs else 0,
        include_usage=request.stream_options is not None and request.stream_options.include_usage,
        # TGI's clients say `tgi` when they do not care.
        model=None if request.model == "tgi" else request.model,
    )


def prompts(prompt: Prompt, *, n_vocab: int) -> tuple[str | tuple[TokenId, ...], ...]:
    """The prompts of a completion call, each a text or token ids. Raises ValidationError."""
    if isinstance(prompt, str):
        return (prompt,)
    if not prompt:
        reject("Empty array detected. Do not use an empty array for the prompt.", field="prompt")
    if all(isinstance(item, int) for item in prompt):
        ids = tuple(item for item in prompt if isinstance(item, int))
        return (_token_ids(ids, n_vocab=n_vocab, field="prompt"),)
    several: list[str | tuple[TokenId, ...]] = []
    for index, item in enumerate(prompt):
        if isinstance(item, int):
            reject("`prompt` cannot mix token ids with texts or lists", field=f"prompt[{index}]")
        if isinstance(item, tuple):
            several.append(_token_ids(item, n_vocab=n_vocab, field=f"prompt[{index}]"))
        else:
            several.append(item)
    return tuple(several)


def _token_ids(ids: tuple[int, ...], *, n_vocab: int, field: str) -> tuple[TokenId, ...]:
    for token in ids:
        if not 0 <= token < n_vocab:
            reject(f"`prompt` token ids must be >= 0 and < {n_vocab}. Given: {token}", field=field)
    return tuple(TokenId(token) for token in ids)


# --- fields ---------------------------------------------------------------------------------------


def _sampling(request: OpenAiRequest, *, n_vocab: int) -> RequestedSampling:
    return RequestedSampling(
        # 0 asks for greedy decoding, where no temperature is in use.
        temperature=request.temperature or None,
        top_k=request.top_k,
        top_p=request.top_p,
        min_p=request.min_p,
        typical_p=request.typical_p,
        repetition_penalty=request.repetition_penalty,
        frequency_penalty=request.frequency_penalty,
        presence_penalty=request.presence_penalty,
        logit_bias=_logit_bias(request.logit_bias, n_vocab=n_vocab),
        seed=request.seed,
    )


def _logit_bias(biases: LogitBias | None, *, n_vocab: int) -> tuple[tuple[TokenId, float], ...]:
    if not biases:
        return ()
    if isinstance(biases, tuple):
        reject("`logit_bias` must be a map from token ids to biases", field="logit_bias")
    return tuple(
        (_bias_token(key, n_vocab=n_vocab), _bias(value, key)) for key, value in biases.items()
    )


def _bias_token(key: str, *, n_vocab: int) -> TokenId:
    # Ten digits are enough for any vocabulary, and `isdecimal` alone knows other scripts' digits.
    if not (key.isascii() and key.isdecimal() and len(key) <= 10 and int(key) < n_vocab):
        reject(
            f"`logit_bias` keys must be token ids >= 0 and < {n_vocab}. Given: {key[:20]!r}",
            field="logit_bias",
        )
    return TokenId(int(key))


def _bias(value: float, key: str) -> float:
    if not -_MAX_LOGIT_BIAS <= value <= _MAX_LOGIT_BIAS:
        reject(
            f"`logit_bias` must be >= -100.0 and <= 100.0. Given: {value}",
            field=f"logit_bias.{key}",
        )
    return value


def _max_new_tokens(request: ChatRequest | CompletionRequest) -> int | None:
    if isinstance(request, CompletionRequest) or request.max_completion_tokens is None:
        return request.max_tokens
    if request.max_tokens not in (None, request.max_completion_tokens):
        reject(
            "`max_tokens` and `max_completion_tokens` must be equal where both are given. "
            f"Given: {request.max_tokens} and {request.max_completion_tokens}",
            field="max_tokens",
        )
    return request.max_completion_tokens


def _max_tokens_field(request: ChatRequest | CompletionRequest) -> str:
    if isinstance(request, CompletionRequest) or request.max_completion_tokens is None:
        return "max_tokens"
    return "max_tokens" if request.max_tokens is not None else "max_completion_tokens"


def _wants_logprobs(request: ChatRequest | CompletionRequest) -> bool:
    if isinstance(request, ChatRequest):
        return request.logprobs
    return request.logprobs is not None


def _n_top_logprobs(request: ChatRequest | CompletionRequest) -> int:
    """Judged also where ``logprobs`` is false, as in TGI."""
    if isinstance(request, ChatRequest):
        name, n_top = "top_logprobs", request.top_logprobs or 0
    else:
        name, n_top = "logprobs", request.logprobs or 0
    if n_top > _MAX_TOP_LOGPROBS:
        reject(f"`{name}` must be >= 0 and <= {_MAX_TOP_LOGPROBS}. Given: {n_top}", field=name)
    return n_top


# --- what is not supported yet --------------------------------------------------------------------


def _check_supported(request: ChatRequest | CompletionRequest) -> None:
    if request.n == 0:
        reject("`n` must be strictly positive", field="n")
    asked_for = {
        "n": request.n is not None and request.n > 1,
        "grammar": request.grammar is not None,
        "watermark": request.watermark,
        "adapter_id": request.adapter_id is not None,
        "guided_json": request.guided_json is not None,
        "guided_regex": request.guided_regex is not None,
        "guided_choice": request.guided_choice is not None,
        "guided_grammar": request.guided_grammar is not None,
    }
    if isinstance(request, ChatRequest):
        asked_for |= _asked_of_chat(request)
    else:
        asked_for |= _asked_of_completion(request)
    for name, is_asked_for in asked_for.items():
        if is_asked_for:
            reject_unsupported(name, field=name)


def _asked_of_chat(request: ChatRequest) -> dict[str, bool]:
    response_format = request.response_format
    return {
        # Without tools the choice has nothing to choose from, and "none" asks for plain chat.
        "tools": bool(request.tools) and request.tool_choice != "none",
        "response_format": not isinstance(response_format, TextFormat | None),
        "modalities": any(name != "text" for name in request.modalities or ()),
        "audio": request.audio is not None,
        "functions": bool(request.functions) and request.function_call != "none",
        "web_search_options": request.web_search_options is not None,
    }


def _asked_of_completion(request: CompletionRequest) -> dict[str, bool]:
    if request.suffix is not None:
        raise SuffixNotSupported(
            "Suffix is not supported and can be achieved by preprocessing the prompt.",
            field="suffix",
        )
    return {
        "best_of": request.best_of is not None and request.best_of > 1,
        "echo": request.echo,
    }
