"""Contract section 9.2: what TGI's llamacpp backend cannot do, and this server does or refuses."""

import pytest
from fakes.engine import FakeEngine, generated

CHAT = {"messages": [{"role": "user", "content": "hi"}]}


async def ask(site, **parameters):
    return await site.client().post("/generate", json={"inputs": "hi", "parameters": parameters})


@pytest.mark.parametrize(
    "parameters",
    [
        {"stop": ["x"]},
        {"top_n_tokens": 2},
        {"best_of": 2, "do_sample": True},
        {"decoder_input_details": True},
        {"watermark": True},
        {"repetition_penalty": 1.2},
        {"seed": 2**32, "do_sample": True},
        {"seed": 2**64 - 1, "do_sample": True},
    ],
    ids=lambda parameters: next(iter(parameters)),
)
async def test_9_2_parameter_is_served(make_site, parameters):
    assert (await ask(await make_site(), **parameters)).status_code == 200


@pytest.mark.parametrize("seed", [2**32, 2**64 - 1])
async def test_9_2_seed_is_reported_as_it_was_sent(make_site, seed):
    response = await ask(await make_site(), seed=seed, do_sample=True, details=True)
    assert (await response.get_json())["details"]["seed"] == seed


async def test_9_2_greedy_is_greedy(make_site):
    site = await make_site()
    await ask(site, details=True)
    await site.client().post("/v1/chat/completions", json={**CHAT, "temperature": 0})
    assert [request.sampling.greedy for request in site.engine.requests] == [True, True]


@pytest.mark.parametrize(
    ("path", "payload"),
    [
        ("/generate", {"inputs": "a", "parameters": {"adapter_id": "x"}}),
        ("/generate", {"inputs": "a", "parameters": {"grammar": {"type": "regex", "value": "a"}}}),
        ("/v1/chat/completions", {**CHAT, "response_format": {"type": "json_object"}}),
        ("/v1/chat/completions", {**CHAT, "tools": [{"function": {"name": "f"}}]}),
    ],
)
async def test_9_2_what_it_ignores_is_refused(make_site, path, payload):
    response = await (await make_site()).client().post(path, json=payload)
    assert response.status_code == 422


async def test_9_2_presence_penalty_is_no_repetition_penalty(make_site):
    site = await make_site()
    await site.client().post("/v1/chat/completions", json={**CHAT, "presence_penalty": 0.5})
    (request,) = site.engine.requests
    assert request.sampling.presence_penalty == 0.5
    assert request.sampling.repetition_penalty == 1.0


async def test_9_2_characters_of_several_tokens_arrive_whole(make_site):
    site = await make_site(FakeEngine(generated("", "é", " ", "", "😀")))
    response = await ask(site)
    assert await response.get_json() == {"generated_text": "é 😀"}
