"""``/generate``, ``/generate_stream`` and ``POST /`` to the byte (contract 3.1 to 3.5 and 4)."""

import json

import pytest
from fakes.engine import FakeEngine, ended_by_eos, fails_after, generated, text_events
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
        "x-cached-tokens": "0",
    }
    assert response.headers["content-type"] == "application/json"


async def test_headers_streamed_are_those_known_before_the_first_token(make_site):
    moments = iter([0.5, 0.7559])  # received, submitted
    client = await (await make_site(compute_type="1-gpu", clock=lambda: next(moments))).connect()
    response = await client.request(post("/generate_stream", ASK))
    own = {name: value for name, value in response.headers.items() if name.startswith("x-")}
    assert own == {
        "x-compute-type": "1-gpu",
        "x-compute-characters": "2",
        "x-validation-time": "255",
        "x-prompt-tokens": "3",
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


# --- decoder_input_details ---


PREFILL = (
    '"prefill":[{"id":1,"text":"<s>","logprob":null},{"id":104,"text":"h","logprob":-0.25},'
    '{"id":233,"text":"é","logprob":-0.5}]'
)


@pytest.mark.parametrize("path", ["/generate", "/"])
async def test_decoder_input_details_list_the_prompt_and_bring_details(make_site, path):
    ask = {**ASK, "parameters": {"decoder_input_details": True, "return_full_text": False}}
    body = await body_of(await make_site(), path, ask)
    assert body.removeprefix("[").removesuffix("]") == (
        '{"generated_text":"Hello world","details":{"finish_reason":"eos_token",'
        f'"generated_tokens":3,"seed":null,{PREFILL},"tokens":[{HELLO},{WORLD},{EOS}]}}}}'
    )


async def test_prompt_logprobs_are_computed_only_when_asked_for(make_site):
    site = await make_site()
    await body_of(site, "/generate", {**ASK, "parameters": {"details": True}})
    assert not site.engine.requests[0].prompt_logprobs


# --- best_of ---


def with_logprobs(*logprobs):
    """A script of one token for each of these."""
    tokens = [Token(TokenId(10 + i), f"t{i}", value, False) for i, value in enumerate(logprobs)]
    last = text_events(*"x" * len(logprobs))[-1].finish
    return lambda _: [
        TokenEvent(token=token, delta=token.text, finish=last if token is tokens[-1] else None)
        for token in tokens
    ]


BEST_OF_2 = {**ASK, "parameters": {"best_of": 2, "do_sample": True}}


def asking(**parameters):
    return {**ASK, "parameters": {**BEST_OF_2["parameters"], **parameters}}


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((-1.0,), (-0.5,), "t0"),
        ((-1.0, -1.0), (-1.5,), "t0t1"),  # by the mean, not by the sum
        ((-2.0, -1.0), (-1.5,), "t0t1"),  # equal: the first one
        ((-1.6,), (-2.0, -1.0), "t0t1"),
    ],
)
async def test_best_of_is_the_highest_mean_logprob(make_site, first, second, expected):
    site = await make_site(FakeEngine(branches=[with_logprobs(*first), with_logprobs(*second)]))
    body = await body_of(site, "/generate", BEST_OF_2)
    assert body == f'{{"generated_text":"{expected}"}}'
    assert site.engine.groups == [2]  # submitted together, so that they share the prefill
    assert len({request.sampling.seed for request in site.engine.requests}) == 2


async def test_best_of_with_details_lists_the_losers_with_every_key_in_order(make_site):
    site = await make_site(FakeEngine(branches=[with_logprobs(-2.0), generated("Hello", " world")]))
    body = await body_of(site, "/generate", asking(details=True, decoder_input_details=True))
    loser = '{"id":10,"text":"t0","logprob":-2.0,"special":false}'
    assert body == (
        '{"generated_text":"Hello world","details":{"finish_reason":"eos_token",'
        f'"generated_tokens":3,"seed":8,{PREFILL},"tokens":[{HELLO},{WORLD},{EOS}],'
        '"best_of_sequences":[{"generated_text":"t0","finish_reason":"length",'
        f'"generated_tokens":1,"seed":7,{PREFILL},"tokens":[{loser}]}}]}}}}'
    )


async def test_best_of_losers_have_full_text_and_top_tokens_where_asked(make_site):
    token = Token(TokenId(5), "a", -9.0, False)
    (event,) = text_events("a")
    event = TokenEvent(token=token, top_tokens=(token,), delta="a", finish=event.finish)
    site = await make_site(FakeEngine(branches=[lambda _: [event], with_logprobs(-1.0)]))
    ask = asking(details=True, return_full_text=True, top_n_tokens=1)
    answer = json.loads(await body_of(site, "/generate", ask))
    (loser,) = answer["details"]["best_of_sequences"]
    assert answer["generated_text"] == "hét0"
    assert loser["generated_text"] == "héa"
    assert [[token["id"] for token in step] for step in loser["top_tokens"]] == [[5]]
    assert list(answer["details"])[-2:] == ["best_of_sequences", "top_tokens"]


async def test_best_of_losers_stay_in_order(make_site):
    engine = FakeEngine(branches=[with_logprobs(-value) for value in (3.0, 1.0, 4.0, 2.0)])
    site = await make_site(engine, max_best_of=4)
    answer = json.loads(await body_of(site, "/generate", asking(best_of=4, details=True)))
    losers = answer["details"]["best_of_sequences"]
    assert [loser["tokens"][0]["logprob"] for loser in losers] == [-3.0, -4.0, -2.0]


@pytest.mark.parametrize("best_of", [0, 1])
async def test_best_of_at_most_1_is_as_absent(make_site, best_of):
    site = await make_site()
    body = await body_of(site, "/generate", asking(best_of=best_of, details=True))
    assert "best_of_sequences" not in body
    assert site.engine.n_opened == 1


async def test_best_of_headers_and_durations_are_the_winner_s_alone(make_site):
    site = await make_site(FakeEngine(branches=[with_logprobs(-2.0), generated("a", "b")]))
    response = await (await site.connect()).request(post("/generate", BEST_OF_2))
    assert response.headers["x-generated-tokens"] == "3"
    assert response.headers["x-prompt-tokens"] == "3"
    assert response.headers["x-total-time"] == "1500"
    assert response.headers["x-compute-time"] == "1.5"
    assert site.metric("tgi_request_generated_tokens_sum") == 3
    assert site.metric("tgi_request_duration_count") == 1
    assert site.metric("tgi_request_input_length_count") == 2
    assert site.metric("tgi_request_count") == site.metric("tgi_request_success") == 1


async def test_best_of_fails_with_one_branch_and_cancels_the_other(make_site):
    failing = fails_after("a", error=GenerationError("x"))
    hanging = [event for event in ended_by_eos("a") if event.finish is None]
    site = await make_site(FakeEngine(branches=[lambda _: hanging, failing]))
    response = await site.client().post("/generate", json=BEST_OF_2)
    assert response.status_code == 424
    assert site.engine.n_open == 0
    assert site.engine.n_cancelled == 1
    assert site.admission.n_running == 0
    assert site.metric("tgi_request_duration_count") == 0


async def test_each_branch_takes_a_permit(make_site):
    site = await make_site(max_concurrent_requests=2)
    with site.admission.permit():
        response = await site.client().post("/generate", json=BEST_OF_2)
    assert response.status_code == 429
    assert site.engine.n_opened == 0
    assert site.admission.n_running == 0


# --- what is judged before the permit (contract 2.4) ---


@pytest.mark.parametrize(
    ("path", "parameters", "status"),
    [
        ("/generate_stream", {"best_of": 2, "do_sample": True}, 422),
        ("/generate_stream", {"decoder_input_details": True}, 422),
        ("/generate", {"best_of": 3, "do_sample": True}, 422),
        ("/generate", {"temperature": -1}, 429),
    ],
)
async def test_overloaded_server_tells_what_tgi_judges_before_the_permit(
    make_site, path, parameters, status
):
    site = await make_site(max_concurrent_requests=0)
    response = await site.client().post(path, json={**ASK, "parameters": parameters})
    assert response.status_code == status
