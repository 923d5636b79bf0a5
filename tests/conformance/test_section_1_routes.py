"""Contract section 1, row by row: routes, keys, errors before and around a route."""

import json

import attrs
import pytest
from fakes.engine import FakeEngine, fails_after
from fakes.raw_client import get, post
from fakes.validation import TaggedTemplates

from tgi_llama.errors import GenerationError, IncompleteGeneration
from tgi_llama.server.app import create_app

ASK = {"inputs": "hi"}
CHAT = {"messages": [{"role": "user", "content": "hi"}]}
COMPLETION = {"prompt": "hi"}
STREAMS = [
    ("/generate_stream", ASK),
    ("/", {**ASK, "stream": True}),
    ("/v1/chat/completions", {**CHAT, "stream": True}),
    ("/v1/completions", {**COMPLETION, "stream": True}),
    ("/invocations", {**ASK, "stream": True}),
]
WHOLE = [
    ("/generate", ASK),
    ("/", ASK),
    ("/v1/chat/completions", CHAT),
    ("/v1/completions", COMPLETION),
    ("/invocations", ASK),
    ("/vertex", {"instances": [ASK]}),
]


def served(site):
    return {
        (method, rule.rule) for rule in site.app.url_map.iter_rules() for method in rule.methods
    }


def unwrapped(body):
    """TGI's two keys, of either form of error."""
    error = body["error"]
    return (error if isinstance(error, str) else error["message"]), body["error_type"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/"),
        ("GET", "/"),
        ("POST", "/generate"),
        ("POST", "/generate_stream"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("POST", "/vertex"),
        ("POST", "/invocations"),
        ("POST", "/tokenize"),
        ("POST", "/chat_tokenize"),
        ("GET", "/info"),
        ("GET", "/health"),
        ("GET", "/ping"),
        ("GET", "/metrics"),
        ("GET", "/v1/models"),
        ("GET", "/docs"),
        ("GET", "/docs/"),
        ("GET", "/api-doc/openapi.json"),
        ("GET", "/v2/health/live"),
        ("GET", "/v2/health/ready"),
        ("GET", "/v2"),
    ],
)
async def test_1_1_route_of_tgi_is_there(make_site, method, path):
    assert (method, path) in served(await make_site())


@pytest.mark.parametrize(
    "path", ["/v1/embeddings", "/v1/health", "/v1/moderations", "/v1", "/generate/"]
)
async def test_1_1_other_routes_are_404(make_site, path):
    client = await (await make_site()).connect()
    assert (await client.request(post(path, ASK))).status == 404


async def test_1_1_slashes_at_the_front_are_one(make_site):
    # TGI answers 404. Werkzeug takes them as one, and that is guarded like the other.
    client = await (await make_site()).connect()
    assert (await client.request(post("//generate", ASK))).status == 200


@pytest.mark.parametrize(("path", "payload"), [*WHOLE, *STREAMS, ("/tokenize", ASK)])
async def test_1_2_without_keys_configured_all_are_open(make_site, path, payload):
    response = await (await make_site()).client().post(path, json=payload)
    assert response.status_code == 200


@pytest.mark.parametrize("path", [path for path, _ in WHOLE])
async def test_1_2_key_is_asked_for_before_the_body_is_read(make_site, path):
    site = await make_site(api_keys=("secret",))
    response = await site.client().post(path, data=b"no json at all")
    assert response.status_code == 401


async def test_1_2_unknown_path_is_404_with_keys_too(make_site):
    site = await make_site(api_keys=("secret",))
    assert (await site.client().post("/nothing")).status_code == 404


async def test_1_2_the_path_without_a_key_is_not_that_with_one(make_site):
    site = await make_site(api_keys=("secret",))
    assert (await site.client().get("/")).status_code == 200
    assert (await site.client().post("/", json=ASK)).status_code == 401


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        "APPLICATION/JSON",
        "application/x+json",
    ],
)
async def test_1_3_json_content_types_are_taken(make_site, content_type):
    site = await make_site()
    headers = {"content-type": content_type}
    response = await site.client().post("/generate", data=json.dumps(ASK), headers=headers)
    assert response.status_code == 200


FAILURES = [
    pytest.param(
        GenerationError("x"),
        424,
        ("Request failed during generation: x", "generation"),
        ("Request failed during generation: x", "generation"),
        id="generation",
    ),
    pytest.param(
        IncompleteGeneration("x"),
        500,
        ("Incomplete generation", "incomplete_generation"),
        ("Incomplete generation stream", "incomplete_generation_stream"),
        id="incomplete",
    ),
]


@pytest.mark.parametrize(("path", "payload"), WHOLE)
@pytest.mark.parametrize(("error", "status", "whole", "_streamed"), FAILURES)
async def test_1_4_failed_generation_has_its_status(
    make_site, path, payload, error, status, whole, _streamed
):
    site = await make_site(FakeEngine(fails_after("a", error=error)))
    response = await site.client().post(path, json=payload)
    assert response.status_code == status
    assert unwrapped(await response.get_json()) == whole


@pytest.mark.parametrize(("path", "payload"), STREAMS)
@pytest.mark.parametrize(("error", "_status", "_whole", "streamed"), FAILURES)
async def test_1_4_failed_stream_ends_with_the_error(
    make_site, path, payload, error, _status, _whole, streamed
):
    site = await make_site(FakeEngine(fails_after("a", error=error)))
    response = await site.client().post(path, json=payload)
    assert response.status_code == 200
    events = [e for e in (await response.get_data()).decode().split("\n\n") if e]
    if path.startswith("/v1/"):
        assert events.pop() == "data: [DONE]"
    assert len(events) == 2
    assert unwrapped(json.loads(events[1].removeprefix("data: "))) == streamed


@pytest.mark.parametrize(("path", "payload"), [*WHOLE, *STREAMS])
async def test_1_4_overloaded_is_429(make_site, path, payload):
    site = await make_site(max_concurrent_requests=0)
    response = await site.client().post(path, json=payload)
    assert response.status_code == 429
    assert unwrapped(await response.get_json()) == ("Model is overloaded", "overloaded")
    assert int(response.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("path", "payload"),
    [
        ("/v1/chat/completions", {}),
        ("/v1/chat/completions", {"stream": True}),
        ("/chat_tokenize", {}),
        ("/invocations", {}),
    ],
)
async def test_1_4_template_error_is_422(make_site, path, payload):
    site = await make_site()
    validator = attrs.evolve(site.services.validator, chat_templates=TaggedTemplates())
    app = create_app(attrs.evolve(site.services, validator=validator))
    messages = [{"role": "refused", "content": "x"}]
    response = await app.test_client().post(path, json={"messages": messages, **payload})
    assert response.status_code == 422
    assert unwrapped(await response.get_json()) == (
        "Template error: no such role",
        "template_error",
    )


async def test_1_4_no_template_is_a_template_error(make_site):
    site = await make_site()
    validator = attrs.evolve(site.services.validator, chat_templates=None)
    app = create_app(attrs.evolve(site.services, validator=validator))
    response = await app.test_client().post("/v1/chat/completions", json=CHAT)
    assert response.status_code == 422
    assert unwrapped(await response.get_json()) == (
        "Template error: template not found",
        "template_error",
    )


@pytest.mark.parametrize("suffix", ["x", ""])
async def test_1_4_suffix_has_a_type_of_its_own(make_site, suffix):
    site = await make_site()
    ask = {**COMPLETION, "suffix": suffix}
    response = await site.client().post("/v1/completions", json=ask)
    assert response.status_code == 422
    assert unwrapped(await response.get_json()) == (
        "Suffix is not supported and can be achieved by preprocessing the prompt.",
        "suffix not supported",
    )


async def test_1_4_too_many_prompts_name_the_limit(make_site):
    site = await make_site()
    response = await site.client().post("/v1/completions", json={"prompt": ["a"] * 5})
    assert unwrapped(await response.get_json()) == (
        "Number of prompts exceeds the maximum allowed batch size of 4",
        "batch size exceeded",
    )


@pytest.mark.parametrize(
    "request_bytes",
    [
        get("/info"),
        get("/metrics"),
        get("/health"),
        get("/nothing"),
        get("/generate"),
        post("/generate", ASK),
        post("/generate", {}),
        post("/generate_stream", ASK),
        post("/v1/chat/completions", CHAT),
        b"OPTIONS * HTTP/1.1\r\nHost: test\r\n\r\n",
    ],
    ids=lambda request: request.split(b" HTTP")[0].decode(),
)
async def test_1_8_vary_and_origin_are_on_every_answer(make_site, request_bytes):
    client = await (await make_site()).connect()
    response = await client.request(request_bytes)
    assert response.headers["vary"] == (
        "origin, access-control-request-method, access-control-request-headers"
    )
    assert response.headers["access-control-allow-origin"] == "*"


async def test_1_8_traceparent_changes_nothing(make_site):
    headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    response = await (await make_site()).client().post("/generate", json=ASK, headers=headers)
    assert response.status_code == 200
