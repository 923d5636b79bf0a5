"""Contract section 6 as far as it is in force, and what decisions.md puts for the rest: over
HTTP. How calls are read is in ``tests/turns`` and ``tests/server/test_chat_turns.py``."""

import json

import pytest
from fakes.constraints import constraints
from fakes.engine import FakeEngine, generated

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hi"}]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


async def ask(site, **fields):
    return await site.client().post(CHAT, json={"messages": MESSAGES, **fields})


async def told(response):
    body = await response.get_json()
    return response.status_code, body["error"]["message"], body["error_type"]


@pytest.mark.parametrize("stream", [False, True])
async def test_6_2_unknown_name_is_a_tool_error(make_site, stream):
    for choice in ("g", {"type": "function", "function": {"name": "g"}}):
        response = await ask(await make_site(), tools=TOOLS, tool_choice=choice, stream=stream)
        assert await told(response) == (422, "Tool error: Tool with name g not found", "tool_error")


async def test_6_2_grammar_beside_tools_is_for_the_content(make_site):
    grammar = {"type": "json", "value": {"properties": {}}}
    site = await make_site(constraints=constraints())
    response = await ask(site, tools=TOOLS, response_format=grammar)
    assert response.status_code == 200
    (request,) = site.engine.requests
    assert request.constraint is not None


@pytest.mark.parametrize("choice", ["auto", "required", "f", None])
async def test_6_5_call_is_answered_with_one_run(make_site, choice):
    call = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
    site = await make_site(FakeEngine(generated(call)), constraints=constraints())
    response = await ask(site, tools=TOOLS, tool_choice=choice)
    (one,) = (await response.get_json())["choices"]
    assert one["finish_reason"] == "tool_calls"
    assert one["message"]["content"] is None
    (made,) = one["message"]["tool_calls"]
    assert made["function"]["name"] == "f"
    assert json.loads(made["function"]["arguments"]) == {"a": 1}
    assert len(site.engine.requests) == 1


@pytest.mark.parametrize("choice", ["auto", "required", "f", None])
async def test_6_tools_are_refused_by_name_where_nothing_reads_calls(make_site, choice):
    response = await ask(await make_site(), tools=TOOLS, tool_choice=choice)
    assert await told(response) == (
        422,
        "Input validation error: `tools` is not supported by this server",
        "validation",
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": TOOLS, "tool_choice": "none"},
        {"tools": []},
        {"tools": None},
        {"tool_choice": "g"},
        {"tool_prompt": "x"},
        {"parallel_tool_calls": True},
    ],
)
async def test_6_2_without_tools_to_call_it_is_a_plain_chat(make_site, fields):
    response = await ask(await make_site(), **fields)
    assert response.status_code == 200
    answer = await response.get_json()
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "Hello world"}


@pytest.mark.parametrize(
    ("tools", "path"),
    [
        ({}, "tools"),
        ([{}], "tools[0].function"),
        ([{"type": "function", "function": {}}], "tools[0].function.name"),
        ([{"type": 1, "function": {"name": "f"}}], "tools[0].type"),
    ],
)
async def test_6_1_wrong_definition_names_its_place(make_site, tools, path):
    response = await ask(await make_site(), tools=tools)
    assert response.status_code == 422
    assert (await response.get_json())["error"]["param"] == path


@pytest.mark.parametrize(
    "choice",
    [
        5,
        [],
        {"function": {}},
        {"function": "f"},
        {"type": "auto"},
        {"type": "function", "name": "f"},
        {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": []}},
    ],
)
async def test_6_2_other_shapes_of_the_choice_are_refused(make_site, choice):
    response = await ask(await make_site(), tools=TOOLS, tool_choice=choice)
    assert response.status_code == 422
    assert (await response.get_json())["error"]["param"].startswith("tool_choice")
