"""The bodies of the OpenAI routes, with the extra request fields that TGI and other servers took
up. The order of fields is the order of keys on the wire.
"""

import json
from collections.abc import Mapping
from typing import Literal

import attrs

from .fields import ALIASES, F32, I32, I64, NULL_IS_DEFAULT, OMIT_WHEN_DEFAULT, U32, U64
from .generate import JsonSchema

_OMITTED = {OMIT_WHEN_DEFAULT: True}
_NULLABLE = {NULL_IS_DEFAULT: True}

# --- messages -------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class TextPart:
    type: Literal["text"]
    text: str


@attrs.frozen(kw_only=True)
class ImageUrl:
    url: str


@attrs.frozen(kw_only=True)
class ImagePart:
    type: Literal["image_url"]
    image_url: ImageUrl


@attrs.frozen(kw_only=True)
class CalledFunction:
    """A tool call that the model made earlier in the conversation."""

    name: str
    arguments: object = attrs.field(metadata={ALIASES: ("parameters",)})
    """As the client sent it: OpenAI's clients send a JSON text, TGI's an object."""
    description: str | None = None

    @property
    def parsed_arguments(self) -> object:
        """What templates expect: the object. A text that holds none stays a text."""
        if not isinstance(self.arguments, str):
            return self.arguments
        try:
            parsed = json.loads(self.arguments)
        except ValueError:
            return self.arguments
        return parsed if isinstance(parsed, dict) else self.arguments


@attrs.frozen(kw_only=True)
class MessageToolCall:
    id: str
    type: str = "function"
    function: CalledFunction


@attrs.frozen(kw_only=True)
class Message:
    role: str
    content: str | tuple[TextPart | ImagePart, ...] | None = None
    name: str | None = None
    tool_calls: tuple[MessageToolCall, ...] | None = None
    tool_call_id: str | None = None

    def __attrs_post_init__(self) -> None:
        if self.content is None and not self.tool_calls:
            raise ValueError("expected `content` or `tool_calls`, got neither")


# --- tools and response formats -------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class FunctionDefinition:
    name: str
    description: str | None = None
    parameters: object = attrs.field(default=None, metadata={ALIASES: ("arguments",)})


@attrs.frozen(kw_only=True)
class Tool:
    type: str = "function"
    function: FunctionDefinition


@attrs.frozen(kw_only=True)
class FunctionName:
    name: str


@attrs.frozen(kw_only=True)
class NamedToolChoice:
    type: str = "function"
    function: FunctionName


@attrs.frozen(kw_only=True)
class TextFormat:
    type: Literal["text"]


@attrs.frozen(kw_only=True)
class JsonObjectFormat:
    type: Literal["json", "json_object"]
    value: object = None
    """TGI's layout: a JSON Schema. OpenAI's has none: any JSON object."""


@attrs.frozen(kw_only=True)
class RegexFormat:
    type: Literal["regex"]
    value: str


@attrs.frozen(kw_only=True)
class JsonSchemaFormat:
    type: Literal["json_schema"]
    json_schema: JsonSchema | None = None
    """OpenAI's layout."""
    value: JsonSchema | None = None
    """TGI's layout."""

    def __attrs_post_init__(self) -> None:
        if self.json_schema is None and self.value is None:
            raise ValueError("expected `json_schema` with a `schema`, got none")


ResponseFormat = TextFormat | JsonObjectFormat | RegexFormat | JsonSchemaFormat

# --- requests -------------------------------------------------------------------------------------

StopStrings = str | tuple[str, ...]

LogitBias = Mapping[str, F32] | tuple[F32, ...]
"""OpenAI's map from token id (in decimal digits) to bias. TGI's clients may send a list, which has
a meaning only when it is empty."""

Prompt = str | tuple[str | I64 | tuple[I64, ...], ...]
"""One text, one list of token ids, or a list of either."""


@attrs.frozen(kw_only=True)
class StreamOptions:
    include_usage: bool = attrs.field(default=False, metadata=_NULLABLE)


@attrs.frozen(kw_only=True)
class OpenAiRequest:
    """What chat and text completions share. ``None`` means that the client left it to us."""

    model: str | None = None
    max_tokens: U32 | None = None
    temperature: F32 | None = None
    top_p: F32 | None = None
    frequency_penalty: F32 | None = None
    presence_penalty: F32 | None = None
    seed: U64 | None = None
    stop: StopStrings | None = None
    stream: bool = attrs.field(default=False, metadata=_NULLABLE)
    stream_options: StreamOptions | None = None
    logit_bias: LogitBias | None = None
    n: U32 | None = None
    # Beyond OpenAI:
    top_k: I32 | None = None
    min_p: F32 | None = None
    typical_p: F32 | None = None
    repetition_penalty: F32 | None = None
    ignore_eos: bool = attrs.field(default=False, metadata=_NULLABLE)
    # Read so that they can be refused by name while they are not supported:
    grammar: object = None
    watermark: bool = attrs.field(default=False, metadata=_NULLABLE)
    adapter_id: str | None = None
    guided_json: object = None
    guided_regex: str | None = None
    guided_choice: tuple[str, ...] | None = None
    guided_grammar: str | None = None


@attrs.frozen(kw_only=True)
class ChatRequest(OpenAiRequest):
    messages: tuple[Message, ...]
    max_completion_tokens: U32 | None = None
    logprobs: bool = attrs.field(default=False, metadata=_NULLABLE)
    top_logprobs: U32 | None = None
    tools: tuple[Tool, ...] | None = None
    tool_choice: str | NamedToolChoice | None = None
    tool_prompt: str | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    modalities: tuple[str, ...] | None = None
    audio: object = None
    functions: object = None
    function_call: object = None
    web_search_options: object = None
    chat_template_kwargs: Mapping[str, object] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None


@attrs.frozen(kw_only=True)
class CompletionRequest(OpenAiRequest):
    prompt: Prompt
    logprobs: U32 | None = None
    """How many likeliest tokens to list at each step."""
    best_of: U32 | None = None
    echo: bool = attrs.field(default=False, metadata=_NULLABLE)
    suffix: str | None = None


# --- responses ------------------------------------------------------------------------------------

OpenAiFinishReason = Literal["stop", "length", "tool_calls"]


@attrs.frozen(kw_only=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


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
    """The parallel lists of text completions, one entry per generated token."""

    tokens: tuple[str, ...]
    token_logprobs: tuple[F32 | None, ...]
    top_logprobs: tuple[Mapping[str, F32], ...] | None
    text_offset: tuple[int, ...]
    """Where each token begins, in characters of the text."""


@attrs.frozen(kw_only=True)
class FunctionCall:
    name: str | None
    """None in all but the first piece of a streamed call."""
    arguments: str
    """A JSON text, or a piece of one."""


@attrs.frozen(kw_only=True)
class ToolCall:
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


@attrs.frozen(kw_only=True)
class ToolCallDelta:
    index: int
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


@attrs.frozen(kw_only=True)
class ChatMessage:
    """The model's turn: ``content``, or ``tool_calls`` and no ``content`` key."""

    role: Literal["assistant"] = "assistant"
    content: str | None = attrs.field(default=None, metadata=_OMITTED)
    tool_calls: tuple[ToolCall, ...] = attrs.field(default=(), metadata=_OMITTED)


@attrs.frozen(kw_only=True)
class ChatDelta:
    """A piece of the model's turn. TGI's clients expect the role in every one."""

    role: Literal["assistant"] = "assistant"
    content: str | None = attrs.field(default=None, metadata=_OMITTED)
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
    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str


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
