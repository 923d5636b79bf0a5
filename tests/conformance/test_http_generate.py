"""``/generate``, ``/generate_stream`` and ``POST /`` to the byte (contract 3.1 to 3.5 and 4)."""

import pytest
from fakes.engine import FakeEngine, fails_after, text_events
from fakes.raw_client import post

from tgi_llama.errors import EngineDead, GenerationError, IncompleteGeneration, Overloaded
from tgi_llama.generation import FinishReason, Token, TokenEvent, TokenId

ASK = {"inputs": "hé"}
HELLO = '{"id":10,"text":"Hello","logprob":-0.5,"special":false}'
WORLD = '{"id":11,"text":" world","logprob":-1.0,"special":false}'
EOS = '{"id":2,"text":"<|im_end|>","logprob":-0.125,"special":true}'


async def body_of(site, path, payload):
    response = await site.client().post(path, json=payload)
    return (await response.get_data()).decode()


async def test_generate_without_details_is_the_text_alone(make_site):
    assert await body_of(await make_site(), "/generate", ASK) == '{"generated_text":"Hello world"}'


async def test_generate_with_details_has_every_key_in_order(make_site):
    body = await body_of(
        await make_site(), "/generate", {**ASK, "parameters": {"details": True, "do_sample": True}}
    )
    assert body == (
        '{"generated_text":"Hello world","details":{"finish_reason":"eos_token",'
        '"generated_tokens":3,"seed":7,"prefill":[],"tokens":[' + f"{HELLO},{WORLD},{EOS}" + "]}}"
    )


async def test_generate_greedy_reports_null_seed(make_site):
    body = await body_of(await make_site(), "/generate", {**ASK, "parameters": {"details": True}})
    assert '"seed":null' in body


async def test_generate_with_top_tokens_lists_one_list_per_token(make_site):
    token = Token(TokenId(5), "a", -0.5, False)
    (event,) = text_events("a")
    event = TokenEvent(token=token, top_tokens=(token, token), delta="a", finish=event.finish)
    site = await make_site(FakeEngine(lambda _: [event]))
    ask = {**ASK, "parameters": {"details": True, "top_n_tokens": 2}}
    wire = '{"id":5,"text":"a","logprob":-0.5,"special":false}'
    body = await body_of(site, "/generate", ask)
    assert body.endswith(f'"tokens":[{wire}],"top_tokens":[[{wire},{wire}]]}}}}')
    stream = await body_of(site, "/generate_stream", ask)
    assert f'"token":{wire},"top_tokens":[{wire},{wire}],"generated_text"' in stream


async def test_generate_return_full_text_puts_the_prompt_in_front(make_site):
    site = await make_site()
    ask = {**ASK, "parameters": {"return_full_text": True}}
    assert await body_of(site, "/generate", ask) == '{"generated_text":"héHello world"}'
    assert '"generated_text":"héHello world"' in await body_of(site, "/generate_stream", ask)


async def test_compat_not_streamed_is_a_list_with_the_full_text(make_site):
    body = await body_of(await make_site(), "/", ASK)
    assert body == '[{"generated_text":"héHello world"}]'


@pytest.mark.parametrize("path", ["/", "/generate_stream"])
async def test_stream_is_one_event_per_token_and_nothing_after(make_site, path):
    parameters = {"return_full_text": False}
    body = await body_of(await make_site(), path, {**ASK, "stream": True, "parameters": parameters})
    assert body == (
        f'data: {{"index":1,"token":{HELLO},"generated_text":null,"details":null}}\n\n'
        f'data: {{"index":2,"token":{WORLD},"generated_text":null,"details":null}}\n\n'
        f'data: {{"index":3,"token":{EOS},"generated_text":"Hello world","details":null}}\n\n'
    )


async def test_stream_with_details_ends_with_them(make_site):
    ask = {**ASK, "parameters": {"details": True, "do_sample": True}}
    body = await body_of(await make_site(), "/generate_stream", ask)
    assert body.endswith(
        '"generated_text":"Hello world","details":{"finish_reason":"eos_token",'
        '"generated_tokens":3,"seed":7,"input_length":3}}\n\n'
    )


async def test_stream_escapes_line_breaks(make_site):
    site = await make_site(FakeEngine(lambda _: text_events("a\nb\r\n")))
    body = await body_of(site, "/generate_stream", ASK)
    assert '"text":"a\\nb\\r\\n"' in body
    assert body.count("\n") == 2


@pytest.mark.parametrize("reason", list(FinishReason))
async def test_finish_reason_is_in_tgi_s_words(make_site, reason):
    site = await make_site(FakeEngine(lambda _: text_events("a", reason=reason)))
    body = await body_of(site, "/generate", {**ASK, "parameters": {"details": True}})
    assert f'"finish_reason":"{reason.value}"' in body


async def test_headers_not_streamed_tell_where_the_time_went(make_site):
    client = await (await make_site()).connect()
    response = await client.request(post("/generate", ASK))
    own = {name: value for name, value in response.headers.items() if name.startswith("x-")}
    assert own == {
        "x-compute-type": "cpu",
        "x-compute-time": "1.5",
        "x-compute-characters": "2",
        "x-total-time": "1500",
        "x-validation-time": "500",
        "x-queue-time": "250",
        "x-inference-time": "750",
        "x-time-per-token": "250",
        "x-prompt-tokens": "3",
        "x-generated-tokens": "3",
    }
    assert response.headers["content-type"] == "application/json"


async def test_headers_streamed_are_those_known_before_the_first_token(make_site):
    client = await (await make_site(compute_type="1-gpu")).connect()
    response = await client.request(post("/generate_stream", ASK))
    own = {name: value for name, value in response.headers.items() if name.startswith("x-")}
    assert own == {
        "x-compute-type": "1-gpu",
        "x-compute-characters": "2",
        "x-accel-buffering": "no",
    }
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", ["/generate", "/generate_stream", "/"])
@pytest.mark.parametrize(
    ("engine", "limit", "payload", "status", "error", "error_type"),
    [
        (
            FakeEngine(),
            8,
            {"inputs": ""},
            422,
            "Input validation error: `inputs` cannot be empty",
            "validation",
        ),
        (FakeEngine(), 0, ASK, 429, "Model is overloaded", "overloaded"),
        (FakeEngine(closed=EngineDead("the decode thread died")), 8, ASK, 503, None, "unavailable"),
    ],
    ids=["validation", "overloaded", "engine dead"],
)
async def test_what_is_known_before_the_first_token_has_its_status(
    make_site, path, engine, limit, payload, status, error, error_type
):
    site = await make_site(engine, max_concurrent_requests=limit)
    response = await site.client().post(path, json={**payload, "stream": True})
    body = await response.get_json()
    assert response.status_code == status
    assert body["error_type"] == error_type
    assert error is None or body == {"error": error, "error_type": error_type}
    assert not [name for name, _ in response.headers if name.lower().startswith("x-")]
    assert site.admission.n_running == 0


@pytest.mark.parametrize(
    ("error", "status", "text", "error_type"),
    [
        (GenerationError("x"), 424, "Request failed during generation: x", "generation"),
        (IncompleteGeneration("x"), 500, "Incomplete generation", "incomplete_generation"),
        (Overloaded("x"), 429, "Model is overloaded", "overloaded"),
    ],
)
async def test_generate_failing_after_a_token_has_its_status(
    make_site, error, status, text, error_type
):
    site = await make_site(FakeEngine(fails_after("a", error=error)))
    response = await site.client().post("/generate", json=ASK)
    assert response.status_code == status
    assert await response.get_json() == {"error": text, "error_type": error_type}
