"""Chats whose answers have tool calls and reasoning: whole, streamed, cut and broken."""

import json
import logging

import pytest
from fakes.constraints import HERMES, THINKING_HERMES, RememberingCompiler, constraints
from fakes.engine import FakeEngine, ended_by_eos, fails_after, generated, text_events
from fakes.raw_client import post
from fakes.scripted_loop import Script
from trio.testing import wait_all_tasks_blocked

from tgi_llama.engine.engine import Engine
from tgi_llama.errors import GenerationError
from tgi_llama.generation import FinishReason

CHAT = "/v1/chat/completions"
TOOLS = [{"function": {"name": name}} for name in ("weather", "clock")]
ASK = {"messages": [{"role": "user", "content": "hi"}], "tools": TOOLS}

WEATHER = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
CLOCK = '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'

CALLS = [
    (WEATHER, None, [("weather", {"city": "Oslo"})]),
    (f"{WEATHER}\n{CLOCK}", None, [("weather", {"city": "Oslo"}), ("clock", {})]),
    (f"Let me see.\n{WEATHER}", "Let me see.", [("weather", {"city": "Oslo"})]),
    ("No tool serves that.", "No tool serves that.", []),
]


def site_of(make_site, script, turns=HERMES, **settings):
    engine = script if isinstance(script, FakeEngine | Engine) else FakeEngine(script)
    return make_site(engine, constraints=constraints(turns), **settings)


async def answer(site, **fields):
    response = await site.client().post(CHAT, json={**ASK, **fields})
    assert response.status_code == 200
    return await response.get_json()


async def choice(site, **fields):
    (one,) = (await answer(site, **fields))["choices"]
    return one


def events_of(body):
    *events, done = [block.removeprefix(b"data: ") for block in body.split(b"\n\n") if block]
    assert done == b"[DONE]"
    return [json.loads(event) for event in events]


async def chunks(site, **fields):
    response = await site.client().post(CHAT, json={**ASK, "stream": True, **fields})
    assert response.status_code == 200
    return events_of(await response.get_data())


async def deltas(site, **fields):
    """The deltas and the last reason of the one choice of a streamed answer."""
    choices = [chunk["choices"][0] for chunk in await chunks(site, **fields)]
    assert all(one["delta"]["role"] == "assistant" for one in choices)
    assert all(one["finish_reason"] is None for one in choices[:-1])
    return [one["delta"] for one in choices], choices[-1]["finish_reason"]


def put_together(pieces):
    """A message, as OpenAI's clients make it of deltas: texts of a key are joined."""
    content, reasoning, calls = "", "", []
    for piece in pieces:
        content += piece.get("content", "")
        reasoning += piece.get("reasoning_content", "")
        for call in piece.get("tool_calls", ()):
            if call["index"] == len(calls):
                assert call["function"]["arguments"] == ""
                assert call["type"] == "function"
                calls.append([call["id"], call["function"]["name"], ""])
            else:
                assert call["index"] == len(calls) - 1
                assert set(call) == {"index", "function"}
                assert set(call["function"]) == {"arguments"}
                calls[-1][2] += call["function"]["arguments"]
    return content, reasoning, calls


@pytest.mark.parametrize(("text", "content", "calls"), CALLS)
@pytest.mark.parametrize("cut", [list, lambda text: [text], lambda text: [text[:20], text[20:]]])
async def test_turn_is_the_same_whole_and_streamed_however_it_is_cut(
    make_site, text, content, calls, cut
):
    site = await site_of(make_site, generated(*cut(text)))
    one = await choice(site)
    message = one["message"]
    assert message["content"] == content
    assert [
        (call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in message.get("tool_calls", ())
    ] == calls
    reason = "tool_calls" if calls else "stop"
    assert one["finish_reason"] == reason

    pieces, last = await deltas(site)
    streamed, _, made = put_together(pieces)
    assert last == reason
    assert streamed == (content or "")
    assert [(name, json.loads(arguments)) for _, name, arguments in made] == calls
    assert not any(mark in json.dumps(pieces) for mark in ("<tool_call", "</tool_call"))


async def test_ids_of_calls_are_all_different(make_site):
    site = await site_of(make_site, generated(f"{WEATHER}\n{CLOCK}"))
    ids = [
        call["id"]
        for one in (await answer(site, n=2))["choices"]
        for call in one["message"]["tool_calls"]
    ]
    ids += [call_id for call_id, _, _ in put_together((await deltas(site))[0])[2]]
    assert len(set(ids)) == 6
    assert all(call_id.startswith("call_") for call_id in ids)


async def test_call_cut_by_the_token_limit_says_length(make_site):
    cut = text_events(*WEATHER[:-30], reason=FinishReason.LENGTH)
    site = await site_of(make_site, lambda _request: cut)
    assert (await choice(site))["finish_reason"] == "length"
    pieces, reason = await deltas(site)
    assert reason == "length"
    ((_, name, arguments),) = put_together(pieces)[2]
    assert name == "weather"
    assert '{"city": "Oslo"}'.startswith(arguments)


@pytest.mark.parametrize("value", ["[" * 200 + "]" * 200, "9" * 5000, '"\\ud800"'])
async def test_whole_call_that_python_reads_with_pain_is_one_all_the_same(make_site, value):
    call = WEATHER.replace('"Oslo"', value)
    site = await site_of(make_site, generated(call))
    assert (await choice(site))["finish_reason"] == "tool_calls"
    pieces, reason = await deltas(site)
    assert reason == "tool_calls"
    assert put_together(pieces)[2][0][2] == f'{{"city": {value}}}'


async def test_call_cut_by_a_stop_string_is_not_one_to_execute(make_site):
    cut = text_events(*WEATHER[:55], reason=FinishReason.STOP_SEQUENCE)
    site = await site_of(make_site, lambda _request: cut)
    one = await choice(site)
    assert one["message"]["tool_calls"]
    assert one["finish_reason"] == "stop"
    assert (await deltas(site))[1] == "stop"


async def test_call_that_ended_at_a_stop_string_is_one(make_site):
    ended = text_events(*WEATHER, reason=FinishReason.STOP_SEQUENCE)
    site = await site_of(make_site, lambda _request: ended)
    assert (await choice(site))["finish_reason"] == "tool_calls"


BROKEN = '<tool_call>\n{"name": "nobody", "arguments": {}}\n</tool_call>'


async def test_markup_that_cannot_be_read_is_content_a_warning_and_a_count(make_site, caplog):
    caplog.set_level(logging.WARNING)
    site = await site_of(make_site, generated(*BROKEN))
    one = await choice(site)
    assert one["message"] == {"role": "assistant", "content": BROKEN}
    assert one["finish_reason"] == "stop"
    assert site.metric("tgi_llama_tool_parse_failures") == 1
    pieces, reason = await deltas(site)
    assert put_together(pieces) == (BROKEN, "", [])
    assert reason == "stop"
    assert site.metric("tgi_llama_tool_parse_failures") == 2
    told = [r.message for r in caplog.records if "tool call could not be read" in r.message]
    assert len(told) == 2


async def test_long_turn_is_read_on_a_worker_and_still_counted(make_site):
    site = await site_of(make_site, generated(*(BROKEN + "x" * 300)), max_concurrent_requests=1)
    assert (await choice(site))["message"]["content"] == BROKEN + "x" * 300
    assert site.metric("tgi_llama_tool_parse_failures") == 1


# --- reasoning ------------------------------------------------------------------------------------

THOUGHT = "<think>\nWhat is it?\n</think>\n\nIt rains."


async def test_reasoning_has_a_key_of_its_own(make_site):
    site = await site_of(make_site, generated(*THOUGHT), THINKING_HERMES)
    one = await choice(site, tools=None)
    reasoning = one["message"]["reasoning_content"]
    assert reasoning.strip() == "What is it?"
    assert one["message"] == {
        "role": "assistant",
        "content": "It rains.",
        "reasoning_content": reasoning,
    }
    pieces, reason = await deltas(site, tools=None)
    assert put_together(pieces) == ("It rains.", reasoning, [])
    assert reason == "stop"


async def test_reasoning_format_none_leaves_it_in_the_content(make_site):
    site = await site_of(make_site, generated(*THOUGHT), THINKING_HERMES)
    one = await choice(site, tools=None, reasoning_format="none")
    assert one["message"] == {"role": "assistant", "content": THOUGHT}
    pieces, _ = await deltas(site, tools=None, reasoning_format="none")
    assert put_together(pieces) == (THOUGHT, "", [])


async def test_reasoning_stands_before_calls(make_site):
    site = await site_of(make_site, generated(*f"<think>Hm.</think>\n\n{WEATHER}"), THINKING_HERMES)
    message = (await choice(site))["message"]
    assert message["reasoning_content"] == "Hm."
    assert message["content"] is None
    assert len(message["tool_calls"]) == 1


async def test_answer_of_nothing_but_reasoning_has_empty_content(make_site):
    cut = text_events(*"<think>Hm", reason=FinishReason.LENGTH)
    site = await site_of(make_site, lambda _request: cut, THINKING_HERMES)
    one = await choice(site, tools=None)
    assert (one["message"]["content"], one["finish_reason"]) == ("", "length")


# --- several, logprobs, usage, failures -----------------------------------------------------------


async def test_choices_are_read_apart(make_site):
    engine = FakeEngine(branches=[generated(*WEATHER), generated("No", ".")])
    site = await site_of(make_site, engine)
    first, second = (await answer(site, n=2))["choices"]
    assert (first["finish_reason"], second["finish_reason"]) == ("tool_calls", "stop")
    assert second["message"] == {"role": "assistant", "content": "No."}
    found = {0: [], 1: []}
    reasons = {}
    for chunk in await chunks(site, n=2):
        (one,) = chunk["choices"]
        found[one["index"]].append(one["delta"])
        reasons[one["index"]] = one["finish_reason"]
    assert put_together(found[0])[2][0][1] == "weather"
    assert put_together(found[1]) == ("No.", "", [])
    assert reasons == {0: "tool_calls", 1: "stop"}


async def test_logprobs_list_every_token_once_in_order(make_site):
    pieces = ["Now: ", *WEATHER]
    site = await site_of(make_site, generated(*pieces))
    whole = (await choice(site, logprobs=True))["logprobs"]["content"]
    assert [entry["token"] for entry in whole] == [*pieces, "<|im_end|>"]
    streamed = [
        entry
        for chunk in await chunks(site, logprobs=True)
        for entry in chunk["choices"][0]["logprobs"]["content"]
    ]
    assert streamed == whole


async def test_usage_counts_markup_too(make_site):
    site = await site_of(make_site, generated(*WEATHER))
    expected = len(WEATHER) + 1
    assert (await answer(site))["usage"]["completion_tokens"] == expected
    last = (await chunks(site, stream_options={"include_usage": True}))[-1]
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == expected


@pytest.mark.parametrize("pieces", [[], ["Hm"], list(WEATHER[:60])])
async def test_generation_that_breaks_is_a_424(make_site, pieces):
    error = GenerationError("the grammar is stuck")
    site = await site_of(make_site, fails_after(*pieces, error=error))
    response = await site.client().post(CHAT, json=ASK)
    assert response.status_code == 424
    assert "the grammar is stuck" in (await response.get_json())["error"]["message"]
    last = (await chunks(site))[-1]
    assert last["error"]["code"] == 424
    assert site.admission.n_running == 0
    assert site.engine.n_open == 0


async def test_tokens_held_back_go_out_the_short_way_once_they_are_known(
    make_site, nursery, n_short
):
    """Nothing is written for the pieces of a mark, and the connection stays in step."""
    script = Script("It", " is", " <tool", "_c", "old", "!")
    engine = Engine(script, script.note_delivered)
    await nursery.start(engine.run)
    site = await site_of(make_site, engine)
    client = await site.connect()
    await client.send(post(CHAT, {**ASK, "stream": True}))
    for _ in range(6):
        await script.step()
        await wait_all_tasks_blocked()
    response = await client.read_response()
    pieces = [json.loads(event)["choices"][0]["delta"] for event in response.events[:-1]]
    assert put_together(pieces)[0] == "It is <tool_cold!"
    assert 0 < n_short() < 5


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_not_enforced_is_told_in_a_header(make_site, stream):
    paths = tuple(f"guided_json.ü[{i}]" for i in range(12))
    for relaxed, expected in (
        ((), None),
        (paths[:2], "guided_json.%C3%BC[0], guided_json.%C3%BC[1]"),
        (("x\n" * 300,), ("x%0A" * 300)[:200]),
    ):
        site = await make_site(
            FakeEngine(), constraints=constraints(compiler=RememberingCompiler(relaxed))
        )
        ask = {**ASK, "tools": None, "guided_json": {}, "stream": stream}
        response = await site.client().post(CHAT, json=ask)
        assert response.headers.get("x-grammar-warnings") == expected
    site = await make_site(constraints=constraints(compiler=RememberingCompiler(paths)))
    response = await site.client().post(CHAT, json={**ASK, "stream": stream})
    assert response.headers["x-grammar-warnings"].endswith("[9], ...")


async def test_vertex_chat_gives_the_content_or_all_where_there_are_calls(make_site):
    for script, expected in (
        (generated(*THOUGHT), "It rains."),
        (generated(*WEATHER), WEATHER),
    ):
        site = await site_of(make_site, script, THINKING_HERMES)
        response = await site.client().post("/vertex", json={"instances": [ASK]})
        assert await response.get_json() == {"predictions": [expected]}


def test_scripts_end_with_a_token_that_is_no_text() -> None:
    assert ended_by_eos("a")[-1].delta == ""
