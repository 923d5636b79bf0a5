"""``/vertex`` (contract 1.6, with the changes of decisions)."""

import json

import attrs
import pytest
import trio
from fakes.engine import FakeEngine, fails_after, text_events

from tgi_llama.errors import GenerationError
from tgi_llama.generation import Token, TokenEvent, TokenId
from tgi_llama.server.app import create_app

PROMPT = {"inputs": "hi"}
CHAT = {"messages": [{"role": "user", "content": "hi"}]}


async def predict(site, *instances):
    response = await site.client().post("/vertex", json={"instances": list(instances)})
    return response, (await response.get_data()).decode()


def error_of(body):
    return json.loads(body)["error"]


def echo(request):
    """Says the prompt again, without its start token."""
    return text_events(*(chr(token) for token in request.prompt_ids if token != 1))


async def test_predictions_are_texts_in_the_order_of_the_instances(make_site):
    site = await make_site(FakeEngine(echo))
    _, body = await predict(site, {"inputs": "three"}, CHAT, {"inputs": "é"})
    assert body == '{"predictions":["three","user: hi\\nassistant:","é"]}'


async def test_it_has_no_headers_of_its_own(make_site):
    response, _ = await predict(await make_site(), PROMPT)
    assert not [name for name, _ in response.headers if name.lower().startswith("x-")]
    assert response.headers["content-type"] == "application/json"


async def test_every_instance_is_one_generation_of_one_request(make_site):
    site = await make_site()
    await predict(site, PROMPT, CHAT, PROMPT)
    assert site.engine.n_opened == 3
    assert site.metric("tgi_request_count") == 1
    assert site.metric("tgi_request_success") == 1
    assert site.admission.n_running == 0


async def test_instances_run_at_the_same_time(make_site, nursery):
    site = await make_site(FakeEngine(gate=trio.Event()))
    nursery.start_soon(predict, site, PROMPT, CHAT)
    await site.engine.opened.wait()
    assert site.engine.n_open == 2
    site.engine.gate.set()


@pytest.mark.parametrize("instance", [PROMPT, {**PROMPT, "parameters": None}])
async def test_without_parameters_it_samples(make_site, instance):
    site = await make_site()
    await predict(site, instance)
    assert not site.engine.requests[0].sampling.greedy


async def test_all_parameters_are_passed_on(make_site):
    site = await make_site()
    parameters = {"temperature": 0.5, "top_k": 3, "stop": ["x"], "seed": 5, "max_new_tokens": 9}
    await predict(site, {**PROMPT, "parameters": {}}, {**PROMPT, "parameters": parameters})
    greedy, sampled = site.engine.requests
    assert greedy.sampling.greedy
    assert (sampled.sampling.temperature, sampled.sampling.top_k) == (0.5, 3)
    assert sampled.sampling.seed == 5
    assert sampled.stopping.stop_strings == ("x",)
    assert sampled.stopping.max_new_tokens == 9


async def test_full_text_is_returned_on_request_only(make_site):
    full = {**PROMPT, "parameters": {"return_full_text": True}}
    _, body = await predict(await make_site(), PROMPT, full)
    assert json.loads(body) == {"predictions": ["Hello world", "hiHello world"]}


async def test_stream_of_a_chat_instance_is_ignored(make_site):
    _, body = await predict(await make_site(), {**CHAT, "stream": True})
    assert body == '{"predictions":["Hello world"]}'


async def test_best_of_gives_the_likeliest_text(make_site):
    def script(_request):
        n = site.engine.n_opened
        (event,) = text_events(f"text {n}")
        logprob = [-2.0, -1.0][n]
        token = Token(TokenId(5), f"text {n}", logprob, False)
        return [TokenEvent(token=token, delta=token.text, finish=event.finish)]

    site = await make_site(FakeEngine(script))
    instance = {**PROMPT, "parameters": {"best_of": 2, "do_sample": True}}
    _, body = await predict(site, instance)
    assert body == '{"predictions":["text 1"]}'


async def test_empty_list_has_tgis_text(make_site):
    site = await make_site()
    response, body = await predict(site)
    assert response.status_code == 422
    assert body == '{"error":"Input validation error","error_type":"Input validation error"}'
    assert site.metric('tgi_request_failure{err="validation"}') == 1


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({}, "instances: missing, expected a list"),
        ({"instances": None}, "instances: expected a list, got null"),
        (
            {"instances": [PROMPT, {}]},
            "instances[1]: expected an object with `inputs` or `messages`, got neither",
        ),
        (
            {"instances": ["hi"]},
            'instances[0]: expected an object with `inputs` or `messages`, got "hi"',
        ),
        ({"instances": [{"inputs": 1}]}, "instances[0].inputs: expected a string, got 1"),
        (
            {"instances": [PROMPT, {"inputs": "a", "parameters": {"top_k": "5"}}]},
            'instances[1].parameters.top_k: expected an integer, got "5"',
        ),
        (
            {"instances": [{"messages": [{"content": "a"}]}]},
            "instances[0].messages[0].role: missing, expected a string",
        ),
        # Both are wrong: the first is what the client most likely meant.
        (
            {"instances": [{"inputs": 1, "messages": 1}]},
            "instances[0].inputs: expected a string, got 1",
        ),
    ],
)
async def test_wrong_shape_names_the_field(make_site, payload, message):
    response = await (await make_site()).client().post("/vertex", json=payload)
    assert response.status_code == 422
    assert await response.get_json() == {
        "error": f"Failed to deserialize the JSON body into the target type: {message}",
        "error_type": "validation",
    }


async def test_instance_that_is_no_prompt_but_a_chat_is_served_as_chat(make_site):
    _, body = await predict(await make_site(), {"inputs": None, **CHAT})
    assert body == '{"predictions":["Hello world"]}'


@pytest.mark.parametrize(
    ("instance", "error"),
    [
        (
            {**PROMPT, "parameters": {"temperature": 0}},
            "instances[1].parameters.temperature: `temperature` must be strictly positive",
        ),
        ({"inputs": ""}, "instances[1].inputs: `inputs` cannot be empty"),
        ({**CHAT, "top_p": 2}, "instances[1].top_p: `top_p` must be > 0.0 and <= 1.0"),
        ({**CHAT, "n": 2}, "instances[1].n: `n` must be 1: an instance has one prediction"),
    ],
)
async def test_wrong_value_keeps_its_status_and_names_the_instance(make_site, instance, error):
    site = await make_site()
    response, body = await predict(site, PROMPT, instance)
    assert response.status_code == 422
    assert json.loads(body) == {
        "error": f"Input validation error: {error}",
        "error_type": "validation",
    }
    assert site.engine.n_opened == 0
    assert site.admission.n_running == 0


async def test_template_error_keeps_its_type(make_site):
    site = await make_site()
    validator = attrs.evolve(site.services.validator, chat_templates=None)
    site.app = create_app(attrs.evolve(site.services, validator=validator))
    response, body = await predict(site, PROMPT, CHAT)
    assert response.status_code == 422
    assert json.loads(body) == {
        "error": "Template error: instances[1]: template not found",
        "error_type": "template_error",
    }


@pytest.mark.parametrize(("n_permits", "status"), [(3, 200), (2, 422), (0, 429)])
async def test_each_instance_takes_a_permit(make_site, n_permits, status):
    site = await make_site(max_concurrent_requests=n_permits)
    response, body = await predict(site, PROMPT, CHAT, PROMPT)
    assert response.status_code == status
    error_types = {422: "validation", 429: "overloaded"}
    assert status == 200 or json.loads(body)["error_type"] == error_types[status]
    assert site.admission.n_running == 0


@pytest.mark.parametrize("best_of", [3, 0])
async def test_what_is_wrong_anyway_comes_before_overload(make_site, best_of):
    site = await make_site(max_concurrent_requests=1)
    wrong = {**PROMPT, "parameters": {"best_of": best_of, "do_sample": True}}
    with site.admission.permit():
        response, body = await predict(site, wrong)
    assert response.status_code == (422 if best_of else 429)
    assert not best_of or error_of(body) == (
        "Input validation error: instances[0].parameters.best_of: "
        "`best_of` must be > 0 and <= 2. Given: 3"
    )


async def test_best_of_takes_a_permit_for_each_generation(make_site):
    site = await make_site(max_concurrent_requests=3)
    instance = {**PROMPT, "parameters": {"best_of": 2, "do_sample": True}}
    with site.admission.permit():
        assert (await predict(site, instance))[0].status_code == 200
        assert (await predict(site, instance, PROMPT))[0].status_code == 429


async def test_instance_that_fails_ends_the_others_and_keeps_its_status(make_site):
    def script(request):
        if len(request.prompt_ids) == 4:
            return fails_after("a", error=GenerationError("no"))(request)
        return ()  # would never end

    site = await make_site(FakeEngine(script))
    response, body = await predict(site, PROMPT, {"inputs": "bad"}, PROMPT)
    assert response.status_code == 424
    assert error_of(body) == "Request failed during generation: no"
    assert site.engine.n_open == 0
    assert site.admission.n_running == 0
    assert site.metric('tgi_request_failure{err="generation"}') == 1


async def test_it_asks_for_the_key(make_site):
    response, _ = await predict(await make_site(api_keys=("secret",)), PROMPT)
    assert response.status_code == 401
