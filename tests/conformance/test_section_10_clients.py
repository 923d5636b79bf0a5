"""Contract section 10.4: small facts that clients rely on. ``tests/clients`` has the clients."""

import json

ASK = {"inputs": "hi"}
CHAT = {"messages": [{"role": "user", "content": "hi"}]}


async def post(site, path, payload):
    return await site.client().post(path, json=payload)


async def test_10_4_get_of_the_root_is_health_and_post_is_generation(make_site):
    site = await make_site()
    assert await (await site.client().get("/")).get_data() == b""
    assert isinstance(await (await post(site, "/", ASK)).get_json(), list)


async def test_10_4_generate_answers_no_list_and_invocations_does(make_site):
    site = await make_site()
    assert isinstance(await (await post(site, "/generate", ASK)).get_json(), dict)
    assert isinstance(await (await post(site, "/invocations", ASK)).get_json(), list)


async def test_10_4_no_parameters_sample_and_empty_ones_do_not(make_site):
    site = await make_site()
    await post(site, "/generate", ASK)
    await post(site, "/generate", {**ASK, "parameters": {}})
    assert [request.sampling.greedy for request in site.engine.requests] == [False, True]


async def test_10_4_details_of_a_stream_are_on_its_last_event_only(make_site):
    ask = {**ASK, "parameters": {"details": True}}
    body = (await (await post(await make_site(), "/generate_stream", ask)).get_data()).decode()
    events = [json.loads(line[6:]) for line in body.split("\n\n") if line]
    assert [event["details"] is None for event in events] == [True, True, False]


async def test_10_4_end_token_is_counted(make_site):
    site = await make_site()
    answer = await (await post(site, "/v1/chat/completions", CHAT)).get_json()
    assert answer["usage"]["completion_tokens"] == 3, "two tokens of text and the end token"
    ask = {**ASK, "parameters": {"details": True}}
    details = (await (await post(site, "/generate", ask)).get_json())["details"]
    assert details["generated_tokens"] == len(details["tokens"]) == 3


async def test_10_4_requests_beyond_the_limit_are_refused_and_not_queued(make_site):
    site = await make_site(max_concurrent_requests=3)
    with site.admission.permit():
        response = await post(site, "/v1/completions", {"prompt": ["a", "b", "c"]})
    assert response.status_code == 429
    assert site.engine.n_opened == 0
    assert (await post(site, "/v1/completions", {"prompt": ["a", "b"]})).status_code == 200


async def test_10_1_null_optionals_of_the_python_client_are_taken(make_site):
    names = ("best_of", "grammar", "seed", "temperature", "top_k", "top_n_tokens", "truncate")
    parameters = dict.fromkeys(names) | {"stop": [], "watermark": False}
    response = await post(await make_site(), "/", {**ASK, "parameters": parameters})
    assert response.status_code == 200


async def test_10_2_details_of_the_python_client_are_always_complete(make_site):
    ask = {**ASK, "parameters": {"details": True}}
    details = (await (await post(await make_site(), "/", ask)).get_json())[0]["details"]
    assert details["seed"] is None
    assert details["prefill"] == []


async def test_10_2_every_error_has_the_key_that_the_python_client_reads(make_site):
    site = await make_site(api_keys=("secret",), payload_limit_bytes=100)
    key = {"authorization": "Bearer secret", "content-type": "application/json"}
    for body, headers in (
        (b"{}", {}),
        (b"{}", {"authorization": "Bearer secret"}),
        (b"{", key),
        (b"{}", key),
        (b'{"inputs": "' + b"a" * 100 + b'"}', key),
    ):
        response = await site.client().post("/generate", data=body, headers=headers)
        assert response.status_code >= 400
        assert (await response.get_json())["error"]
