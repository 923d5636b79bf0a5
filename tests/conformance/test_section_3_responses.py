"""Contract section 3, rows that ``test_http_generate`` and ``test_http_openai`` do not hold."""

import json
import math

import attrs
import pytest
from fakes.engine import FakeEngine, fails_after, text_events

from tgi_llama.errors import GenerationError
from tgi_llama.generation import FinishReason

ASK = {"inputs": "hi"}
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
MESSAGES = {"messages": [{"role": "user", "content": "hi"}]}


async def body_of(site, path, payload):
    response = await site.client().post(path, json=payload)
    return (await response.get_data()).decode()


def events_of(body):
    return [json.loads(e.removeprefix("data: ")) for e in body.split("\n\n") if "{" in e]


async def test_3_logprob_that_is_no_number_is_null(make_site):
    events = text_events("a", "b")
    broken = attrs.evolve(events[0], token=attrs.evolve(events[0].token, logprob=math.nan))
    site = await make_site(FakeEngine(lambda _: [broken, events[1]]))
    body = await body_of(site, "/generate", {**ASK, "parameters": {"details": True}})
    assert '"logprob":null' in body


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("path", ["/", "/generate", "/generate_stream"])
async def test_3_2_full_text_is_as_asked_on_every_route(make_site, path, value):
    ask = {**ASK, "parameters": {"return_full_text": value}}
    body = await body_of(await make_site(), path, ask)
    assert f'"generated_text":"{"hi" if value else ""}Hello world"' in body


@pytest.mark.parametrize("path", ["/generate", "/generate_stream"])
async def test_3_2_full_text_is_not_the_default_elsewhere(make_site, path):
    assert '"generated_text":"Hello world"' in await body_of(await make_site(), path, ASK)


async def test_3_3_stream_counts_from_1_and_has_its_text_in_the_last_event(make_site):
    events = events_of(await body_of(await make_site(), "/generate_stream", ASK))
    assert [event["index"] for event in events] == [1, 2, 3]
    assert [event["generated_text"] for event in events] == [None, None, "Hello world"]
    assert events[-1]["token"]["special"], "the end token is an event of its own"


async def test_3_3_length_stop_ends_with_an_ordinary_token(make_site):
    site = await make_site(FakeEngine(lambda _: text_events("a", "b")))
    last = events_of(await body_of(site, "/generate_stream", ASK))[-1]
    assert (last["token"]["text"], last["token"]["special"]) == ("b", False)


@pytest.mark.parametrize(
    ("path", "payload"),
    [
        ("/generate_stream", ASK),
        ("/", {**ASK, "stream": True}),
        (CHAT, {**MESSAGES, "stream": True}),
        (COMPLETIONS, {"prompt": "a", "stream": True}),
    ],
)
async def test_3_4_event_is_one_line_of_data_and_an_empty_one(make_site, path, payload):
    body = await body_of(await make_site(), path, payload)
    *events, rest = body.split("\n\n")
    assert rest == ""
    assert all(event.startswith("data: ") and "\n" not in event for event in events)
    assert ("data: [DONE]" in events) == path.startswith("/v1/")
    assert events.count("data: [DONE]") <= 1


@pytest.mark.parametrize("path", ["/generate_stream", "/"])
async def test_3_5_native_stream_ends_with_the_error(make_site, path):
    site = await make_site(FakeEngine(fails_after("a", error=GenerationError("x"))))
    body = await body_of(site, path, {**ASK, "stream": True})
    assert body.endswith(
        'data: {"error":"Request failed during generation: x","error_type":"generation"}\n\n'
    )


@pytest.mark.parametrize(("path", "payload"), [(CHAT, MESSAGES), (COMPLETIONS, {"prompt": "a"})])
async def test_3_5_openai_stream_ends_with_the_error_and_its_real_code(make_site, path, payload):
    site = await make_site(FakeEngine(fails_after("a", error=GenerationError("x"))))
    body = await body_of(site, path, {**payload, "stream": True})
    assert body.endswith(
        'data: {"error":{"message":"Request failed during generation: x","type":"server_error",'
        '"param":null,"code":424},"error_type":"generation"}\n\ndata: [DONE]\n\n'
    )


async def test_3_7_health_is_empty_and_models_has_one_entry(make_site):
    client = (await make_site()).client()
    assert await (await client.get("/health")).get_data() == b""
    models = await (await client.get("/v1/models")).get_json()
    assert [list(model) for model in models["data"]] == [["id", "object", "created", "owned_by"]]


@pytest.mark.parametrize(
    ("model", "reported"), [(None, "test/model"), ("tgi", "test/model"), ("x/y", "x/y")]
)
@pytest.mark.parametrize(("path", "payload"), [(CHAT, MESSAGES), (COMPLETIONS, {"prompt": "a"})])
async def test_3_8_model_is_the_one_asked_for(make_site, path, payload, model, reported):
    answer = json.loads(await body_of(await make_site(), path, {**payload, "model": model}))
    assert answer["model"] == reported


async def test_3_8_without_logprobs_there_are_none_although_top_ones_are_asked_for(make_site):
    answer = json.loads(await body_of(await make_site(), CHAT, {**MESSAGES, "top_logprobs": 2}))
    assert answer["choices"][0]["logprobs"] is None


async def test_3_8_every_delta_has_the_role_and_there_is_no_chunk_of_it_alone(make_site):
    chunks = events_of(await body_of(await make_site(), CHAT, {**MESSAGES, "stream": True}))
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": "Hello"},
        {"role": "assistant", "content": " world"},
        {"role": "assistant", "content": ""},
    ]


async def test_3_8_token_that_shows_nothing_is_a_chunk_with_empty_content(make_site):
    site = await make_site(FakeEngine(lambda _: text_events("a", "", "b")))
    chunks = events_of(await body_of(site, CHAT, {**MESSAGES, "stream": True}))
    assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks] == ["a", "", "b"]


async def test_3_8_finish_reasons_are_openai_s_for_each_of_ours(make_site):
    for reason in FinishReason:
        site = await make_site(FakeEngine(lambda _, reason=reason: text_events("a", reason=reason)))
        answer = json.loads(await body_of(site, CHAT, MESSAGES))
        assert answer["choices"][0]["finish_reason"] in ("stop", "length")


async def test_3_9_completion_is_not_echoed_and_has_no_logprobs_unless_asked(make_site):
    answer = json.loads(await body_of(await make_site(), COMPLETIONS, {"prompt": "abc"}))
    assert answer["choices"] == [
        {"index": 0, "text": "Hello world", "logprobs": None, "finish_reason": "stop"}
    ]


async def test_3_9_streams_of_several_prompts_end_each_and_are_done_once(make_site):
    ask = {"prompt": ["a", "bc", "def"], "stream": True}
    body = await body_of(await make_site(), COMPLETIONS, ask)
    assert body.count("[DONE]") == 1
    ends = [e["choices"][0] for e in events_of(body) if e["choices"][0]["finish_reason"]]
    assert sorted(choice["index"] for choice in ends) == [0, 1, 2]
