"""Contract section 4: which ``x-*`` headers stand on which answer."""

import pytest
from fakes.engine import FakeEngine, fails_after
from fakes.raw_client import get, post

from tgi_llama.errors import GenerationError

KNOWN_AT_START = {
    "x-compute-type",
    "x-compute-characters",
    "x-validation-time",
    "x-prompt-tokens",
}
KNOWN_AT_END = KNOWN_AT_START | {
    "x-total-time",
    "x-queue-time",
    "x-inference-time",
    "x-time-per-token",
    "x-generated-tokens",
    "x-cached-tokens",
}
WITH_SECONDS = KNOWN_AT_END | {"x-compute-time"}
STREAMED = KNOWN_AT_START | {"x-accel-buffering"}

ASK = {"inputs": "hi"}
CHAT = {"messages": [{"role": "user", "content": "hi"}]}
COMPLETION = {"prompt": ["a", "bc"]}
INFER = {
    "id": "1",
    "inputs": [{"name": "a", "shape": [1], "datatype": "BYTES", "data": [97]}],
    "outputs": [{"name": "b"}],
}
STREAM = {"stream": True}

ROUTES = [
    ("/generate", ASK, WITH_SECONDS),
    ("/", ASK, WITH_SECONDS),
    ("/v1/chat/completions", CHAT, WITH_SECONDS),
    ("/v1/completions", COMPLETION, KNOWN_AT_END),
    ("/invocations", ASK, WITH_SECONDS),
    ("/invocations", CHAT, WITH_SECONDS),
    ("/invocations", COMPLETION, KNOWN_AT_END),
    ("/generate_stream", ASK, STREAMED),
    ("/", ASK | STREAM, STREAMED),
    ("/v1/chat/completions", CHAT | STREAM, STREAMED),
    ("/v1/completions", COMPLETION | STREAM, STREAMED),
    ("/invocations", ASK | STREAM, STREAMED),
    ("/invocations", CHAT | STREAM, STREAMED),
    ("/tokenize", ASK, set()),
    ("/chat_tokenize", CHAT, set()),
    ("/vertex", {"instances": [ASK]}, set()),
    ("/v2/models/m/versions/1/infer", INFER, set()),
]


def own(response):
    return {name: value for name, value in response.headers.items() if name.startswith("x-")}


@pytest.mark.parametrize(("path", "payload", "expected"), ROUTES)
async def test_4_headers_of_an_answer(make_site, path, payload, expected):
    client = await (await make_site()).connect()
    response = await client.request(post(path, payload))
    assert response.status == 200
    assert own(response).keys() == expected


@pytest.mark.parametrize("path", ["/info", "/health", "/ping", "/metrics", "/v1/models", "/v2"])
async def test_4_routes_that_generate_nothing_have_none(make_site, path):
    client = await (await make_site()).connect()
    assert own(await client.request(get(path))) == {}


@pytest.mark.parametrize("path", ["/generate", "/generate_stream", "/invocations"])
async def test_4_errors_have_none(make_site, path):
    client = await (await make_site()).connect()
    assert own(await client.request(post(path, {"inputs": ""}))) == {}
    site = await make_site(FakeEngine(fails_after(error=GenerationError("x"))))
    response = await (await site.connect()).request(post("/generate", ASK))
    assert (response.status, own(response)) == (424, {})


@pytest.mark.parametrize(
    ("path", "payload"), [(path, payload) for path, payload, expected in ROUTES if expected]
)
async def test_4_compute_type_is_the_configured_one(make_site, path, payload):
    client = await (await make_site(compute_type="2-h100")).connect()
    response = await client.request(post(path, payload))
    assert own(response)["x-compute-type"] == "2-h100"


async def test_4_values_of_several_prompts_are_summed(make_site):
    client = await (await make_site()).connect()
    headers = own(await client.request(post("/v1/completions", COMPLETION)))
    assert headers["x-compute-characters"] == "3"
    assert headers["x-prompt-tokens"] == "5"
    assert headers["x-generated-tokens"] == "6"
    assert headers["x-total-time"] == "3000"


async def test_4_prompt_of_several_choices_is_counted_once(make_site):
    client = await (await make_site()).connect()
    headers = own(await client.request(post("/v1/chat/completions", {**CHAT, "n": 2})))
    assert headers["x-prompt-tokens"] == "19"
    assert headers["x-compute-characters"] == "19"
    assert headers["x-generated-tokens"] == "6"
    assert headers["x-compute-time"] == "3"


async def test_4_characters_are_those_of_unicode_and_of_the_rendered_chat(make_site):
    client = await (await make_site()).connect()
    headers = own(await client.request(post("/generate", {"inputs": "aé😀"})))
    assert headers["x-compute-characters"] == "3"
    headers = own(await client.request(post("/v1/chat/completions", CHAT)))
    assert headers["x-compute-characters"] == str(len("user: hi\nassistant:"))
