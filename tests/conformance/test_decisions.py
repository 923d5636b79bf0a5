"""What is better than in TGI on purpose: one test for each row that no other test is named for."""

import json

import pytest
from fakes.engine import FakeEngine, fails_after, text_events

from tgi_llama.errors import EngineDead, GenerationError, IncompleteGeneration, ShuttingDown

ASK = {"inputs": "hi"}
CHAT = {"messages": [{"role": "user", "content": "hi"}]}
COMPLETION = {"prompt": "hi"}
OPENAI = [("/v1/chat/completions", CHAT), ("/v1/completions", COMPLETION)]
NATIVE = [("/generate", ASK), ("/generate_stream", ASK), ("/", ASK), ("/", {**ASK, "stream": True})]


@pytest.mark.parametrize(("path", "payload"), [*NATIVE, *OPENAI])
@pytest.mark.parametrize("error", [EngineDead("the engine died"), ShuttingDown("it stops")])
async def test_unavailable_is_503_before_any_stream_begins(make_site, path, payload, error):
    site = await make_site(FakeEngine(closed=error))
    response = await site.client().post(path, json={**payload, "stream": True})
    assert response.status_code == 503
    assert (await response.get_json())["error_type"] == "unavailable"


@pytest.mark.parametrize(
    ("path", "payload", "wrong"),
    [
        ("/generate_stream", ASK, {"inputs": ""}),
        ("/", {**ASK, "stream": True}, {"parameters": {"top_p": 1}}),
        ("/v1/chat/completions", {**CHAT, "stream": True}, {"temperature": -1}),
        ("/v1/chat/completions", {**CHAT, "stream": True}, {"messages": [{"role": "x"}]}),
        ("/v1/completions", {**COMPLETION, "stream": True}, {"prompt": []}),
    ],
)
async def test_what_is_known_before_the_first_token_has_its_status(make_site, path, payload, wrong):
    site = await make_site()
    response = await site.client().post(path, json={**payload, **wrong})
    assert response.status_code == 422
    assert response.content_type == "application/json"
    assert site.engine.n_opened == 0


STATUSES = [
    ({"max_concurrent_requests": 0}, None, 429, "rate_limit_error", "overloaded"),
    ({"api_keys": ("x",)}, None, 401, "authentication_error", "authentication"),
    (
        {},
        FakeEngine(fails_after(error=GenerationError("x"))),
        424,
        "server_error",
        "generation",
    ),
    (
        {},
        FakeEngine(fails_after(error=IncompleteGeneration("x"))),
        500,
        "server_error",
        "incomplete_generation",
    ),
    ({}, FakeEngine(closed=EngineDead("x")), 503, "server_error", "unavailable"),
]


@pytest.mark.parametrize(("path", "payload"), OPENAI)
@pytest.mark.parametrize(("settings", "engine", "status", "kind", "error_type"), STATUSES)
async def test_openai_error_has_both_families_keys(
    make_site, path, payload, settings, engine, status, kind, error_type
):
    site = await make_site(engine, **settings)
    response = await site.client().post(path, json=payload)
    body = await response.get_json()
    assert response.status_code == status
    assert list(body) == ["error", "error_type"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    assert (body["error"]["type"], body["error"]["code"]) == (kind, status)
    assert body["error_type"] == error_type


@pytest.mark.parametrize(
    ("path", "payload"), [("/generate", ASK), ("/invocations", ASK), ("/tokenize", ASK)]
)
async def test_native_error_has_tgi_s_two_keys(make_site, path, payload):
    site = await make_site(api_keys=("x",))
    response = await site.client().post(path, json=payload)
    assert list(await response.get_json()) == ["error", "error_type"]


@pytest.mark.parametrize(
    ("prefix", "path", "payload"),
    [("chatcmpl-", *OPENAI[0]), ("cmpl-", *OPENAI[1])],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_ids_are_unique_and_say_what_they_are(make_site, prefix, path, payload, stream):
    site = await make_site()
    ids = set()
    for _ in range(2):
        response = await site.client().post(path, json={**payload, "stream": stream})
        body = (await response.get_data()).decode()
        first = json.loads(body.split("\n\n")[0].removeprefix("data: "))
        ids.add(first["id"])
    assert len(ids) == 2
    assert all(one.startswith(prefix) for one in ids)


async def test_choices_are_in_order_whoever_is_ready_first(make_site):
    def script(request):
        return text_events(*["a"] * (20 - len(request.prompt_ids)))

    site = await make_site(FakeEngine(script))
    response = await site.client().post("/v1/completions", json={"prompt": ["a", "b" * 9]})
    choices = (await response.get_json())["choices"]
    assert [(choice["index"], len(choice["text"])) for choice in choices] == [(0, 18), (1, 10)]


@pytest.mark.parametrize("n", [1, 2, 4])
async def test_n_is_never_ignored(make_site, n):
    site = await make_site()
    for path, payload in OPENAI:
        response = await site.client().post(path, json={**payload, "n": n})
        assert len((await response.get_json())["choices"]) == n


@pytest.mark.parametrize("n", [0, 5])
async def test_n_outside_the_limit_is_refused(make_site, n):
    site = await make_site()  # at most 4 prompts, and as many branches
    for path, payload in OPENAI:
        response = await site.client().post(path, json={**payload, "n": n})
        assert response.status_code == 422
        assert (await response.get_json())["error"] == {
            "message": f"Input validation error: `n` must be > 0 and <= 4. Given: {n}",
            "type": "invalid_request_error",
            "param": "n",
            "code": 422,
        }


async def test_branch_i_has_the_seed_plus_i(make_site):
    site = await make_site()
    await site.client().post("/v1/chat/completions", json={**CHAT, "n": 3, "seed": 2**64 - 1})
    assert [r.sampling.seed for r in site.engine.requests] == [2**64 - 1, 0, 1]


async def test_branches_are_submitted_together(make_site):
    site = await make_site()
    await site.client().post("/v1/completions", json={"prompt": ["a", "b"], "n": 2})
    assert site.engine.groups == [2, 2]


async def test_failure_is_told_to_its_own_client_only(make_site):
    def script(request):
        if len(request.prompt_ids) > 3:
            return fails_after("a", error=GenerationError("x"))(request)
        return text_events("a")

    site = await make_site(FakeEngine(script))
    assert (await site.client().post("/generate", json={"inputs": "long"})).status_code == 424
    assert (await site.client().post("/generate", json={"inputs": "a"})).status_code == 200
    assert site.admission.n_running == 0


async def test_continue_final_message_and_generation_prompt_contradict_each_other(make_site):
    fields = {"continue_final_message": True, "add_generation_prompt": True}
    response = (
        await (await make_site()).client().post("/v1/chat/completions", json={**CHAT, **fields})
    )
    assert response.status_code == 422
    assert (await response.get_json())["error"]["param"] == "continue_final_message"
