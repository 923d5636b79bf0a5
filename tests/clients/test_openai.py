"""OpenAI's SDK (contract 10.3)."""

import asyncio

import pytest
from openai import AsyncOpenAI, OpenAI

MESSAGES = [{"role": "user", "content": "Count from 1 to 5."}]


@pytest.fixture
def client(server_url):
    with OpenAI(base_url=f"{server_url}/v1", api_key="none", max_retries=0) as client:
        yield client


def without_cache(usage):
    """What the same request says when it is asked again."""
    assert 0 <= usage.prompt_tokens_details.cached_tokens <= usage.prompt_tokens
    return usage.prompt_tokens, usage.completion_tokens, usage.total_tokens


def test_chat_answers(client):
    answer = client.chat.completions.create(model="tgi", messages=MESSAGES, max_tokens=8)
    (choice,) = answer.choices
    assert (answer.object, answer.model) == ("chat.completion", "tgi_llama/builtin")
    assert answer.id.startswith("chatcmpl-")
    assert choice.message.role == "assistant"
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_chat_streams_what_it_answers_whole(client):
    ask = {"model": "tgi", "messages": MESSAGES, "max_tokens": 8, "temperature": 0}
    whole = client.chat.completions.create(**ask)
    *chunks, usage = client.chat.completions.create(
        **ask, stream=True, stream_options={"include_usage": True}
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert {chunk.id for chunk in chunks} == {usage.id}
    assert [chunk.choices[0].finish_reason for chunk in chunks][-2:] == [
        None,
        whole.choices[0].finish_reason,
    ]
    assert usage.choices == []
    assert without_cache(usage.usage) == without_cache(whole.usage)


def test_chat_stream_helper_accumulates(client):
    ask = {"model": "tgi", "messages": MESSAGES, "max_tokens": 8, "temperature": 0}
    with client.chat.completions.stream(**ask) as stream:
        text = "".join(event.delta for event in stream if event.type == "content.delta")
        # Not `get_final_completion`, which refuses an answer that met its length limit.
        final = stream.current_completion_snapshot
    assert final.choices[0].message.content == text


def test_chat_takes_what_the_sdk_can_send(client):
    answer = client.chat.completions.create(
        model="anything",
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}], "name": "Ann"},
        ],
        frequency_penalty=0.1,
        logit_bias={"5": -1},
        logprobs=True,
        max_completion_tokens=4,
        metadata={"a": "b"},
        n=2,
        presence_penalty=0,
        response_format={"type": "text"},
        seed=3,
        stop="\n\n",
        store=False,
        temperature=1,
        top_logprobs=2,
        top_p=1,
        user="somebody",
        extra_body={"top_k": 20, "min_p": 0.01, "repetition_penalty": 1.1, "typical_p": 0.9},
    )
    assert answer.model == "anything"
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice in answer.choices:
        entries = choice.logprobs.content
        assert 0 < len(entries) <= 4
        assert all(len(entry.top_logprobs) == 2 for entry in entries)
        assert all(entry.logprob <= 0 for entry in entries)
    assert answer.usage.completion_tokens <= 8


def test_chat_with_one_seed_repeats_itself(client):
    ask = {"model": "tgi", "messages": MESSAGES, "max_tokens": 8, "temperature": 1.5, "seed": 11}
    first, second = (client.chat.completions.create(**ask, n=2) for _ in range(2))
    assert [c.message.content for c in first.choices] == [c.message.content for c in second.choices]


def test_chat_streams_several_choices(client):
    chunks = list(
        client.chat.completions.create(
            model="tgi", messages=MESSAGES, max_tokens=4, n=2, stream=True
        )
    )
    ends = [chunk.choices[0] for chunk in chunks if chunk.choices[0].finish_reason]
    assert sorted(choice.index for choice in ends) == [0, 1]


def test_completions_answer_each_prompt_in_order(client):
    answer = client.completions.create(
        model="tgi", prompt=["1, 2, 3,", "a, b, c,"], max_tokens=4, temperature=0, logprobs=2
    )
    assert answer.object == "text_completion"
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice in answer.choices:
        logprobs = choice.logprobs
        n_tokens = len(logprobs.tokens)
        assert len(logprobs.token_logprobs) == len(logprobs.text_offset) == n_tokens
        assert [len(top) for top in logprobs.top_logprobs] == [2] * n_tokens
        assert logprobs.text_offset[0] == 0


def test_completions_stream_what_they_answer_whole(client):
    ask = {"model": "tgi", "prompt": "1, 2, 3,", "max_tokens": 6, "temperature": 0}
    whole = client.completions.create(**ask)
    chunks = list(client.completions.create(**ask, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason


def test_completions_take_token_ids(client, server_url):
    prompt = "1, 2, 3,"
    spans = client.post(f"{server_url}/tokenize", body={"inputs": prompt}, cast_to=object)
    ask = {"model": "tgi", "max_tokens": 4, "temperature": 0}
    by_text = client.completions.create(**ask, prompt=prompt)
    by_ids = client.completions.create(**ask, prompt=[span["id"] for span in spans])
    assert by_ids.choices[0].text == by_text.choices[0].text
    assert without_cache(by_ids.usage) == without_cache(by_text.usage)


def test_completions_echo_the_prompt_with_its_logprobs(client):
    prompt = "1, 2, 3,"
    answer = client.completions.create(
        model="tgi", prompt=prompt, max_tokens=2, echo=True, logprobs=0, temperature=0
    )
    (choice,) = answer.choices
    assert choice.text.startswith(prompt)
    assert choice.logprobs.token_logprobs[0] is None
    assert all(logprob <= 0 for logprob in choice.logprobs.token_logprobs[1:])
    assert len(choice.logprobs.tokens) == answer.usage.total_tokens


def test_completions_best_of_shows_as_many_as_asked(client):
    answer = client.completions.create(
        model="tgi", prompt=["1, 2,", "a, b,"], max_tokens=3, n=2, best_of=3, temperature=1
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]


def test_models_are_listed_and_found(client):
    (model,) = client.models.list().data
    assert model.id == "tgi_llama/builtin"
    assert client.models.retrieve(model.id).id == model.id


def test_headers_tell_where_the_time_went(client):
    raw = client.chat.completions.with_raw_response.create(
        model="tgi", messages=MESSAGES, max_tokens=4
    )
    assert int(raw.headers["x-generated-tokens"]) == raw.parse().usage.completion_tokens


def test_async_client_has_its_answers_at_the_same_time(server_url):
    async def ask():
        async with AsyncOpenAI(base_url=f"{server_url}/v1", api_key="none") as client:

            async def one(n_tokens):
                pieces = []
                stream = await client.chat.completions.create(
                    model="tgi", messages=MESSAGES, max_tokens=n_tokens, temperature=0, stream=True
                )
                async for chunk in stream:
                    pieces.append(chunk.choices[0].delta.content or "")
                return "".join(pieces)

            return await asyncio.gather(*(one(n) for n in (2, 4, 6, 8)))

    texts = asyncio.run(ask())
    assert all(texts[-1].startswith(text) for text in texts)
