"""What the OpenAI routes ask for, in the terms of ``rules``. Pure functions."""

import attrs

from tgi_llama.generation import TokenId
from tgi_llama.wire.openai_requests import (
    MAX_LOGIT_BIAS,
    MAX_TOP_LOGPROBS,
    ChatRequest,
    CompletionRequest,
    LogitBias,
    OpenAiRequest,
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
    n_branches: int
    n_shown: int
    is_ranked: bool
    """The generations of a prompt are compared by their logprobs, shown or not."""
    echo: bool
    echo_only: bool
    """Nothing is to be generated. ``max_new_tokens`` is 1 then: the engine always chooses one."""


def check_branches(
    request: ChatRequest | CompletionRequest, limits: Limits, *, streaming: bool
) -> None:
    """``n`` and ``best_of``, which may be as many as a call may have prompts."""
    most = limits.max_client_batch_size
    best_of = _best_of(request)
    for name, value in (("n", request.n), ("best_of", best_of)):
        if value is not None and not 0 < value <= most:
            reject(f"`{name}` must be > 0 and <= {most}. Given: {value}", field=name)
    n_shown = request.n or 1
    if best_of is not None and best_of < n_shown:
        reject(f"`best_of` must be >= `n`. Given: {best_of} and {n_shown}", field="best_of")
    if streaming and best_of is not None and best_of > n_shown:
        reject("`best_of` != `n` is not supported when streaming tokens", field="best_of")


def check_openai(
    request: ChatRequest | CompletionRequest, limits: Limits, *, n_vocab: int
) -> OpenAiAnswer:
    """Judges all fields but the prompt, the tools, the response format and what ``check_branches``
    has judged. Raises ValidationError; its text is TGI's where TGI has the rule, so that
    ``max_tokens`` is called ``max_new_tokens`` there. The field has OpenAI's name."""
    sampling = _sampling(request, n_vocab=n_vocab)
    stop = (request.stop,) if isinstance(request.stop, str) else request.stop or ()
    max_new_tokens = _max_new_tokens(request)
    max_tokens_field = _max_tokens_field(request)
    echo = _has_echo(request)
    echo_only = echo and max_new_tokens == 0
    check_sampling(sampling, path="", neutral_filters=True)
    if not echo_only:
        check_max_new_tokens(max_new_tokens, field=max_tokens_field)
    check_stop(stop, limits, field="stop")
    n_top_logprobs = _n_top_logprobs(request)
    if isinstance(request, ChatRequest):
        _check_supported(request)
    logprobs = _wants_logprobs(request)
    return OpenAiAnswer(
        sampling=sampling,
        greedy=request.temperature == 0.0,
        max_new_tokens=1 if echo_only else max_new_tokens,
        max_tokens_field=max_tokens_field,
        stop=stop,
        ignore_eos=request.ignore_eos,
        logprobs=logprobs,
        n_top_logprobs=n_top_logprobs if logprobs else 0,
        include_usage=request.stream_options is not None and request.stream_options.include_usage,
        # TGI's clients say `tgi` when they do not care.
        model=None if request.model == "tgi" else request.model,
        n_branches=_best_of(request) or request.n or 1,
        n_shown=request.n or 1,
        is_ranked=(_best_of(request) or 1) > 1,
        echo=echo,
        echo_only=echo_only,
    )


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
        watermark=request.watermark,
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
    if not -MAX_LOGIT_BIAS <= value <= MAX_LOGIT_BIAS:
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


def _best_of(request: ChatRequest | CompletionRequest) -> int | None:
    return request.best_of if isinstance(request, CompletionRequest) else None


def _has_echo(request: ChatRequest | CompletionRequest) -> bool:
    if isinstance(request, ChatRequest) or not request.echo:
        return False
    if request.suffix is not None and _wants_logprobs(request):
        # The prompt's tokens are then more than those of the text that is echoed.
        reject("`suffix` is not supported with both `echo` and `logprobs`", field="suffix")
    return True


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
    if n_top > MAX_TOP_LOGPROBS:
        reject(f"`{name}` must be >= 0 and <= {MAX_TOP_LOGPROBS}. Given: {n_top}", field=name)
    return n_top


# --- what is not supported yet --------------------------------------------------------------------


def _check_supported(request: ChatRequest) -> None:
    asked_for = {
        "modalities": any(name != "text" for name in request.modalities or ()),
        "audio": request.audio is not None,
        "functions": bool(request.functions) and request.function_call != "none",
        "web_search_options": request.web_search_options is not None,
        "prediction": request.prediction is not None,
        "moderation": request.moderation is not None,
    }
    for name, is_asked_for in asked_for.items():
        if is_asked_for:
            reject_unsupported(name, field=name)
