"""What clients send to the OpenAI routes, with the extra fields of TGI and other servers."""

from collections.abc import Mapping
from typing import Annotated, Literal

import attrs

from . import json_text
from .fields import (
    ALIASES,
    F32,
    I64,
    NULL_IS_DEFAULT,
    U32,
    U64,
    FractionOrOne,
    Penalty,
    PositiveF32,
    PositiveI32,
    PositiveU32,
    ValueRange,
)
from .grammar_requests import Grammar, GuidedFields, ResponseFormat
from .parse_error import ParseError

_NULLABLE = {NULL_IS_DEFAULT: True}

MAX_TOP_LOGPROBS = 20
"""OpenAI's own limit."""

MAX_LOGIT_BIAS = 100.0
"""OpenAI's own limit, either sign: as good as a ban, or as the only choice."""


@attrs.frozen(kw_only=True)
class TextPart:
    type: Literal["text"]
    text: str


@attrs.frozen(kw_only=True)
class RefusalPart:
    """How the ``openai`` package sends an assistant's refusal back: text as any other."""

    type: Literal["refusal"]
    refusal: str


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
        """What templates expect: the object. A text that holds none stays a text, also one that
        holds what a body may not hold either: NaN, say, or endless nesting."""
        if not isinstance(self.arguments, str):
            return self.arguments
        try:
            parsed = json_text.load(self.arguments.encode())
        except ParseError:
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
    content: str | tuple[TextPart | ImagePart | RefusalPart, ...] | None = None
    name: str | None = None
    tool_calls: tuple[MessageToolCall, ...] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    """What an assistant said instead of ``content``."""
    reasoning_content: str | None = None
    """What an assistant thought before it said something."""

    def __attrs_post_init__(self) -> None:
        if not self.tool_calls and self.text is None and self.reasoning_content is None:
            raise ValueError("expected `content` or `tool_calls`, got neither")

    @property
    def text(self) -> str | tuple[TextPart | ImagePart | RefusalPart, ...] | None:
        """What was said, whichever key it came under."""
        return self.refusal if self.content is None else self.content


@attrs.frozen(kw_only=True)
class FunctionDefinition:
    name: str
    description: str | None = None
    parameters: object = attrs.field(default=None, metadata={ALIASES: ("arguments",)})
    """A JSON Schema of the arguments; absent: any object. Followed strictly, whatever ``strict``
    says."""


@attrs.frozen(kw_only=True)
class Tool:
    type: str = "function"
    function: FunctionDefinition


@attrs.frozen(kw_only=True)
class FunctionName:
    name: str


@attrs.frozen(kw_only=True)
class AllowedTool:
    type: str = "function"
    function: FunctionName


@attrs.frozen(kw_only=True)
class AllowedTools:
    mode: Literal["auto", "required"]
    tools: tuple[AllowedTool, ...]

    def __attrs_post_init__(self) -> None:
        if not self.tools:
            raise ValueError("expected `tools` that are allowed, got none")


@attrs.frozen(kw_only=True)
class NamedToolChoice:
    """One function, or OpenAI's ``allowed_tools``: some of the tools."""

    type: str = "function"
    function: FunctionName | None = None
    allowed_tools: AllowedTools | None = None

    def __attrs_post_init__(self) -> None:
        if (self.function is None) == (self.allowed_tools is None):
            raise ValueError("expected `function` or `allowed_tools`")


ReasoningFormat = Literal["none", "auto", "deepseek"]
"""llama.cpp's names; ``auto`` and ``deepseek`` mean ``reasoning_content``."""

StopStrings = str | tuple[str, ...]

LogitBias = (
    Mapping[str, Annotated[F32, ValueRange(minimum=-MAX_LOGIT_BIAS, maximum=MAX_LOGIT_BIAS)]]
    | tuple[F32, ...]
)
"""OpenAI's map from token id (in decimal digits) to bias. TGI's clients may send a list, which has
a meaning only when it is empty."""

Prompt = str | tuple[str | I64 | tuple[I64, ...], ...]
"""One text, one list of token ids, or a list of either."""


@attrs.frozen(kw_only=True)
class StreamOptions:
    include_usage: bool = attrs.field(default=False, metadata=_NULLABLE)


@attrs.frozen(kw_only=True)
class OpenAiRequest(GuidedFields):
    """What chat and text completions share. ``None`` means that the client left it to us."""

    model: str | None = None
    max_tokens: U32 | None = None
    """0 only where a completion is to ``echo`` its prompt."""
    temperature: Annotated[F32, ValueRange(minimum=0)] | None = None
    """0: greedy decoding."""
    top_p: FractionOrOne | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    seed: U64 | None = None
    stop: StopStrings | None = None
    stream: bool = attrs.field(default=False, metadata=_NULLABLE)
    stream_options: StreamOptions | None = None
    logit_bias: LogitBias | None = None
    n: PositiveU32 | None = None
    """Choices of one prompt."""
    # Beyond OpenAI:
    top_k: PositiveI32 | None = None
    min_p: Annotated[F32, ValueRange(minimum=0, maximum=1)] | None = None
    typical_p: FractionOrOne | None = None
    repetition_penalty: PositiveF32 | None = None
    ignore_eos: bool = attrs.field(default=False, metadata=_NULLABLE)
    watermark: bool = attrs.field(default=False, metadata=_NULLABLE)
    response_format: ResponseFormat | None = None
    grammar: str | Grammar | None = None
    """llama.cpp's field: a grammar in its GBNF, or in Lark; or what TGI's native routes take."""
    json_schema: object = None
    """llama.cpp's field: as ``guided_json``."""
    adapter_id: str | None = None
    """The LoRA adapter to use; ``model`` may name it too."""


@attrs.frozen(kw_only=True)
class ChatRequest(OpenAiRequest):
    messages: tuple[Message, ...]
    max_completion_tokens: PositiveU32 | None = None
    logprobs: bool = attrs.field(default=False, metadata=_NULLABLE)
    top_logprobs: Annotated[U32, ValueRange(maximum=MAX_TOP_LOGPROBS)] | None = None
    tools: tuple[Tool, ...] | None = None
    tool_choice: str | NamedToolChoice | None = None
    tool_prompt: str | None = None
    parallel_tool_calls: bool | None = None
    reasoning_format: ReasoningFormat | None = None
    """Where the model's reasoning goes: ``none`` leaves it in the content, with its markup."""
    reasoning_effort: str | None = None
    """A variable of the chat template, for models that know it."""
    modalities: tuple[str, ...] | None = None
    audio: object = None
    functions: object = None
    function_call: object = None
    web_search_options: object = None
    prediction: object = None
    moderation: object = None
    documents: tuple[Mapping[str, object], ...] | None = None
    """A variable of the chat template, for models that answer from documents."""
    chat_template_kwargs: Mapping[str, object] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None


@attrs.frozen(kw_only=True)
class CompletionRequest(OpenAiRequest):
    prompt: Prompt
    logprobs: Annotated[U32, ValueRange(maximum=MAX_TOP_LOGPROBS)] | None = None
    """How many likeliest tokens to list at each step."""
    best_of: PositiveU32 | None = None
    """Generations of one prompt, of which the ``n`` likeliest are shown."""
    echo: bool = attrs.field(default=False, metadata=_NULLABLE)
    """Put the prompt before each choice, its logprobs too."""
    suffix: str | None = None
    """What is to follow the generated text; for models with infill tokens. ``""`` is one too."""
