"""``/invocations`` (contract 1.5, with the changes of decisions)."""

import json
import re

import pytest
from fakes.engine import FakeEngine, fails_after

from tgi_llama.errors import GenerationError

PROMPT = {"inputs": "hi"}
CHAT = {"messages": [{"role": "user", "content": "hi"}]}
COMPLETION = {"prompt": "hi"}
DELEGATED = [(PROMPT, "/"), (CHAT, "/v1/chat/completions"), (COMPLETION, "/v1/completions")]


async def fetch(site, payload, path="/invocations"):
    response = await site.client().post(path, json=payload)
    return response, (await response.get_data()).decode()


def stable(body):
    """Without what differs between two calls of the same route."""
    return re.sub(r'"id":"(\w+)-[0-9a-f]{24}","created":[0-9]+', r'"id":"\1"', body)


def own_headers(response):
    return {name: value for name, value in response.headers if name.lower().startswith("x-")}


async def test_generate_body_is_answered_with_a_list_and_the_full_text(make_site):
    _, body = await fetch(await make_site(), PROMPT)
    assert body == '[{"generated_text":"hiHello world"}]'


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("payload", "path"), DELEGATED)
async def test_it_answers_as_the_route_that_the_body_is_made_for(make_site, payload, path, stream):
    site = await make_site()
    response, body = await fetch(site, {**payload, "stream": stream})
    expected_response, expected = await fetch(site, {**payload, "stream": stream}, path)
    assert response.status_code == 200
    assert stable(body) == stable(expected)
    assert response.headers["content-type"] == expected_response.headers["content-type"]
    assert own_headers(response) == own_headers(expected_response) != {}
    assert site.metric("tgi_request_count") == 2
    assert site.metric("tgi_request_success") == 2
    assert site.admission.n_running == 0


@pytest.mark.parametrize(
    ("payload", "begin"),
    [
        ({**PROMPT, **CHAT, **COMPLETION}, '[{"generated_text"'),
        ({**CHAT, **COMPLETION}, '{"object":"chat.completion"'),
        # The first that can be read as its kind is taken, as in TGI.
        ({"inputs": 1, **CHAT}, '{"object":"chat.completion"'),
        ({"inputs": None, "messages": "hi", **COMPLETION}, '{"object":"text_completion"'),
    ],
)
async def test_first_kind_that_fits_is_served(make_site, payload, begin):
    _, body = await fetch(await make_site(), payload)
    assert body.startswith(begin)


@pytest.mark.parametrize("payload", [{}, {"input": "hi"}, [PROMPT], "hi", None, 1])
async def test_body_of_no_kind_has_tgis_text(make_site, payload):
    response = await (
        (await make_site())
        .client()
        .post(
            "/invocations",
            data=json.dumps(payload),
            headers={"content-type": "application/json"},
        )
    )
    assert response.status_code == 422
    answer = await response.get_json()
    assert answer["error"].startswith(
        "Failed to deserialize the JSON body into the target type: expected an object with `inputs`"
    )
    assert answer["error"].endswith(
        "data did not match any variant of untagged enum SagemakerRequest"
    )
    assert answer["error_type"] == "validation"


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"inputs": 1}, "inputs: expected a string, got 1"),
        (
            {"inputs": "a", "parameters": {"top_k": "5"}},
            'parameters.top_k: expected an integer, got "5"',
        ),
        ({"messages": [{"role": "user"}]}, "messages[0]: expected `content` or `tool_calls`"),
        ({"prompt": "a", "stream": 1}, "stream: expected a boolean, got 1"),
        ({"inputs": 1, "messages": 2, "prompt": 3}, "inputs: expected a string, got 1"),
        ({"messages": 2, "prompt": 3}, "messages: expected a list, got 2"),
    ],
)
async def test_body_that_does_not_fit_names_the_field_of_its_first_kind(
    make_site, payload, message
):
    response, body = await fetch(await make_site(), payload)
    assert response.status_code == 422
    assert json.loads(body)["error"].startswith(
        f"Failed to deserialize the JSON body into the target type: {message}"
    )


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("payload", [PROMPT | {"inputs": ""}, {**CHAT, "max_tokens": 0}])
async def test_errors_have_their_status_and_the_native_form(make_site, payload, stream):
    site = await make_site()
    response, body = await fetch(site, {**payload, "stream": stream})
    assert response.status_code == 422
    assert json.loads(body)["error"].startswith("Input validation error: ")
    assert json.loads(body)["error_type"] == "validation"
    assert own_headers(response) == {}
    assert site.metric('tgi_request_failure{err="validation"}') == 1


@pytest.mark.parametrize(("payload", "_path"), DELEGATED)
async def test_generation_that_fails_keeps_its_status(make_site, payload, _path):
    site = await make_site(FakeEngine(fails_after("a", error=GenerationError("no"))))
    response, body = await fetch(site, payload)
    assert response.status_code == 424
    assert json.loads(body) == {
        "error": "Request failed during generation: no",
        "error_type": "generation",
    }


async def test_overload_says_when_to_retry(make_site):
    response, body = await fetch(await make_site(max_concurrent_requests=0), PROMPT)
    assert response.status_code == 429
    assert response.headers["retry-after"] == "1"
    assert json.loads(body) == {"error": "Model is overloaded", "error_type": "overloaded"}


async def test_it_asks_for_the_key(make_site):
    response, _ = await fetch(await make_site(api_keys=("secret",)), PROMPT)
    assert response.status_code == 401
