"""Tools by the clients' own helpers; those of ``huggingface_hub`` are in ``hub_calls``."""

import json

import jsonschema
import openai
import pytest
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_huggingface import ChatHuggingFace, HuggingFaceEndpoint
from langchain_openai import ChatOpenAI
from openai import OpenAI
from pydantic import BaseModel
from text_generation import Client
from text_generation.types import Message, Tool

pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pydantic.PydanticDeprecatedSince20"
)

ASK = "What is the weather in Paris?"
MESSAGES = [{"role": "user", "content": ASK}]
TOOLS = [
    {
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
    },
    {
        "type": "function",
        "function": {
            "name": "set_timer",
            "description": "Set the timer",
            "parameters": {
                "type": "object",
                "properties": {"minutes": {"type": "integer"}},
                "required": ["minutes"],
            },
        },
    },
]


class get_weather(BaseModel):  # noqa: N801  # the tool is called by the name of the class
    """Get the weather of a city"""

    city: str


@tool("get_weather")
def weather_tool(city: str) -> str:
    """Get the weather of a city"""
    return f"sunny in {city}"


@pytest.fixture
def client(server_url):
    with OpenAI(base_url=f"{server_url}/v1", api_key="none", max_retries=0) as client:
        yield client


def ask(client, **fields):
    return client.chat.completions.create(
        **{"model": "tgi", "messages": MESSAGES, "tools": TOOLS, "temperature": 0, **fields}
    )


def called(message):
    return [(c.function.name, json.loads(c.function.arguments)) for c in message.tool_calls or ()]


# --- openai ---------------------------------------------------------------------------------------


def test_openai_call_result_and_answer(client):
    (choice,) = ask(client).choices
    assert choice.finish_reason == "tool_calls"
    assert called(choice.message) == [("get_weather", {"city": "Paris"})]
    (call,) = choice.message.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": '{"weather": "sunny"}'}
    after = ask(client, messages=[*MESSAGES, choice.message, result])
    assert after.choices[0].finish_reason == "stop"
    assert "sunny" in after.choices[0].message.content


def test_openai_model_may_decline(client):
    (choice,) = ask(client, messages=[{"role": "user", "content": "What is 12 + 7?"}]).choices
    assert choice.message.tool_calls is None
    assert "19" in choice.message.content


@pytest.mark.parametrize(
    ("tool_choice", "name"),
    [
        ("required", None),
        ({"type": "function", "function": {"name": "set_timer"}}, "set_timer"),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": "set_timer"}}],
                },
            },
            "set_timer",
        ),
    ],
)
def test_openai_choice_is_kept(client, tool_choice, name):
    messages = [{"role": "user", "content": "What is 12 + 7?"}]
    (choice,) = ask(client, messages=messages, tool_choice=tool_choice).choices
    ((made, arguments),) = called(choice.message)
    assert name in (None, made)
    assert arguments
    assert choice.finish_reason == "tool_calls"


def test_openai_choice_none_is_a_plain_chat(client):
    (choice,) = ask(client, tool_choice="none", max_tokens=20).choices
    assert choice.message.tool_calls is None


def test_openai_parse_gives_arguments_as_models(client):
    answer = client.chat.completions.parse(
        model="tgi",
        messages=MESSAGES,
        tools=[openai.pydantic_function_tool(get_weather)],
        temperature=0,
    )
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.parsed_arguments == get_weather(city="Paris")


def test_openai_stream_helper_puts_calls_together(client):
    with client.chat.completions.stream(
        model="tgi",
        messages=MESSAGES,
        tools=[openai.pydantic_function_tool(get_weather)],
        temperature=0,
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion().choices[0]
    assert "tool_calls.function.arguments.delta" in kinds
    assert "tool_calls.function.arguments.done" in kinds
    (call,) = final.message.tool_calls
    assert call.id.startswith("call_")
    assert call.function.parsed_arguments == get_weather(city="Paris")
    assert final.finish_reason == "tool_calls"


def test_openai_streamed_deltas_make_the_call(client):
    *chunks, last = ask(client, stream=True)
    deltas = [c.choices[0].delta.tool_calls[0] for c in chunks]
    assert (deltas[0].id[:5], deltas[0].function.name) == ("call_", "get_weather")
    assert deltas[0].function.arguments == ""
    assert [d.id for d in deltas[1:]] == [None] * (len(deltas) - 1)
    assert json.loads("".join(d.function.arguments for d in deltas)) == {"city": "Paris"}
    assert last.choices[0].finish_reason == "tool_calls"


SCHEMAS = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}


@pytest.mark.parametrize("tool_choice", ["auto", "required"])
@pytest.mark.parametrize("parallel", [True, False])
def test_openai_calls_are_valid_however_hot_the_model_is(client, tool_choice, parallel):
    n_calls = 0
    for seed in range(4):
        answer = ask(
            client,
            n=4,
            temperature=3,
            seed=100 * seed,
            tool_choice=tool_choice,
            parallel_tool_calls=parallel,
            max_tokens=120,
        )
        for choice in answer.choices:
            calls = choice.message.tool_calls or []
            whole = calls if choice.finish_reason == "tool_calls" else calls[:-1]
            for call in whole:
                arguments = json.loads(call.function.arguments)
                jsonschema.validate(arguments, SCHEMAS[call.function.name])
            n_calls += len(whole)
            assert len(calls) <= 1 or parallel
            assert choice.finish_reason in ("tool_calls", "length", "stop")
            assert choice.finish_reason != "stop" or tool_choice == "auto"
    assert n_calls or tool_choice == "auto"


# --- langchain ------------------------------------------------------------------------------------


def chat_openai(url):
    return ChatOpenAI(
        base_url=f"{url}/v1", api_key="none", model="tgi", max_tokens=60, temperature=0
    )


def chat_hugging_face(url):
    return ChatHuggingFace(llm=HuggingFaceEndpoint(endpoint_url=url, max_new_tokens=60))


def test_langchain_calls_and_tells_the_result(server_url):
    chat = chat_openai(server_url).bind_tools([weather_tool])
    answer = chat.invoke(ASK)
    (call,) = answer.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Paris"})
    result = weather_tool.invoke(call)
    assert isinstance(result, ToolMessage)
    assert "sunny" in chat.invoke([HumanMessage(ASK), answer, result]).content


def test_langchain_streams_calls(server_url):
    whole = AIMessageChunk(content="")
    for chunk in chat_openai(server_url).bind_tools([weather_tool]).stream(ASK):
        whole += chunk
    (call,) = whole.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Paris"})


def test_langchain_huggingface_calls(server_url):
    chat = chat_hugging_face(server_url).bind_tools([weather_tool], tool_choice="required")
    (call,) = chat.invoke(ASK).tool_calls
    assert call["name"] == "get_weather"
    assert set(call["args"]) == {"city"}


# --- text-generation ------------------------------------------------------------------------------


def test_text_generation_calls(server_url):
    answer = Client(server_url).chat(
        messages=[Message(role="user", content=ASK)],
        tools=[Tool(**one) for one in TOOLS],
        tool_choice="get_weather",
        temperature=0.1,
        seed=1,
        max_tokens=60,
    )
    (call,) = answer.choices[0].message.tool_calls
    assert call["function"]["name"] == "get_weather"
    assert set(json.loads(call["function"]["arguments"])) == {"city"}
