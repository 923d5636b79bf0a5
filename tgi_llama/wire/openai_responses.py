"""What the OpenAI routes answer. The order of fields is the order of keys on the wire."""

from collections.abc import Mapping
from typing import Literal

import attrs

from .fields import F32, OMIT_WHEN_DEFAULT

_OMITTED = {OMIT_WHEN_DEFAULT: True}

OpenAiFinishReason = Literal["stop", "length", "tool_calls"]


@attrs.frozen(kw_only=True)
class PromptTokensDetails:
    cached_tokens: int
    """Tokens of the prompts that an earlier request had computed already."""


@attrs.frozen(kw_only=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


@attrs.frozen
class TopLogprob:
    token: str
    logprob: F32


@attrs.frozen
class TokenLogprob:
    token: str
    logprob: F32
    top_logprobs: tuple[TopLogprob, ...] = ()


@attrs.frozen
class ChatLogprobs:
    content: tuple[TokenLogprob, ...]


@attrs.frozen(kw_only=True)
class CompletionLogprobs:
    """The parallel lists of text completions, one entry per token: the prompt's where it is echoed,
    then the generated ones."""

    tokens: tuple[str, ...]
    token_logprobs: tuple[F32 | None, ...]
    """None for the first token of a prompt."""
    top_logprobs: tuple[Mapping[str, F32] | None, ...] | None
    """An entry is None for the first token of a prompt; all of it where none were asked for."""
    text_offset: tuple[int, ...]
    """Where each token begins, in characters of the text."""


@attrs.frozen(kw_only=True)
class FunctionCall:
    name: str
    arguments: str
    """A JSON text."""


@attrs.frozen(kw_only=True)
class ToolCall:
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


@attrs.frozen(kw_only=True)
class FunctionCallDelta:
    name: str | None = attrs.field(default=None, metadata=_OMITTED)
    """In the first piece of a call only."""
    arguments: str
    """A piece of a JSON text."""


@attrs.frozen(kw_only=True)
class ToolCallDelta:
    """The first piece of a call has ``id``, ``type`` and name; the others have arguments alone.
    Clients put equal keys together by joining their texts, so nothing may come twice."""

    index: int
    id: str | None = attrs.field(default=None, metadata=_OMITTED)
    type: Literal["function"] | None = attrs.field(default=None, metadata=_OMITTED)
    function: FunctionCallDelta


@attrs.frozen(kw_only=True)
class ChatMessage:
    """The model's turn."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    """None where there are tool calls and no text."""
    reasoning_content: str | None = attrs.field(default=None, metadata=_OMITTED)
    """What the model thought before it answered."""
    tool_calls: tuple[ToolCall, ...] = attrs.field(default=(), metadata=_OMITTED)


@attrs.frozen(kw_only=True)
class ChatDelta:
    """A piece of the model's turn. TGI's clients expect the role in every one."""

    role: Literal["assistant"] = "assistant"
    content: str | None = attrs.field(default=None, metadata=_OMITTED)
    reasoning_content: str | None = attrs.field(default=None, metadata=_OMITTED)
    tool_calls: tuple[ToolCallDelta, ...] = attrs.field(default=(), metadata=_OMITTED)


@attrs.frozen(kw_only=True)
class ChatChoice:
    index: int = 0
    message: ChatMessage
    logprobs: ChatLogprobs | None = None
    finish_reason: OpenAiFinishReason


@attrs.frozen(kw_only=True)
class ChatCompletion:
    object: Literal["chat.completion"] = "chat.completion"
    id: str
    created: int
    """Unix time in seconds."""
    model: str
    system_fingerprint: str
    choices: tuple[ChatChoice, ...]
    usage: Usage


@attrs.frozen(kw_only=True)
class ChatChunkChoice:
    index: int = 0
    delta: ChatDelta
    logprobs: ChatLogprobs | None = None
    finish_reason: OpenAiFinishReason | None = None


@attrs.frozen(kw_only=True)
class ChatCompletionChunk:
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: tuple[ChatChunkChoice, ...]
    usage: Usage | None = None


@attrs.frozen(kw_only=True)
class CompletionChoice:
    """One prompt's text, or a piece of it where ``finish_reason`` is None."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: OpenAiFinishReason | None


@attrs.frozen(kw_only=True)
class Completion:
    object: Literal["text_completion"] = "text_completion"
    id: str
    created: int
    model: str
    system_fingerprint: str
    choices: tuple[CompletionChoice, ...]
    usage: Usage


@attrs.frozen(kw_only=True)
class CompletionChunk:
    """TGI's order of keys, which is not that of ``Completion``."""

    object: Literal["text_completion"] = "text_completion"
    id: str
    created: int
    choices: tuple[CompletionChoice, ...]
    model: str
    system_fingerprint: str


@attrs.frozen(kw_only=True)
class CompletionChunkWithUsage(CompletionChunk):
    """A chunk of a stream that was asked for its usage, which only the last chunk knows."""

    usage: Usage | None


@attrs.frozen(kw_only=True)
class Model:
    """The served model, or a LoRA adapter, which has ``root`` and ``parent``."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    """An adapter's: Unix time in seconds when it was loaded."""
    owned_by: str
    root: str | None = attrs.field(default=None, metadata=_OMITTED)
    """Where it came from: its name on the hub, or its file's without the folder."""
    parent: str | None = attrs.field(default=None, metadata=_OMITTED)
    """The model that it belongs to."""


@attrs.frozen(kw_only=True)
class DeletedModel:
    """What is left of an adapter that was unloaded."""

    id: str
    object: Literal["model"] = "model"
    deleted: bool = True


@attrs.frozen(kw_only=True)
class ModelList:
    object: Literal["list"] = "list"
    data: tuple[Model, ...]


@attrs.frozen(kw_only=True)
class OpenAiError:
    message: str
    type: str
    param: str | None = None
    """JSON path of the culprit."""
    code: str | int | None = None


@attrs.frozen(kw_only=True)
class OpenAiErrorBody:
    """Readable for OpenAI's clients (``error``) and for TGI's (``error_type``)."""

    error: OpenAiError
    error_type: str
