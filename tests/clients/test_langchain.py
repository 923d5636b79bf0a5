"""LangChain's packages for Hugging Face and OpenAI servers (contract 10.3)."""

import asyncio

import pytest
from langchain_core.messages import AIMessageChunk
from langchain_huggingface import ChatHuggingFace, HuggingFaceEndpoint
from langchain_openai import ChatOpenAI, OpenAI

# It leaves the connections of asynchronous streams to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Deleting 'AsyncInferenceClient':UserWarning", "ignore::ResourceWarning"
)

QUESTION = "Count from 1 to 5."
PROMPT = "1, 2, 3, 4,"


def chat_openai(url, **fields):
    return ChatOpenAI(base_url=f"{url}/v1", api_key="none", model="tgi", max_tokens=8, **fields)


def endpoint(url, **fields):
    return HuggingFaceEndpoint(endpoint_url=url, max_new_tokens=8, **fields)


CHATS = [
    pytest.param(lambda url: chat_openai(url, temperature=0), id="openai"),
    pytest.param(
        lambda url: ChatHuggingFace(llm=endpoint(url, seed=5, temperature=0.5)), id="huggingface"
    ),
]


@pytest.mark.parametrize("chat", CHATS)
def test_chat_streams_what_it_answers(chat, server_url):
    model = chat(server_url)
    answer = model.invoke(QUESTION)
    assert answer.usage_metadata["output_tokens"] <= 8
    whole = AIMessageChunk(content="")
    for chunk in model.stream(QUESTION):
        whole += chunk
    assert whole.content == answer.content


@pytest.mark.parametrize("chat", CHATS)
def test_chat_batch_has_an_answer_for_each(chat, server_url):
    model = chat(server_url)
    answers = model.batch([QUESTION] * 3)
    assert [answer.content for answer in answers] == [answers[0].content] * 3


@pytest.mark.parametrize("chat", CHATS)
def test_chat_works_asynchronously(chat, server_url):
    async def ask():
        model = chat(server_url)
        answer, *batch = await asyncio.gather(
            model.ainvoke(QUESTION), model.ainvoke(QUESTION), model.abatch([QUESTION] * 2)
        )
        pieces = [chunk.content async for chunk in model.astream(QUESTION)]
        return answer.content, batch, "".join(pieces)

    answer, (again, batch), streamed = asyncio.run(ask())
    assert {again.content, streamed, *(one.content for one in batch)} == {answer}


def test_chat_openai_lists_logprobs(server_url):
    answer = chat_openai(server_url, logprobs=True, top_logprobs=2).invoke(QUESTION)
    entries = answer.response_metadata["logprobs"]["content"]
    assert len(entries) == answer.usage_metadata["output_tokens"]


def test_openai_completions_take_several_prompts_in_one_call(server_url):
    model = OpenAI(
        base_url=f"{server_url}/v1", api_key="none", model="tgi", max_tokens=4, temperature=0
    )
    texts = model.batch([PROMPT, "a, b, c,"])
    assert texts[0] == model.invoke(PROMPT) == "".join(model.stream(PROMPT))


def test_endpoint_streams_what_it_answers(server_url):
    model = endpoint(server_url, seed=5, stop_sequences=["\n\n"])
    assert model.invoke(PROMPT) == "".join(model.stream(PROMPT))
    assert model.batch([PROMPT, PROMPT]) == [model.invoke(PROMPT)] * 2
