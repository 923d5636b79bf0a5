"""What each route takes and answers, for the API document; by the name of the route."""

from collections.abc import Mapping
from typing import Final, Literal

import attrs

from tgi_llama.metrics import CONTENT_TYPE as METRICS_TYPE
from tgi_llama.wire import examples
from tgi_llama.wire.examples import Examples
from tgi_llama.wire.generate_requests import CompatGenerateRequest, GenerateRequest
from tgi_llama.wire.generate_responses import (
    ErrorBody,
    GenerateResponse,
    Info,
    StreamResponse,
    TokenizeEntry,
)
from tgi_llama.wire.kserve import (
    InferRequest,
    InferResponse,
    Live,
    ModelMetadata,
    ServerMetadata,
)
from tgi_llama.wire.lora import LoadAdapterRequest, UnloadAdapterRequest
from tgi_llama.wire.openai_requests import ChatRequest, CompletionRequest
from tgi_llama.wire.openai_responses import (
    ChatCompletion,
    ChatCompletionChunk,
    Completion,
    CompletionChunk,
    CompletionChunkWithUsage,
    DeletedModel,
    Model,
    ModelList,
    OpenAiErrorBody,
)
from tgi_llama.wire.sagemaker import Invocation
from tgi_llama.wire.tokenize import ChatTokenizeResponse
from tgi_llama.wire.vertex import Instance, Predictions

from .header_names import ANSWER_HEADERS, COMPUTE_TIME

Tag = Literal["TGI", "OpenAI", "Adapters", "Clouds", "Server"]

TAGS: Final[Mapping[Tag, str]] = {
    "TGI": "The routes of text-generation-inference.",
    "OpenAI": "The routes of OpenAI, with extra fields of TGI and other servers.",
    "Adapters": "LoRA adapters at run time, as vLLM has them. They take an admin key.",
    "Clouds": "What Vertex AI, SageMaker and KServe expect of a model server.",
    "Server": "About the server itself. No key is needed.",
}


@attrs.frozen(kw_only=True)
class VertexRequest:
    """Prompts and chats, mixed as you like."""

    # As clients see it: the server reads it in two steps, see `VertexBody`.

    instances: tuple[Instance, ...]


@attrs.frozen(kw_only=True)
class Text:
    """An answer that is not JSON."""

    content_type: str


@attrs.frozen(kw_only=True)
class Events:
    """An answer as a stream of server-sent events."""

    types: object
    """What the data of an event may be: a union of wire types, with those that end a stream that
    failed."""
    is_done: bool
    """``[DONE]`` ends the stream."""
    example: tuple[object, ...]


@attrs.frozen(kw_only=True)
class Operation:
    """One route."""

    tag: Tag
    summary: str
    description: str = ""
    request: object = None
    """The wire type of its JSON body, or a union of several; None takes no body."""
    request_examples: Examples = attrs.field(factory=dict)
    status: int = 200
    """What it answers when all went well."""
    answer: object = None
    """The wire type of its JSON answer, a union of several, or Text; None: the body is empty, or
    the answer is always streamed."""
    answer_examples: Examples = attrs.field(factory=dict)
    events: Events | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict)
    """``x-*`` headers of whole answers, with what they say."""
    refusals: tuple[int, ...] = ()
    """Statuses of its own beside those that it shares with others of its kind."""
    is_health: bool = False
    """503 has a meaning of its own."""


_NATIVE_EVENTS = Events(types=StreamResponse | ErrorBody, is_done=False, example=examples.STREAMED)
_CHAT_EVENTS = Events(
    types=ChatCompletionChunk | OpenAiErrorBody, is_done=True, example=examples.CHAT_CHUNKS
)
_COMPLETION_EVENTS = Events(
    types=CompletionChunk | CompletionChunkWithUsage | OpenAiErrorBody,
    is_done=True,
    example=examples.COMPLETION_CHUNKS,
)

_GENERATED: Examples = {
    "text": examples.GENERATED,
    "with_details": examples.GENERATED_WITH_DETAILS,
}

_HEALTH = Operation(
    tag="Server",
    summary="Whether the server can generate",
    description="200 with an empty body, or 503.",
    is_health=True,
)

_LIVE = Operation(tag="Clouds", summary="KServe: the server lives", answer=Live)

_MODEL = Operation(
    tag="OpenAI",
    summary="The served model or an adapter",
    description="Its own name, or `tgi`, or an adapter's. A name may contain slashes.",
    answer=Model,
    answer_examples={"model": examples.MODEL, "adapter": examples.ADAPTER},
)

OPERATIONS: Final[Mapping[str, Operation]] = {
    "compat_generate": Operation(
        tag="TGI",
        summary="Generate text, streamed or not",
        description="`/generate_stream` where `stream` is true, otherwise `/generate` in an array. "
        "The prompt stands before the text unless `return_full_text` is false.",
        request=CompatGenerateRequest,
        request_examples=examples.COMPAT_GENERATE,
        answer=tuple[GenerateResponse, ...],
        answer_examples={name: (value,) for name, value in _GENERATED.items()},
        events=_NATIVE_EVENTS,
        headers=ANSWER_HEADERS,
    ),
    "generate": Operation(
        tag="TGI",
        summary="Generate text",
        request=GenerateRequest,
        request_examples=examples.GENERATE,
        answer=GenerateResponse,
        answer_examples=_GENERATED,
        headers=ANSWER_HEADERS,
    ),
    "generate_stream": Operation(
        tag="TGI",
        summary="Generate text, an event per token",
        request=GenerateRequest,
        request_examples=examples.GENERATE,
        events=_NATIVE_EVENTS,
    ),
    "tokenize": Operation(
        tag="TGI",
        summary="Tokenize a text",
        description="`parameters` are read and have no effect.",
        request=GenerateRequest,
        request_examples=examples.TOKENIZE,
        answer=tuple[TokenizeEntry, ...],
        answer_examples={"text": examples.TOKENIZED},
    ),
    "get_chat_tokenize": Operation(
        tag="TGI",
        summary="Render and tokenize a chat",
        request=ChatRequest,
        request_examples=examples.CHAT_TOKENIZE,
        answer=ChatTokenizeResponse,
        answer_examples={"text": examples.CHAT_TOKENIZED},
    ),
    "chat_completions": Operation(
        tag="OpenAI",
        summary="Answer a chat, streamed or not",
        description="Limits of the server, such as those on tokens, are listed by `/info`.",
        request=ChatRequest,
        request_examples=examples.CHAT,
        answer=ChatCompletion,
        answer_examples={"answer": examples.CHAT_COMPLETION, "tools": examples.TOOL_CALL},
        events=_CHAT_EVENTS,
        headers=ANSWER_HEADERS,
    ),
    "completions": Operation(
        tag="OpenAI",
        summary="Complete texts, streamed or not",
        request=CompletionRequest,
        request_examples=examples.COMPLETION,
        answer=Completion,
        answer_examples={"answer": examples.COMPLETED},
        events=_COMPLETION_EVENTS,
        headers={name: text for name, text in ANSWER_HEADERS.items() if name != COMPUTE_TIME},
    ),
    "openai_get_model_info": Operation(
        tag="OpenAI",
        summary="All models: the one that is served, and its LoRA adapters",
        answer=ModelList,
        answer_examples={"models": examples.MODELS},
    ),
    "openai_get_model": _MODEL,
    "openai_get_model_of_folder": attrs.evolve(
        _MODEL, summary="The served model where its name is an absolute folder"
    ),
    "load_lora_adapter": Operation(
        tag="Adapters",
        summary="Load a LoRA adapter",
        description="Requests can ask for it as soon as this has been answered.",
        request=LoadAdapterRequest,
        request_examples=examples.LOAD_ADAPTER,
        answer=Model,
        answer_examples={"adapter": examples.ADAPTER},
        refusals=(409,),
    ),
    "unload_lora_adapter": Operation(
        tag="Adapters",
        summary="Unload a LoRA adapter",
        description="Its name is gone at once. This is answered when the requests that use the "
        "adapter have ended and its memory is free; a client that does not wait changes nothing.",
        request=UnloadAdapterRequest,
        request_examples=examples.UNLOAD_ADAPTER,
        answer=DeletedModel,
        answer_examples={"adapter": examples.UNLOADED_ADAPTER},
        refusals=(404, 409),
    ),
    "sagemaker_compatibility": Operation(
        tag="Clouds",
        summary="SageMaker: generate, chat or complete",
        description="`inputs` is answered as by `/`, `messages` as by `/v1/chat/completions`, "
        "`prompt` as by `/v1/completions`; errors have TGI's form.",
        request=Invocation,
        request_examples=examples.SAGEMAKER,
        answer=tuple[GenerateResponse, ...] | ChatCompletion | Completion,
        answer_examples={
            "generate": (examples.GENERATED,),
            "chat": examples.CHAT_COMPLETION,
            "completion": examples.COMPLETED,
        },
        events=Events(
            types=StreamResponse
            | ChatCompletionChunk
            | CompletionChunk
            | CompletionChunkWithUsage
            | ErrorBody
            | OpenAiErrorBody,
            is_done=True,
            example=examples.STREAMED,
        ),
        headers=ANSWER_HEADERS,
    ),
    "vertex_compatibility": Operation(
        tag="Clouds",
        summary="Vertex AI: a text for each prompt or chat",
        request=VertexRequest,
        request_examples=examples.VERTEX,
        answer=Predictions,
        answer_examples={"texts": examples.PREDICTED},
    ),
    "kserve_health_live": _LIVE,
    "kserve_health_ready": attrs.evolve(_LIVE, summary="KServe: the server is ready"),
    "kserve_server_metadata": Operation(
        tag="Clouds", summary="KServe: the server", answer=ServerMetadata
    ),
    "kserve_model_metadata": Operation(
        tag="Clouds",
        summary="KServe: a model",
        description="Every name and version is one of the served model.",
        answer=ModelMetadata,
    ),
    "kserve_model_metadata_ready": attrs.evolve(_LIVE, summary="KServe: a model is ready"),
    "kserve_model_infer": Operation(
        tag="Clouds",
        summary="KServe: a text for each prompt",
        description="Texts travel as lists of bytes. There are as many `outputs` as `inputs`. The "
        "name of an adapter chooses it; every other one means the model alone.",
        request=InferRequest,
        request_examples=examples.KSERVE,
        answer=InferResponse,
        answer_examples={"texts": examples.INFERRED},
    ),
    "get_model_info": Operation(
        tag="Server", summary="The model, the limits and how both were started", answer=Info
    ),
    "metrics": Operation(
        tag="Server", summary="Metrics for Prometheus", answer=Text(content_type=METRICS_TYPE)
    ),
    "health": _HEALTH,
    "ping": attrs.evolve(_HEALTH, description="SageMaker's name of `/health`."),
    "root_health": attrs.evolve(_HEALTH, description="The same as `/health`."),
    "openapi": Operation(tag="Server", summary="This document", answer=Mapping[str, object]),
    "docs_redirect": Operation(tag="Server", summary="Leads to `/docs/`", status=303),
    "docs": Operation(
        tag="Server", summary="This document as a page", answer=Text(content_type="text/html")
    ),
    "docs_file": Operation(
        tag="Server", summary="A file of that page", answer=Text(content_type="*/*")
    ),
}
