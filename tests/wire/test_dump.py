"""Wire types to bytes: key order, omitted keys and digits are part of the contract."""

import json
import math

import attrs
import pytest

from tgi_llama.generation import FinishReason, Token, TokenId
from tgi_llama.wire import openai_responses as openai
from tgi_llama.wire.converter import dump
from tgi_llama.wire.generate_responses import (
    BestOfSequence,
    Details,
    ErrorBody,
    GenerateResponse,
    Info,
    LoraAdapter,
    PrefillToken,
    StreamDetails,
    StreamResponse,
    TokenizeEntry,
)

A = Token(TokenId(264), " a", -0.5, False)
EOS = Token(TokenId(2), "</s>", -0.1, True)

INFO = Info(
    model_id="m",
    max_concurrent_requests=1,
    max_best_of=2,
    max_stop_sequences=3,
    max_input_tokens=4,
    max_total_tokens=5,
    validation_workers=6,
    max_client_batch_size=7,
    version="v",
    max_top_n_tokens=8,
    backend="cpu",
    architecture="llama",
    description="llama 1B Q4_0",
    n_parameters=9,
    size_bytes=10,
    n_vocab=11,
    n_context_train=12,
    n_context=13,
    n_slots=14,
    kv_layout="streams",
    max_batch_tokens=15,
    physical_batch_tokens=16,
    n_threads=17,
    n_threads_batch=18,
    n_gpu_layers=0,
    type_k="f16",
    type_v="f16",
    flash_attention="enabled",
    mmap=True,
    mlock=False,
    numa="disabled",
    offload_kqv=True,
    kv_device="CPU",
    tool_format="hermes",
    split_mode="layer",
    lora_adapters=(LoraAdapter(name="a", scale=0.1, n_bytes=19, rank=20),),
)


def test_dump_stream_event_in_the_middle() -> None:
    assert dump(StreamResponse(index=1, token=A)) == (
        b'{"index":1,"token":{"id":264,"text":" a","logprob":-0.5,"special":false},'
        b'"generated_text":null,"details":null}'
    )


def test_dump_last_stream_event() -> None:
    details = StreamDetails(
        finish_reason=FinishReason.EOS_TOKEN, generated_tokens=2, seed=None, input_length=5
    )
    event = StreamResponse(index=2, token=EOS, generated_text=" a", details=details)
    assert dump(event) == (
        b'{"index":2,"token":{"id":2,"text":"</s>","logprob":-0.1,"special":true},'
        b'"generated_text":" a","details":{"finish_reason":"eos_token","generated_tokens":2,'
        b'"seed":null,"input_length":5}}'
    )


def test_dump_top_tokens_stand_after_the_token() -> None:
    event = json.loads(dump(StreamResponse(index=1, token=A, top_tokens=(A, EOS))))
    assert list(event) == ["index", "token", "top_tokens", "generated_text", "details"]
    assert [token["id"] for token in event["top_tokens"]] == [264, 2]


def test_dump_response_without_details_has_one_key() -> None:
    assert dump(GenerateResponse(generated_text="x")) == b'{"generated_text":"x"}'


def test_dump_details_omit_what_was_not_asked_for() -> None:
    details = Details(
        finish_reason=FinishReason.LENGTH, generated_tokens=1, seed=2**64 - 1, tokens=(A,)
    )
    assert dump([GenerateResponse(generated_text="x", details=details)]) == (
        b'[{"generated_text":"x","details":{"finish_reason":"length","generated_tokens":1,'
        b'"seed":18446744073709551615,"prefill":[],"tokens":[{"id":264,"text":" a",'
        b'"logprob":-0.5,"special":false}]}}]'
    )


def test_dump_full_details_follow_the_order_of_the_contract() -> None:
    loser = BestOfSequence(
        generated_text="y",
        finish_reason=FinishReason.STOP_SEQUENCE,
        generated_tokens=1,
        seed=1,
        tokens=(A,),
    )
    details = Details(
        finish_reason=FinishReason.LENGTH,
        generated_tokens=1,
        seed=None,
        prefill=(PrefillToken(1, "<s>", None), PrefillToken(7, "b", -0.25)),
        tokens=(A,),
        best_of_sequences=(loser,),
        top_tokens=((A, EOS),),
    )
    written = json.loads(dump(details))
    assert list(written) == [
        "finish_reason",
        "generated_tokens",
        "seed",
        "prefill",
        "tokens",
        "best_of_sequences",
        "top_tokens",
    ]
    assert written["prefill"][0] == {"id": 1, "text": "<s>", "logprob": None}
    assert list(written["best_of_sequences"][0]) == [
        "generated_text",
        "finish_reason",
        "generated_tokens",
        "seed",
        "prefill",
        "tokens",
    ]


@pytest.mark.parametrize(
    ("logprob", "digits"),
    [
        (-0.1, b"-0.1"),
        (-0.5123456789, b"-0.5123457"),
        (-12.345678901, b"-12.345679"),
        (0.0, b"0.0"),
        (-1e-7, b"-1e-7"),
        (-16777216.0, b"-16777216.0"),
        (math.nan, b"null"),
        (-math.inf, b"null"),
        (None, b"null"),
    ],
)
def test_dump_logprob_has_the_fewest_digits_of_single_precision(
    logprob: float | None, digits: bytes
) -> None:
    token = attrs.evolve(A, logprob=logprob)
    assert b'"logprob":' + digits + b"," in dump(StreamResponse(index=1, token=token))
    if logprob is not None:
        assert dump(PrefillToken(1, "a", logprob)).endswith(b'"logprob":' + digits + b"}")


def test_dump_info_has_tgis_keys_first() -> None:
    assert list(json.loads(dump(INFO)))[:15] == [
        "model_id",
        "model_sha",
        "model_pipeline_tag",
        "max_concurrent_requests",
        "max_best_of",
        "max_stop_sequences",
        "max_input_tokens",
        "max_total_tokens",
        "validation_workers",
        "max_client_batch_size",
        "router",
        "version",
        "sha",
        "docker_label",
        "max_top_n_tokens",
    ]
    assert json.loads(dump(INFO))["router"] == "tgi_llama"


def test_dump_small_native_bodies() -> None:
    assert dump((TokenizeEntry(id=1, text="é", start=0, stop=2),)) == (
        '[{"id":1,"text":"é","start":0,"stop":2}]'.encode()
    )
    assert dump(ErrorBody(error="e", error_type="t")) == b'{"error":"e","error_type":"t"}'


HEAD = {"id": "i", "created": 1, "model": "m", "system_fingerprint": "f"}


def test_dump_chat_completion() -> None:
    body = openai.ChatCompletion(
        **HEAD,
        choices=(
            openai.ChatChoice(message=openai.ChatMessage(content="Hi"), finish_reason="stop"),
        ),
        usage=openai.Usage(
            prompt_tokens=39,
            completion_tokens=3,
            total_tokens=42,
            prompt_tokens_details=openai.PromptTokensDetails(cached_tokens=0),
        ),
    )
    assert dump(body) == (
        b'{"object":"chat.completion","id":"i","created":1,"model":"m","system_fingerprint":"f",'
        b'"choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"logprobs":null,'
        b'"finish_reason":"stop"}],'
        b'"usage":{"prompt_tokens":39,"completion_tokens":3,"total_tokens":42,'
        b'"prompt_tokens_details":{"cached_tokens":0}}}'
    )


def test_dump_chat_tool_call_has_null_content() -> None:
    call = openai.ToolCall(id="call_1", function=openai.FunctionCall(name="f", arguments='{"a":1}'))
    assert json.loads(dump(openai.ChatMessage(content=None, tool_calls=(call,)))) == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "f", "arguments": '{"a":1}'},
            }
        ],
    }


def test_dump_chat_chunk_keeps_empty_content_and_null_usage() -> None:
    chunk = openai.ChatCompletionChunk(
        **HEAD, choices=(openai.ChatChunkChoice(delta=openai.ChatDelta(content="")),)
    )
    assert dump(chunk) == (
        b'{"object":"chat.completion.chunk","id":"i","created":1,"model":"m",'
        b'"system_fingerprint":"f","choices":[{"index":0,"delta":{"role":"assistant",'
        b'"content":""},"logprobs":null,"finish_reason":null}],"usage":null}'
    )


def test_dump_chat_logprobs() -> None:
    top = (openai.TopLogprob("a", -0.1), openai.TopLogprob("b", -2.3))
    logprobs = openai.ChatLogprobs((openai.TokenLogprob("a", -0.1, top),))
    assert dump(logprobs) == (
        b'{"content":[{"token":"a","logprob":-0.1,"top_logprobs":'
        b'[{"token":"a","logprob":-0.1},{"token":"b","logprob":-2.3}]}]}'
    )


def test_dump_completion_with_logprobs() -> None:
    logprobs = openai.CompletionLogprobs(
        tokens=("a",),
        token_logprobs=(-0.1,),
        top_logprobs=({"a": -0.1, "b": -2.3},),
        text_offset=(0,),
    )
    body = openai.CompletionChunk(
        **HEAD,
        choices=(
            openai.CompletionChoice(index=0, text="a", logprobs=logprobs, finish_reason=None),
        ),
    )
    assert dump(body) == (
        b'{"object":"text_completion","id":"i","created":1,'
        b'"choices":[{"index":0,"text":"a","logprobs":{"tokens":["a"],"token_logprobs":[-0.1],'
        b'"top_logprobs":[{"a":-0.1,"b":-2.3}],"text_offset":[0]},"finish_reason":null}],'
        b'"model":"m","system_fingerprint":"f"}'
    )


def test_dump_logprobs_of_an_echoed_prompt_begin_with_nulls() -> None:
    logprobs = openai.CompletionLogprobs(
        tokens=("<s>", "a"),
        token_logprobs=(None, -0.1),
        top_logprobs=(None, {"a": -0.1}),
        text_offset=(0, 0),
    )
    assert dump(logprobs) == (
        b'{"tokens":["<s>","a"],"token_logprobs":[null,-0.1],'
        b'"top_logprobs":[null,{"a":-0.1}],"text_offset":[0,0]}'
    )


def test_dump_model_list_and_error() -> None:
    assert dump(openai.ModelList(data=(openai.Model(id="m", owned_by="m"),))) == (
        b'{"object":"list","data":[{"id":"m","object":"model","created":0,"owned_by":"m"}]}'
    )
    error = openai.OpenAiError(message="no", type="invalid_request_error", param="n")
    assert dump(openai.OpenAiErrorBody(error=error, error_type="validation")) == (
        b'{"error":{"message":"no","type":"invalid_request_error","param":"n","code":null},'
        b'"error_type":"validation"}'
    )
