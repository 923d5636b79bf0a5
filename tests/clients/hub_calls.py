"""What ``huggingface_hub``'s inference clients ask of a TGI server, and what they must get.

Called by ``test_huggingface_hub.py``, and run as a program by the interpreter of an environment
that has another version of the library and nothing of ours::

    python hub_calls.py http://127.0.0.1:3000
"""

import asyncio
import json
import sys
from collections.abc import Callable

from huggingface_hub import AsyncInferenceClient, InferenceClient

PROMPT = "1, 2, 3, 4,"
MESSAGES = [{"role": "user", "content": "Count from 1 to 5."}]

EVERY_PARAMETER = {
    "do_sample": True,
    "frequency_penalty": 0.5,
    "max_new_tokens": 6,
    "repetition_penalty": 1.1,
    "return_full_text": False,
    "seed": 2**40 + 1,
    "stop": ["\n\n"],
    "temperature": 0.9,
    "top_k": 20,
    "top_n_tokens": 2,
    "top_p": 0.95,
    "truncate": 5,
    "typical_p": 0.95,
    "watermark": True,
}


def check_text_generation_repeats_the_prompt_unless_told(url: str) -> None:
    client = InferenceClient(url)
    whole = client.text_generation(PROMPT, max_new_tokens=6)
    continued = client.text_generation(PROMPT, max_new_tokens=6, return_full_text=False)
    assert whole == PROMPT + continued
    assert InferenceClient(base_url=url).text_generation(PROMPT, max_new_tokens=6) == whole


def check_text_generation_details(url: str) -> None:
    output = InferenceClient(url).text_generation(
        PROMPT, max_new_tokens=6, details=True, return_full_text=False
    )
    details = output.details
    assert details.finish_reason in ("length", "eos_token")
    assert details.generated_tokens == len(details.tokens) <= 6
    assert details.seed is None, "greedy: the client sends `parameters`, so nothing is sampled"
    assert details.prefill == []
    texts = [token.text for token in details.tokens if not token.special]
    assert "".join(texts) == output.generated_text
    assert all(token.logprob <= 0 for token in details.tokens)


def check_text_generation_stream(url: str) -> None:
    client = InferenceClient(url)
    whole = client.text_generation(PROMPT, max_new_tokens=6, return_full_text=False)
    pieces = client.text_generation(PROMPT, max_new_tokens=6, stream=True)
    assert "".join(pieces) == whole


def check_text_generation_stream_with_details(url: str) -> None:
    client = InferenceClient(url)  # a client that nobody holds ends its streams
    events = list(client.text_generation(PROMPT, max_new_tokens=6, stream=True, details=True))
    *others, last = events
    assert [event.index for event in events] == list(range(1, len(events) + 1))
    assert all(event.details is None and event.generated_text is None for event in others)
    assert last.details.generated_tokens == len(events)
    assert last.details.input_length > 0
    assert last.details.finish_reason in ("length", "eos_token")


def check_text_generation_takes_every_parameter(url: str) -> None:
    client = InferenceClient(url)
    output = client.text_generation(PROMPT, details=True, **EVERY_PARAMETER)
    assert output.details.seed == EVERY_PARAMETER["seed"]
    assert [len(top) >= 2 for top in output.details.top_tokens] == [True] * len(
        output.details.tokens
    )
    again = client.text_generation(PROMPT, details=True, stream=True, **EVERY_PARAMETER)
    assert [event.token.id for event in again] == [token.id for token in output.details.tokens]


def check_text_generation_best_of_and_prefill(url: str) -> None:
    output = InferenceClient(url).text_generation(
        PROMPT,
        best_of=2,
        decoder_input_details=True,
        details=True,
        do_sample=True,
        max_new_tokens=4,
    )
    details = output.details
    assert details.prefill[0].logprob is None
    assert all(token.logprob <= 0 for token in details.prefill[1:])
    assert PROMPT in "".join(token.text for token in details.prefill)
    (loser,) = details.best_of_sequences
    assert loser.generated_tokens == len(loser.tokens)
    assert loser.seed != details.seed


def check_chat_completion(url: str) -> None:
    answer = InferenceClient(url).chat_completion(MESSAGES, max_tokens=8)
    (choice,) = answer.choices
    assert answer.model == "dummy", "what this client sends when it knows only the address"
    assert answer.id.startswith("chatcmpl-")
    assert choice.message.role == "assistant"
    assert choice.finish_reason in ("stop", "length")
    assert 0 < answer.usage.completion_tokens <= 8
    assert answer.usage.total_tokens == (
        answer.usage.prompt_tokens + answer.usage.completion_tokens
    )


def check_chat_completion_stream(url: str) -> None:
    client = InferenceClient(url)
    whole = client.chat_completion(MESSAGES, max_tokens=8, temperature=0)
    chunks = list(
        client.chat_completion(
            MESSAGES,
            max_tokens=8,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    *tokens, last = chunks
    assert last.choices == []
    assert last.usage.completion_tokens == whole.usage.completion_tokens
    assert {chunk.choices[0].delta.role for chunk in tokens} == {"assistant"}
    text = "".join(chunk.choices[0].delta.content or "" for chunk in tokens)
    assert text == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in tokens][-1] in ("stop", "length")


def check_chat_completion_takes_every_parameter(url: str) -> None:
    answer = InferenceClient(url).chat_completion(
        MESSAGES,
        model="tgi",
        frequency_penalty=0.5,
        logit_bias=[],
        logprobs=True,
        max_tokens=4,
        n=2,
        presence_penalty=0.5,
        seed=2**40 + 1,
        stop=["\n\n"],
        temperature=0.9,
        top_logprobs=2,
        top_p=0.9,
        extra_body={"min_p": 0.01, "top_k": 20},
    )
    assert answer.model != "tgi"
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice in answer.choices:
        assert len(choice.logprobs.content) <= 4
        assert all(len(entry.top_logprobs) == 2 for entry in choice.logprobs.content)


def check_openai_alias(url: str) -> None:
    client = InferenceClient(base_url=f"{url}/v1", api_key="none")
    answer = client.chat.completions.create(messages=MESSAGES, max_tokens=4)
    assert answer.choices[0].message.content is not None


def check_endpoint_info_and_health(url: str) -> None:
    client = InferenceClient(url, provider="hf-inference")
    info = client.get_endpoint_info()
    assert info["model_id"] == "tgi_llama/builtin"
    assert info["max_total_tokens"] == 768
    assert client.health_check() is True


def check_async_client(url: str) -> None:
    asyncio.run(_ask_several_at_once(url))


async def _ask_several_at_once(url: str) -> None:
    async with AsyncInferenceClient(url) as client:
        answers = await asyncio.gather(
            *(client.chat_completion(MESSAGES, max_tokens=6, temperature=0) for _ in range(3)),
            client.text_generation(PROMPT, max_new_tokens=6),
        )
        assert len({answer.choices[0].message.content for answer in answers[:3]}) == 1
        assert answers[3].startswith(PROMPT)
        pieces = await client.text_generation(PROMPT, max_new_tokens=6, stream=True)
        assert "".join([piece async for piece in pieces]) == answers[3].removeprefix(PROMPT)
        chunks = await client.chat_completion(MESSAGES, max_tokens=6, temperature=0, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])
        assert text == answers[0].choices[0].message.content
    async with AsyncInferenceClient(url, provider="hf-inference") as client:
        assert (await client.get_endpoint_info())["model_id"] == "tgi_llama/builtin"
        assert await client.health_check() is True


WEATHER = {
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


def check_chat_calls_a_tool_streamed_or_not(url: str) -> None:
    ask = {
        "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
        "tools": [WEATHER],
        "tool_choice": "auto",
        "temperature": 0,
        "max_tokens": 60,
    }
    client = InferenceClient(url)
    answer = client.chat_completion(**ask)
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    chunks = list(client.chat_completion(**ask, stream=True))
    deltas = [c.choices[0].delta.tool_calls[0] for c in chunks if c.choices[0].delta.tool_calls]
    assert deltas[0].function.name == "get_weather"
    assert json.loads("".join(d.function.arguments for d in deltas)) == {"city": "Paris"}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def check_chat_keeps_a_response_format(url: str) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    text = "Extract name and age as JSON: Anna is 34 years old and lives in Oslo."
    answer = InferenceClient(url).chat_completion(
        [{"role": "user", "content": text}],
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        temperature=0,
        max_tokens=60,
    )
    assert json.loads(answer.choices[0].message.content) == {"name": "Anna", "age": 34}


CHECKS: dict[str, Callable[[str], None]] = {
    name: value for name, value in globals().items() if name.startswith("check_")
}


if __name__ == "__main__":
    for name, check in CHECKS.items():
        sys.stdout.write(f"{name}\n")
        check(sys.argv[1])
