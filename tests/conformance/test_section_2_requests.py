"""Contract section 2, row by row, over HTTP: what reaches the engine of what was sent."""

import json

import pytest
from fakes.engine import START

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
MESSAGES = [{"role": "user", "content": "hi"}]
CHAT_PROMPT = "user: hi\nassistant:"


async def asked(site, path, payload):
    """What the engine was asked, after an answer."""
    response = await site.client().post(path, json=payload)
    assert response.status_code == 200, await response.get_data()
    return site.engine.requests[-1]


async def generate(site, inputs="hi", **parameters):
    return await asked(site, "/generate", {"inputs": inputs, "parameters": parameters})


async def chat(site, **fields):
    return await asked(site, CHAT, {"messages": MESSAGES, **fields})


async def complete(site, **fields):
    return await asked(site, COMPLETIONS, {"prompt": "hi", **fields})


async def refused(site, path, payload):
    """The text of a 422."""
    response = await site.client().post(path, json=payload)
    assert response.status_code == 422
    error = (await response.get_json())["error"]
    return error if isinstance(error, str) else error["message"]


def prompt_of(request):
    return "".join(chr(token) for token in request.prompt_ids if token != START)


# --- 2.1 ---

ALL = [
    ("/generate", {"inputs": "a"}),
    (CHAT, {"messages": MESSAGES}),
    (COMPLETIONS, {"prompt": "a"}),
]


@pytest.mark.parametrize(("path", "payload"), ALL)
async def test_2_1_unknown_fields_are_ignored(make_site, path, payload):
    await asked(await make_site(), path, {**payload, "no_such_field": {"a": [None]}})


async def test_2_1_unknown_parameters_are_ignored(make_site):
    await generate(await make_site(), no_such_field=1)


STRANGE = {
    "deep": (b'{"inputs":' + b"[" * 200_000 + b"]" * 200_000 + b"}", 400),
    "not a number": (b'{"inputs":"a","parameters":{"temperature":NaN}}', 400),
    "infinite": (b'{"inputs":"a","parameters":{"temperature":Infinity}}', 400),
    "overflow": (b'{"inputs":"a","parameters":{"temperature":1e999}}', (400, 422)),
    "half a surrogate": (b'{"inputs":"\\ud800"}', 400),
    "not utf-8": (b'{"inputs":"\xff"}', 400),
    "utf-16": ('{"inputs":"a"}'.encode("utf-16"), 400),
    "65 bits": (b'{"inputs":"a","parameters":{"seed":18446744073709551616}}', 422),
    "negative": (b'{"inputs":"a","parameters":{"max_new_tokens":-1}}', 422),
    "digits": (b'{"inputs":"a","parameters":{"seed":' + b"9" * 5000 + b"}}", (400, 422)),
    "float": (b'{"inputs":"a","parameters":{"top_k":10.0}}', 422),
    "text": (b'{"inputs":"a","parameters":{"top_k":"10"}}', 422),
    "twice": (b'{"inputs":"a","inputs":"b"}', 422),
    "cut": (b'{"inputs":"a"', 400),
    "more": (b'{"inputs":"a"} x', 400),
    "list": (b"[]", 422),
    "nothing": (b"", 400),
}


@pytest.mark.parametrize("name", STRANGE)
async def test_2_1_strange_json_is_refused_and_harms_nothing(make_site, name):
    body, status = STRANGE[name]
    site = await make_site()
    headers = {"content-type": "application/json"}
    response = await site.client().post("/generate", data=body, headers=headers)
    assert response.status_code in (status if isinstance(status, tuple) else (status,))
    assert len((await response.get_json())["error"]) < 500
    await generate(site)


async def test_2_1_integer_of_64_bits_is_kept(make_site):
    site = await make_site()
    request = await generate(site, seed=2**64 - 1, do_sample=True)
    assert request.sampling.seed == 2**64 - 1


async def test_2_1_single_precision_is_rounded_before_it_is_judged(make_site):
    # The nearest number of single precision is 1, which the rule for `top_p` excludes.
    text = await refused(
        await make_site(), "/generate", {"inputs": "a", "parameters": {"top_p": 0.99999999999}}
    )
    assert text == "Input validation error: `top_p` must be > 0.0 and < 1.0"


async def test_2_1_alias_beside_its_field_is_taken_where_both_are_equal(make_site):
    site = await make_site()
    request = await chat(site, max_tokens=5, max_completion_tokens=5)
    assert request.stopping.max_new_tokens == 5


# --- 2.2 to 2.4 ---


@pytest.mark.parametrize("stream", [True, "yes", None, 5])
@pytest.mark.parametrize("path", ["/generate", "/tokenize"])
async def test_2_2_stream_is_ignored_where_the_route_decides(make_site, path, stream):
    site = await make_site()
    response = await site.client().post(path, json={"inputs": "a", "stream": stream})
    assert response.content_type == "application/json"


async def test_2_2_special_tokens_are_added_to_prompts_but_not_to_chats(make_site):
    site = await make_site()
    assert (await generate(site)).prompt_ids[0] == START
    assert (await complete(site)).prompt_ids[0] == START
    assert START not in (await chat(site)).prompt_ids


SAMPLING = {
    "temperature": 0.5,
    "top_k": 7,
    "top_p": 0.5,
    "typical_p": 0.25,
    "repetition_penalty": 1.5,
    "frequency_penalty": -0.5,
    "seed": 2**63,
    "watermark": True,
}


@pytest.mark.parametrize("name", SAMPLING)
async def test_2_3_sampling_parameter_reaches_the_engine(make_site, name):
    request = await generate(await make_site(), do_sample=True, **{name: SAMPLING[name]})
    assert getattr(request.sampling, name) == SAMPLING[name]


async def test_2_3_other_parameters_reach_the_engine(make_site):
    request = await generate(
        await make_site(),
        max_new_tokens=9,
        stop=["x", "y"],
        top_n_tokens=3,
        decoder_input_details=True,
    )
    assert request.stopping.max_new_tokens == 9
    assert request.stopping.stop_strings == ("x", "y")
    assert request.n_top_tokens == 3
    assert request.prompt_logprobs


async def test_2_3_adapter_that_there_is_not_is_refused_with_those_there_are(make_site):
    payload = {"inputs": "a", "parameters": {"adapter_id": "x"}}
    text = await refused(await make_site(adapters=("b", "a")), "/generate", payload)
    assert text == "Input validation error: `adapter_id` must be one of a, b. Given: 'x'"


async def test_2_4_permit_is_held_to_the_end_and_given_back(make_site):
    site = await make_site(max_concurrent_requests=1)
    for _ in range(3):
        await generate(site)
    assert site.admission.n_running == 0


# --- 2.6 to 2.9 ---


async def test_2_6_budget_is_the_rest_of_the_context_or_what_was_asked(make_site):
    site = await make_site()  # 200 tokens in all
    assert (await generate(site)).stopping.max_new_tokens == 200 - 3
    assert (await chat(site)).stopping.max_new_tokens == 200 - len(CHAT_PROMPT)
    assert (await complete(site)).stopping.max_new_tokens == 200 - 3, "not OpenAI's 16"
    assert (await generate(site, max_new_tokens=197)).stopping.max_new_tokens == 197


async def test_2_7_truncation_keeps_the_end_and_is_what_is_counted(make_site):
    site = await make_site()
    ask = {"inputs": "abcdef", "parameters": {"truncate": 2, "details": True}}
    response = await site.client().post("/generate", json=ask)
    assert response.headers["x-prompt-tokens"] == "2"
    assert prompt_of(site.engine.requests[-1]) == "ef"
    assert START not in site.engine.requests[-1].prompt_ids


@pytest.mark.parametrize(
    ("payload", "greedy"),
    [
        ({}, False),
        ({"parameters": {}}, True),
        ({"parameters": {"do_sample": True}}, False),
        ({"parameters": {"temperature": 1.0}}, True),
        ({"parameters": {"temperature": 0.7}}, False),
        ({"parameters": {"top_k": 3}}, False),
        ({"parameters": {"top_p": 0.9}}, False),
        ({"parameters": {"typical_p": 0.9}}, False),
        ({"parameters": {"seed": 3}}, True),
        ({"parameters": {"repetition_penalty": 1.5}}, True),
    ],
)
async def test_2_8_native_request_is_greedy_or_sampled_as_in_tgi(make_site, payload, greedy):
    request = await asked(await make_site(), "/generate", {"inputs": "a", **payload})
    assert request.sampling.greedy == greedy


@pytest.mark.parametrize(
    ("fields", "greedy"), [({}, False), ({"temperature": 0}, True), ({"temperature": 1}, False)]
)
async def test_2_8_openai_request_is_greedy_at_temperature_0_only(make_site, fields, greedy):
    site = await make_site()
    assert (await chat(site, **fields)).sampling.greedy == greedy
    assert (await complete(site, **fields)).sampling.greedy == greedy


async def test_2_9_branches_of_best_of_have_seeds_of_their_own(make_site):
    site = await make_site()
    await generate(site, best_of=2, do_sample=True)
    first, second = site.engine.requests
    assert first.sampling.seed != second.sampling.seed
    assert first.prompt_ids == second.prompt_ids


# --- 2.10 to 2.14 ---


async def test_2_10_stop_strings_stay_in_native_texts_and_are_cut_from_openai_s(make_site):
    site = await make_site()
    assert (await generate(site, stop=["x"])).stopping.keep_stop_string
    assert not (await chat(site, stop="x")).stopping.keep_stop_string
    assert not (await complete(site, stop=["x"])).stopping.keep_stop_string


async def test_2_12_messages_may_be_empty(make_site):
    assert prompt_of(await asked(await make_site(), CHAT, {"messages": []})) == "assistant:"


OPENAI_SAMPLING = {
    "temperature": 0.5,
    "top_p": 0.5,
    "frequency_penalty": 0.5,
    "presence_penalty": -0.5,
    "seed": 5,
    "top_k": 7,
    "min_p": 0.125,
    "typical_p": 0.25,
    "repetition_penalty": 1.5,
    "watermark": True,
}


@pytest.mark.parametrize("ask", [chat, complete])
@pytest.mark.parametrize("name", OPENAI_SAMPLING)
async def test_2_12_sampling_field_reaches_the_engine(make_site, ask, name):
    request = await ask(await make_site(), **{name: OPENAI_SAMPLING[name]})
    assert getattr(request.sampling, name) == OPENAI_SAMPLING[name]


@pytest.mark.parametrize("ask", [chat, complete])
async def test_2_12_logit_bias_is_a_map_and_an_empty_list_is_none(make_site, ask):
    site = await make_site()
    assert (await ask(site, logit_bias={"5": -2})).sampling.logit_bias == ((5, -2.0),)
    assert (await ask(site, logit_bias=[])).sampling.logit_bias == ()


@pytest.mark.parametrize("ask", [chat, complete])
@pytest.mark.parametrize("stop", ["x", ["x"], [], None])
async def test_2_12_stop_is_a_text_or_a_list(make_site, ask, stop):
    expected = ("x",) if stop else ()
    assert (await ask(await make_site(), stop=stop)).stopping.stop_strings == expected


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_2_12_max_tokens_has_two_names(make_site, name):
    assert (await chat(await make_site(), **{name: 4})).stopping.max_new_tokens == 4


async def test_2_12_neutral_values_of_openai_are_neutral(make_site):
    request = await chat(await make_site(), top_p=1, presence_penalty=0, frequency_penalty=0)
    assert (request.sampling.top_p, request.sampling.repetition_penalty) == (1.0, 1.0)


@pytest.mark.parametrize("name", ["user", "metadata", "store", "service_tier", "verbosity"])
async def test_2_12_fields_that_change_nothing_are_ignored(make_site, name):
    await chat(await make_site(), **{name: "x"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("audio", {"voice": "x"}),
        ("functions", [{"name": "f"}]),
        ("modalities", ["audio"]),
        ("moderation", {"model": "x"}),
        ("prediction", {"type": "content", "content": "x"}),
        ("tools", [{"function": {"name": "f"}}]),
        ("web_search_options", {}),
    ],
)
async def test_2_12_fields_that_promise_something_are_refused_by_name(make_site, name, value):
    site = await make_site()
    response = await site.client().post(CHAT, json={"messages": MESSAGES, name: value})
    assert response.status_code == 422
    error = (await response.get_json())["error"]
    assert error["message"].endswith(f"`{name}` is not supported by this server")
    assert error["param"] == name


@pytest.mark.parametrize("role", ["system", "user", "assistant", "tool", "developer", "anything"])
async def test_2_13_any_role_is_for_the_template_to_judge(make_site, role):
    site = await make_site()
    messages = [{"role": role, "content": "x"}, *MESSAGES]
    assert prompt_of(await chat(site, messages=messages)).startswith(f"{role}: x\n")


async def test_2_13_parts_are_joined_with_nothing_in_between(make_site):
    parts = [{"type": "text", "text": text} for text in ("a", "b\n", "c")]
    messages = [{"role": "user", "content": parts}]
    assert "user: ab\nc\n" in prompt_of(await chat(await make_site(), messages=messages))


@pytest.mark.parametrize("kind", ["input_audio", "file", "video"])
async def test_2_13_other_parts_are_refused_with_their_path(make_site, kind):
    messages = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": kind}]}]
    text = await refused(await make_site(), CHAT, {"messages": messages})
    assert "messages[0].content[1].type" in text


async def test_2_13_neither_content_nor_tool_calls_is_refused(make_site):
    text = await refused(await make_site(), CHAT, {"messages": [{"role": "user"}]})
    assert text.endswith("messages[0]: expected `content` or `tool_calls`, got neither")


async def test_2_14_empty_list_of_prompts_has_tgi_s_text(make_site):
    text = await refused(await make_site(), COMPLETIONS, {"prompt": []})
    assert text.endswith("Empty array detected. Do not use an empty array for the prompt.")


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [("ab", ["ab"]), (["a", "b"], ["a", "b"]), ([97, 98], ["ab"]), ([[97], [98]], ["a", "b"])],
)
async def test_2_14_prompt_has_four_layouts(make_site, prompt, expected):
    site = await make_site()
    await complete(site, prompt=prompt)
    assert [prompt_of(request) for request in site.engine.requests] == expected


async def test_2_15_image_is_refused_at_its_place_and_stays_text_in_prompts(make_site):
    site = await make_site()
    image = {"type": "image_url", "image_url": {"url": "http://10.0.0.1/a.png"}}
    response = await site.client().post(
        CHAT, json={"messages": [{"role": "user", "content": [image]}]}
    )
    assert response.status_code == 422
    assert (await response.get_json())["error"]["param"] == "messages[0].content[0]"
    assert prompt_of(await generate(site, "![](http://10.0.0.1/a.png)")) == (
        "![](http://10.0.0.1/a.png)"
    )


async def test_2_1_body_of_another_encoding_of_the_same_json_is_taken(make_site):
    body = json.dumps({"inputs": "é\n"}, ensure_ascii=True).encode()
    site = await make_site()
    headers = {"content-type": "application/json"}
    response = await site.client().post("/generate", data=body, headers=headers)
    assert response.status_code == 200
    assert prompt_of(site.engine.requests[-1]) == "é\n"
