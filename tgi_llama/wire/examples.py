"""Examples of bodies for the API document: requests as clients write them, answers as wire values.

Every request here is one that the server answers.
"""

from collections.abc import Mapping
from typing import Final

from tgi_llama.generation import FinishReason, Token, TokenId

from .generate_responses import (
    Details,
    GenerateResponse,
    StreamDetails,
    StreamResponse,
    TokenizeEntry,
)
from .kserve import InferOutput, InferResponse
from .openai_responses import (
    ChatChoice,
    ChatChunkChoice,
    ChatCompletion,
    ChatCompletionChunk,
    ChatDelta,
    ChatMessage,
    Completion,
    CompletionChoice,
    CompletionChunk,
    DeletedModel,
    FunctionCall,
    Model,
    ModelList,
    PromptTokensDetails,
    ToolCall,
    Usage,
)
from .tokenize import ChatTokenizeResponse
from .vertex import Predictions

Examples = Mapping[str, object]
"""By a short name, which the document shows."""

_PROMPT = "1, 2, 3, 4,"
_QUESTION = {"role": "user", "content": "What is 12 plus 7?"}

_SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
_WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}

# --- requests -------------------------------------------------------------------------------------

GENERATE: Final[Examples] = {
    "greedy": {"inputs": _PROMPT, "parameters": {"max_new_tokens": 8}},
    "sampled": {
        "inputs": _PROMPT,
        "parameters": {
            "max_new_tokens": 8,
            "do_sample": True,
            "temperature": 0.7,
            "top_p": 0.9,
            "seed": 42,
        },
    },
    "json": {
        "inputs": "Text: Anna is 34 years old.\nJSON:",
        "parameters": {"max_new_tokens": 60, "grammar": {"type": "json", "value": _SCHEMA}},
    },
    "with_details": {
        "inputs": _PROMPT,
        "parameters": {"max_new_tokens": 2, "details": True, "stop": ["\n"]},
    },
}

COMPAT_GENERATE: Final[Examples] = {
    **GENERATE,
    "streamed": {"inputs": _PROMPT, "parameters": {"max_new_tokens": 8}, "stream": True},
}

TOKENIZE: Final[Examples] = {"text": {"inputs": "hello"}}

CHAT: Final[Examples] = {
    "question": {"messages": [_QUESTION], "max_tokens": 16, "temperature": 0},
    "streamed": {
        "messages": [{"role": "system", "content": "Be brief."}, _QUESTION],
        "max_tokens": 16,
        "stream": True,
        "stream_options": {"include_usage": True},
    },
    "json": {
        "messages": [{"role": "user", "content": "Extract JSON: Anna is 34 years old."}],
        "max_tokens": 60,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "person", "schema": _SCHEMA, "strict": True},
        },
    },
    "tools": {
        "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
        "max_tokens": 60,
        "tools": [_WEATHER],
        "tool_choice": "auto",
    },
}

CHAT_TOKENIZE: Final[Examples] = {"question": {"messages": [_QUESTION]}}

COMPLETION: Final[Examples] = {
    "prompt": {"prompt": _PROMPT, "max_tokens": 8, "temperature": 0},
    "several_prompts": {"prompt": [_PROMPT, "5, 6, 7,"], "max_tokens": 8, "logprobs": 2},
    "streamed": {"prompt": _PROMPT, "max_tokens": 8, "stream": True},
    "choice": {"prompt": "Is 7 more than 5?", "guided_choice": [" yes", " no"]},
}

SAGEMAKER: Final[Examples] = {
    "generate": COMPAT_GENERATE["greedy"],
    "chat": CHAT["question"],
    "completion": COMPLETION["prompt"],
}

VERTEX: Final[Examples] = {
    "prompt_and_chat": {"instances": [GENERATE["greedy"], CHAT["question"]]},
}

KSERVE: Final[Examples] = {
    "prompt": {
        "id": "42",
        "parameters": {"max_new_tokens": 8},
        "inputs": [
            {"name": "in", "shape": [1], "datatype": "BYTES", "data": list(_PROMPT.encode())}
        ],
        "outputs": [{"name": "out"}],
    }
}

# --- answers --------------------------------------------------------------------------------------

_FIVE = Token(TokenId(1062), " 5", -0.25, False)
_COMMA = Token(TokenId(29), ",", -0.125, False)
_USAGE = Usage(
    prompt_tokens=12,
    completion_tokens=2,
    total_tokens=14,
    prompt_tokens_details=PromptTokensDetails(cached_tokens=8),
)
_CREATED = 1_767_225_600
_FINGERPRINT = "0.1.0-native"
_MODEL_ID = "tgi_llama/builtin"

GENERATED: Final = GenerateResponse(generated_text=" 5,")

GENERATED_WITH_DETAILS: Final = GenerateResponse(
    generated_text=" 5,",
    details=Details(
        finish_reason=FinishReason.LENGTH, generated_tokens=2, seed=None, tokens=(_FIVE, _COMMA)
    ),
)

STREAMED: Final = (
    StreamResponse(index=1, token=_FIVE),
    StreamResponse(
        index=2,
        token=_COMMA,
        generated_text=" 5,",
        details=StreamDetails(
            finish_reason=FinishReason.LENGTH, generated_tokens=2, seed=None, input_length=12
        ),
    ),
)

TOKENIZED: Final = (TokenizeEntry(id=958, text="hello", start=0, stop=5),)

CHAT_TOKENIZED: Final = ChatTokenizeResponse(
    tokenize_response=TOKENIZED,
    templated_text="hello",
)

CHAT_COMPLETION: Final = ChatCompletion(
    id="chatcmpl-4f5a3c0b9d8e7f6a5b4c3d2e",
    created=_CREATED,
    model=_MODEL_ID,
    system_fingerprint=_FINGERPRINT,
    choices=(ChatChoice(message=ChatMessage(content="19"), finish_reason="stop"),),
    usage=_USAGE,
)

TOOL_CALL: Final = ChatCompletion(
    id="chatcmpl-4f5a3c0b9d8e7f6a5b4c3d2e",
    created=_CREATED,
    model=_MODEL_ID,
    system_fingerprint=_FINGERPRINT,
    choices=(
        ChatChoice(
            message=ChatMessage(
                content=None,
                tool_calls=(
                    ToolCall(
                        id="call_d3d27a91baaa3a84539364c6",
                        function=FunctionCall(name="get_weather", arguments='{"city": "Paris"}'),
                    ),
                ),
            ),
            finish_reason="tool_calls",
        ),
    ),
    usage=_USAGE,
)

CHAT_CHUNKS: Final = tuple(
    ChatCompletionChunk(
        id="chatcmpl-4f5a3c0b9d8e7f6a5b4c3d2e",
        created=_CREATED,
        model=_MODEL_ID,
        system_fingerprint=_FINGERPRINT,
        choices=(choice,),
    )
    for choice in (
        ChatChunkChoice(delta=ChatDelta(content="19")),
        ChatChunkChoice(delta=ChatDelta(content=""), finish_reason="stop"),
    )
)

COMPLETED: Final = Completion(
    id="cmpl-4f5a3c0b9d8e7f6a5b4c3d2e",
    created=_CREATED,
    model=_MODEL_ID,
    system_fingerprint=_FINGERPRINT,
    choices=(CompletionChoice(index=0, text=" 5,", finish_reason="length"),),
    usage=_USAGE,
)

COMPLETION_CHUNKS: Final = tuple(
    CompletionChunk(
        id="cmpl-4f5a3c0b9d8e7f6a5b4c3d2e",
        created=_CREATED,
        choices=(choice,),
        model=_MODEL_ID,
        system_fingerprint=_FINGERPRINT,
    )
    for choice in (
        CompletionChoice(index=0, text=" 5", finish_reason=None),
        CompletionChoice(index=0, text=",", finish_reason="length"),
    )
)

MODEL: Final = Model(id=_MODEL_ID, owned_by=_MODEL_ID)

ADAPTER: Final = Model(
    id="pirate", created=_CREATED, owned_by=_MODEL_ID, root="pirate.gguf", parent=_MODEL_ID
)

MODELS: Final = ModelList(data=(MODEL, ADAPTER))

LOAD_ADAPTER: Final = {"adapter": {"lora_name": "pirate", "lora_path": "pirate.gguf"}}

UNLOAD_ADAPTER: Final = {"adapter": {"lora_name": "pirate"}}

UNLOADED_ADAPTER: Final = DeletedModel(id="pirate")

PREDICTED: Final = Predictions(predictions=(" 5, 6, 7,", "19"))

INFERRED: Final = InferResponse(id="42", outputs=(InferOutput.of_text(" 5,", name="out"),))
