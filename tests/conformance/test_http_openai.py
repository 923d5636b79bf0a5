"""The routes under ``/v1/`` (contract 3.8 and 3.9, with the changes of decisions)."""

import json
import re

import pytest
from fakes.engine import FakeEngine, generated, text_events
from fakes.raw_client import post

from tgi_llama.generation import FinishReason, Token, TokenEvent, TokenId

MESSAGES = [{"role": "user", "content": "hi"}]
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


async def fetch(site, path, payload):
    response = await site.client().post(path, json=payload)
    return response, (await response.get_data()).decode()


def chunks_of(body):
    assert body.endswith("data: [DONE]\n\n")
    return [json.loads(block.removeprefix("data: ")) for block in body.split("\n\n")[:-2]]


def usage(n_prompt, n_generated):
    return {
        "prompt_tokens": n_prompt,
        "completion_tokens": n_generated,
        "total_tokens": n_prompt + n_generated,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def unstable_parts_removed(body):
    assert re.search(r'"id":"(chatcmpl|cmpl)-[0-9a-f]{24}"', body)
    assert re.search(r'"created":1[0-9]{9}\b', body)
    body = re.sub(r'"id":"(\w+)-[0-9a-f]{24}"', r'"id":"\1"', body)
    return re.sub(r'"created":[0-9]+', '"created":0', body)


async def test_chat_not_streamed_has_every_key_in_order(make_site):
    _, body = await fetch(await make_site(), CHAT, {"messages": MESSAGES})
    assert unstable_parts_removed(body) == (
        '{"object":"chat.completion","id":"chatcmpl","created":0,"model":"test/model",'
        '"system_fingerprint":"1.2.3-native","choices":[{"index":0,"message":{"role":"assistant",'
        '"content":"Hello world"},"logprobs":null,"finish_reason":"stop"}],'
        '"usage":{"prompt_tokens":19,"completion_tokens":3,"total_tokens":22,'
        '"prompt_tokens_details":{"cached_tokens":0}}}'
    )


async def test_chat_streamed_has_a_chunk_per_token_and_done(make_site):
    _, body = await fetch(await make_site(), CHAT, {"messages": MESSAGES, "stream": True})

    def chunk(content, reason):
        return (
            'data: {"object":"chat.completion.chunk","id":"chatcmpl","created":0,'
            '"model":"test/model","system_fingerprint":"1.2.3-native","choices":[{"index":0,'
            f'"delta":{{"role":"assistant","content":"{content}"}},"logprobs":null,'
            f'"finish_reason":{reason}}}],"usage":null}}\n\n'
        )

    assert unstable_parts_removed(body) == (
        chunk("Hello", "null") + chunk(" world", "null") + chunk("", '"stop"') + "data: [DONE]\n\n"
    )
    assert len({chunk["id"] for chunk in chunks_of(body)}) == 1


async def test_ids_are_unique(make_site):
    site = await make_site()
    ids = [json.loads((await fetch(site, CHAT, {"messages": MESSAGES}))[1])["id"] for _ in "abc"]
    assert len(set(ids)) == 3


async def test_chat_streamed_usage_comes_on_request_as_a_last_chunk(make_site):
    ask = {"messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}}
    *others, last = chunks_of((await fetch(await make_site(), CHAT, ask))[1])
    assert last["choices"] == []
    assert last["usage"] == usage(19, 3)
    assert [chunk["usage"] for chunk in others] == [None] * 3


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (FinishReason.LENGTH, "length"),
        (FinishReason.EOS_TOKEN, "stop"),
        (FinishReason.STOP_SEQUENCE, "stop"),
    ],
)
@pytest.mark.parametrize(
    ("path", "ask"), [(CHAT, {"messages": MESSAGES}), (COMPLETIONS, {"prompt": "x"})]
)
async def test_finish_reason_is_in_openai_s_words(make_site, path, ask, reason, expected):
    site = await make_site(FakeEngine(lambda _: text_events("a", "b", reason=reason)))
    whole = json.loads((await fetch(site, path, ask))[1])
    assert whole["choices"][0]["finish_reason"] == expected
    streamed = chunks_of((await fetch(site, path, {**ask, "stream": True}))[1])
    assert [chunk["choices"][0]["finish_reason"] for chunk in streamed] == [None, expected]


@pytest.mark.parametrize("streamed", [False, True])
async def test_chat_logprobs_list_every_token_and_as_many_alternatives_as_asked(
    make_site, streamed
):
    tokens = [Token(TokenId(i), text, -0.25 * i, False) for i, text in enumerate("xyz")]
    (event,) = text_events("x")
    event = TokenEvent(token=tokens[1], top_tokens=tuple(tokens), delta="y", finish=event.finish)
    site = await make_site(FakeEngine(lambda _: [event]))
    ask = {"messages": MESSAGES, "logprobs": True, "top_logprobs": 2, "stream": streamed}
    body = (await fetch(site, CHAT, ask))[1]
    answer = chunks_of(body)[0] if streamed else json.loads(body)
    assert answer["choices"][0]["logprobs"] == {
        "content": [
            {
                "token": "y",
                "logprob": -0.25,
                "top_logprobs": [{"token": "x", "logprob": 0.0}, {"token": "y", "logprob": -0.25}],
            }
        ]
    }


async def test_model_given_by_the_client_is_echoed(make_site):
    body = (await fetch(await make_site(), CHAT, {"messages": MESSAGES, "model": "dummy"}))[1]
    assert json.loads(body)["model"] == "dummy"


async def test_completion_not_streamed_has_every_key_in_order(make_site):
    _, body = await fetch(await make_site(), COMPLETIONS, {"prompt": "ab"})
    assert unstable_parts_removed(body) == (
        '{"object":"text_completion","id":"cmpl","created":0,"model":"test/model",'
        '"system_fingerprint":"1.2.3-native","choices":[{"index":0,"text":"Hello world",'
        '"logprobs":null,"finish_reason":"stop"}],'
        '"usage":{"prompt_tokens":3,"completion_tokens":3,"total_tokens":6,'
        '"prompt_tokens_details":{"cached_tokens":0}}}'
    )


async def test_completions_of_several_prompts_are_sorted_and_summed(make_site):
    def script(request):  # the first prompt takes longest
        return text_events(*["a"] * (10 - len(request.prompt_ids)))

    site = await make_site(FakeEngine(script))
    response, body = await fetch(site, COMPLETIONS, {"prompt": ["1", "22", "333"]})
    answer = json.loads(body)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert [len(choice["text"]) for choice in answer["choices"]] == [8, 7, 6]
    assert answer["usage"] == usage(9, 21)
    assert response.headers["x-compute-characters"] == "6"
    assert response.headers["x-total-time"] == "4500"
    assert response.headers["x-prompt-tokens"] == "9"
    assert response.headers["x-generated-tokens"] == "21"
    assert "x-compute-time" not in response.headers


async def test_completions_streamed_interleave_and_end_once(make_site):
    site = await make_site(FakeEngine(lambda _: text_events("a", "b")))
    ask = {"prompt": ["1", "22"], "stream": True, "stream_options": {"include_usage": True}}
    *chunks, last = chunks_of((await fetch(site, COMPLETIONS, ask))[1])
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [(c["index"], c["text"], c["finish_reason"]) for c in choices] == [
        (0, "a", None),
        (1, "a", None),
        (0, "b", "length"),
        (1, "b", "length"),
    ]
    assert last["usage"] == usage(5, 4)


@pytest.mark.parametrize(
    ("asked", "usage"),
    [({}, ""), ({"stream_options": {"include_usage": True}}, ',"usage":null')],
)
async def test_completion_chunk_has_every_key_in_order(make_site, asked, usage):
    site = await make_site(FakeEngine(lambda _: text_events("a")))
    body = (await fetch(site, COMPLETIONS, {"prompt": "x", "stream": True} | asked))[1]
    assert unstable_parts_removed(body).startswith(
        'data: {"object":"text_completion","id":"cmpl","created":0,"choices":[{"index":0,'
        '"text":"a","logprobs":null,"finish_reason":"length"}],"model":"test/model",'
        f'"system_fingerprint":"1.2.3-native"{usage}}}\n\n'
    )


@pytest.mark.parametrize("streamed", [False, True])
async def test_completion_logprobs_are_parallel_lists(make_site, streamed):
    site = await make_site(FakeEngine(lambda _: text_events("ab", "c")))
    body = (await fetch(site, COMPLETIONS, {"prompt": "x", "logprobs": 0, "stream": streamed}))[1]
    answers = chunks_of(body) if streamed else [json.loads(body)]
    parts = [answer["choices"][0]["logprobs"] for answer in answers]
    assert [token for part in parts for token in part["tokens"]] == ["ab", "c"]
    assert [p for part in parts for p in part["token_logprobs"]] == [-0.5, -1.0]
    assert [offset for part in parts for offset in part["text_offset"]] == [0, 2]
    assert [part["top_logprobs"] for part in parts] == [None] * len(parts)


async def test_eos_text_is_never_shown(make_site):
    site = await make_site()
    for ask in ({"prompt": "x"}, {"prompt": "x", "stream": True}):
        assert "im_end" not in (await fetch(site, COMPLETIONS, ask))[1]


async def test_each_prompt_takes_a_permit(make_site):
    site = await make_site(max_concurrent_requests=3)
    with site.admission.permit():
        assert (await fetch(site, COMPLETIONS, {"prompt": ["1", "2"]}))[0].status_code == 200
        response, body = await fetch(site, COMPLETIONS, {"prompt": ["1", "2", "3"]})
    assert response.status_code == 429
    assert json.loads(body)["error"]["code"] == 429
    assert site.admission.n_running == 0
    assert site.engine.n_opened == 2


async def test_too_many_prompts_have_an_error_type_of_their_own(make_site):
    response, body = await fetch(await make_site(), COMPLETIONS, {"prompt": ["x"] * 5})
    assert response.status_code == 422
    assert json.loads(body)["error_type"] == "batch size exceeded"


@pytest.mark.parametrize("streamed", [False, True])
async def test_validation_error_names_the_field_for_both_families_of_clients(make_site, streamed):
    ask = {"messages": MESSAGES, "temperature": -1, "stream": streamed}
    response, body = await fetch(await make_site(), CHAT, ask)
    assert response.status_code == 422
    assert json.loads(body) == {
        "error": {
            "message": "Input validation error: `temperature` must be strictly positive",
            "type": "invalid_request_error",
            "param": "temperature",
            "code": 422,
        },
        "error_type": "validation",
    }


async def test_models_lists_the_served_one(make_site):
    response = await (await make_site()).client().get("/v1/models")
    assert await response.get_data() == (
        b'{"object":"list","data":[{"id":"test/model","object":"model","created":0,'
        b'"owned_by":"test/model"}]}'
    )


async def test_chat_headers_streamed_count_the_rendered_prompt(make_site):
    client = await (await make_site()).connect()
    response = await client.request(post(CHAT, {"messages": MESSAGES, "stream": True}))
    assert response.headers["x-compute-characters"] == "19"
    assert response.headers["content-type"] == "text/event-stream"


# --- n ---


def said(*texts):
    """An engine whose branches say these, a token a character."""
    return FakeEngine(branches=[lambda _, text=text: text_events(*text) for text in texts])


async def test_chat_n_has_a_choice_for_each_and_the_prompt_once(make_site):
    site = await make_site(said("ab", "c", "def"))
    response, body = await fetch(site, CHAT, {"messages": MESSAGES, "n": 3})
    answer = json.loads(body)
    contents = [(c["index"], c["message"]["content"]) for c in answer["choices"]]
    assert contents == [(0, "ab"), (1, "c"), (2, "def")]
    assert answer["usage"] == usage(19, 6)
    assert response.headers["x-prompt-tokens"] == "19"
    assert response.headers["x-compute-characters"] == "19"
    assert response.headers["x-generated-tokens"] == "6"
    assert response.headers["x-total-time"] == "4500"
    assert response.headers["x-compute-time"] == "4.5"
    assert site.engine.groups == [3]
    assert site.metric("tgi_request_duration_count") == 3


async def test_chat_n_streamed_tells_choices_apart_and_ends_once(make_site):
    site = await make_site(said("ab", "c"))
    ask = {"messages": MESSAGES, "n": 2, "stream": True, "stream_options": {"include_usage": True}}
    response, body = await fetch(site, CHAT, ask)
    *chunks, last = chunks_of(body)
    choices = [chunk["choices"][0] for chunk in chunks]
    assert [(c["index"], c["delta"]["content"], c["finish_reason"]) for c in choices] == [
        (0, "a", None),
        (1, "c", "length"),
        (0, "b", "length"),
    ]
    assert last["choices"] == []
    assert last["usage"] == usage(19, 3)
    assert body.count("[DONE]") == 1
    assert response.headers["x-prompt-tokens"] == "19"


async def test_n_with_a_seed_begins_with_the_answer_of_n_1(make_site):
    site = await make_site()
    await fetch(site, CHAT, {"messages": MESSAGES, "seed": 2**64 - 1})
    await fetch(site, CHAT, {"messages": MESSAGES, "seed": 2**64 - 1, "n": 2})
    seeds = [request.sampling.seed for request in site.engine.requests]
    assert seeds == [2**64 - 1, 2**64 - 1, 0]


@pytest.mark.parametrize("streamed", [False, True])
async def test_completion_choices_are_numbered_prompt_by_prompt(make_site, streamed):
    site = await make_site(said("ab", "c"))
    ask = {"prompt": ["1", "22"], "n": 2, "stream": streamed}
    if streamed:
        ask["stream_options"] = {"include_usage": True}
    _, body = await fetch(site, COMPLETIONS, ask)
    answers = chunks_of(body) if streamed else [json.loads(body)]
    choices = [choice for answer in answers for choice in answer["choices"]]
    texts = ["".join(c["text"] for c in choices if c["index"] == index) for index in range(4)]
    assert texts == ["ab", "c", "ab", "c"]
    assert answers[-1]["usage"] == usage(5, 6)
    assert site.engine.groups == [2, 2]


async def test_completion_best_of_shows_the_n_best_and_counts_all(make_site):
    def script(logprob):
        (event,) = text_events(f"{logprob}")
        token = Token(TokenId(10), f"{logprob}", logprob, False)
        return lambda _: [TokenEvent(token=token, delta=token.text, finish=event.finish)]

    site = await make_site(FakeEngine(branches=[script(-3.0), script(-1.0), script(-2.0)]))
    ask = {"prompt": ["1", "22"], "n": 2, "best_of": 3}
    response, body = await fetch(site, COMPLETIONS, ask)
    answer = json.loads(body)
    assert [(choice["index"], choice["text"]) for choice in answer["choices"]] == [
        (0, "-1.0"),
        (1, "-2.0"),
        (2, "-1.0"),
        (3, "-2.0"),
    ]
    assert [choice["logprobs"] for choice in answer["choices"]] == [None] * 4
    assert answer["usage"] == usage(5, 6)
    assert response.headers["x-generated-tokens"] == "4"
    assert response.headers["x-prompt-tokens"] == "5"
    assert site.metric("tgi_request_duration_count") == 4
    assert site.metric("tgi_request_input_length_count") == 6


# --- echo ---


@pytest.mark.parametrize("prompt", ["hé", [104, 233]])
async def test_echo_puts_the_prompt_in_front(make_site, prompt):
    _, body = await fetch(await make_site(), COMPLETIONS, {"prompt": prompt, "echo": True})
    assert json.loads(body)["choices"][0]["text"] == "héHello world"


async def test_echo_streamed_is_one_first_chunk_for_each_choice(make_site):
    site = await make_site(said("ab", "c"))
    ask = {"prompt": ["1", "22"], "n": 2, "echo": True, "stream": True}
    choices = [chunk["choices"][0] for chunk in chunks_of((await fetch(site, COMPLETIONS, ask))[1])]
    by_choice = [[c for c in choices if c["index"] == index] for index in range(4)]
    assert [[c["text"] for c in chunks] for chunks in by_choice] == [
        ["1", "a", "b"],
        ["1", "c"],
        ["22", "a", "b"],
        ["22", "c"],
    ]
    assert [chunks[0]["finish_reason"] for chunks in by_choice] == [None] * 4
    assert [chunks[-1]["finish_reason"] for chunks in by_choice] == ["length"] * 4


@pytest.mark.parametrize("streamed", [False, True])
async def test_echo_with_logprobs_lists_the_prompt_s_tokens_too(make_site, streamed):
    token = Token(TokenId(33), "!", -0.5, False)
    (event,) = text_events("!")
    event = TokenEvent(token=token, top_tokens=(token,), delta="!", finish=event.finish)
    site = await make_site(FakeEngine(lambda _: [event]))
    ask = {"prompt": "hé", "echo": True, "logprobs": 1, "stream": streamed}
    body = (await fetch(site, COMPLETIONS, ask))[1]
    answers = chunks_of(body) if streamed else [json.loads(body)]
    parts = [answer["choices"][0]["logprobs"] for answer in answers]
    lists = {name: [entry for part in parts for entry in part[name]] for name in parts[0]}
    assert lists == {
        "tokens": ["<s>", "h", "é", "!"],
        "token_logprobs": [None, -0.25, -0.5, -0.5],
        "top_logprobs": [None, {"h": -0.25}, {"é": -0.5}, {"!": -0.5}],
        "text_offset": [0, 0, 1, 2],
    }


@pytest.mark.parametrize("streamed", [False, True])
async def test_echo_alone_shows_and_counts_no_token(make_site, streamed):
    site = await make_site(FakeEngine(generated()))  # the engine's one token, an EOS
    ask = {"prompt": "hé", "echo": True, "logprobs": 0, "max_tokens": 0, "stream": streamed}
    if streamed:
        ask["stream_options"] = {"include_usage": True}
    _, body = await fetch(site, COMPLETIONS, ask)
    answers = chunks_of(body) if streamed else [json.loads(body)]
    choices = [choice for answer in answers for choice in answer["choices"]]
    assert "".join(choice["text"] for choice in choices) == "hé"
    assert choices[0]["logprobs"]["tokens"] == ["<s>", "h", "é"]
    assert choices[0]["logprobs"]["top_logprobs"] is None
    assert choices[-1]["finish_reason"] == "length"
    assert answers[-1]["usage"] == usage(3, 0)


# --- what is judged before the permit (contract 2.4) ---


@pytest.mark.parametrize(
    ("path", "ask", "status", "error_type"),
    [
        (COMPLETIONS, {"prompt": ["x"] * 5}, 422, "batch size exceeded"),
        (COMPLETIONS, {"prompt": "x", "suffix": ""}, 422, "suffix not supported"),
        (COMPLETIONS, {"prompt": "x", "temperature": -1}, 429, "overloaded"),
        (
            CHAT,
            {"messages": MESSAGES, "tools": [], "tool_choice": "f"},
            422,
            "tool_error",
        ),
        (CHAT, {"messages": MESSAGES}, 429, "overloaded"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_overloaded_server_tells_what_tgi_judges_before_the_permit(
    make_site, path, ask, status, error_type, streamed
):
    site = await make_site(max_concurrent_requests=0)
    response, body = await fetch(site, path, {**ask, "stream": streamed})
    assert response.status_code == status
    assert json.loads(body)["error_type"] == error_type


# --- one model ---


@pytest.mark.parametrize("model_id", ["test/model", "test%2Fmodel", "tgi"])
async def test_model_served_is_described(make_site, model_id):
    response = await (await make_site()).client().get(f"/v1/models/{model_id}")
    assert response.status_code == 200
    assert await response.get_data() == (
        b'{"id":"test/model","object":"model","created":0,"owned_by":"test/model"}'
    )


async def test_model_of_a_folder_is_found_by_its_whole_name(make_site):
    site = await make_site(model_id="/models/own")
    response = await site.client().get("/v1/models//models/own")
    assert (await response.get_json())["id"] == "/models/own"


@pytest.mark.parametrize("model_id", ["gpt-4", "test", "/test/model"])
async def test_model_not_served_is_not_found(make_site, model_id):
    response = await (await make_site()).client().get(f"/v1/models/{model_id}")
    assert response.status_code == 404
    assert await response.get_json() == {
        "error": {
            "message": f"The model '{model_id}' does not exist",
            "type": "not_found_error",
            "param": "model",
            "code": "model_not_found",
        },
        "error_type": "not_found",
    }


@pytest.mark.parametrize("path", ["/v1/models/test/model", "/v1/models//x"])
async def test_model_is_behind_the_key(make_site, path):
    client = (await make_site(api_keys=("secret",))).client()
    assert (await client.get(path)).status_code == 401
    response = await client.get(path, headers={"authorization": "Bearer secret"})
    assert response.status_code in (200, 404)


@pytest.mark.parametrize(
    "arguments",
    ["[" * 2000 + "]" * 2000, '{"a":' * 2000 + "1" + "}" * 2000, '{"a":"\\ud800"}', '{"a":NaN}'],
    ids=["nested list", "nested object", "half a surrogate pair", "NaN"],
)
@pytest.mark.parametrize("path", [CHAT, "/chat_tokenize", "/invocations"])
async def test_json_in_the_arguments_of_a_call_that_no_body_may_hold_stays_a_text(
    make_site, path, arguments
):
    site = await make_site()
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}}
    messages = [*MESSAGES, {"role": "assistant", "tool_calls": [call]}, *MESSAGES]
    response, _ = await fetch(site, path, {"messages": messages, "max_tokens": 2})
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("path", "payload"),
    [
        (COMPLETIONS, {"prompt": ["a", "b"], "n": 2}),
        (CHAT, {"messages": MESSAGES, "n": 4}),
        ("/vertex", {"instances": [{"inputs": "a"}] * 4}),
    ],
    ids=["completions", "chat", "vertex"],
)
async def test_call_that_could_never_run_is_wrong_and_not_early(make_site, path, payload):
    site = await make_site(max_concurrent_requests=3)
    response, body = await fetch(site, path, payload)
    assert response.status_code == 422
    assert "asks for 4 generations, and this server runs at most 3" in body
    assert "retry-after" not in response.headers
