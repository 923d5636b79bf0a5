"""Prompt tokens that were found cached: in the usage, in a header, and nowhere in TGI's bodies."""

import json

import attrs
import pytest
from fakes.engine import FakeEngine, text_events
from fakes.raw_client import post

CHAT = ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]})
COMPLETION = ("/v1/completions", {"prompt": "hi"})
USAGE = {"stream": True, "stream_options": {"include_usage": True}}


def finding(*n_cached):
    """An engine whose generations of one prompt find so many tokens."""

    def script(n):
        *events, last = text_events("a", "b")
        assert last.finish is not None
        finish = attrs.evolve(last.finish, n_cached_prompt_tokens=n)
        events = [*events, attrs.evolve(last, finish=finish)]
        return lambda _request: events

    if len(n_cached) == 1:
        return FakeEngine(script(n_cached[0]))
    return FakeEngine(branches=[script(n) for n in n_cached])


async def ask(make_site, engine, path, payload):
    site = await make_site(engine)
    response = await (await site.connect()).request(post(path, payload))
    assert response.status == 200
    return response


@pytest.mark.parametrize(("path", "payload"), [CHAT, COMPLETION])
async def test_usage_and_header_say_what_was_cached(make_site, path, payload):
    response = await ask(make_site, finding(2), path, payload)
    assert response.json["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}
    assert response.headers["x-cached-tokens"] == "2"


@pytest.mark.parametrize(("path", "payload"), [CHAT, COMPLETION])
async def test_stream_says_it_with_its_usage(make_site, path, payload):
    response = await ask(make_site, finding(2), path, payload | USAGE)
    *_, last, done = response.events
    assert done == "[DONE]"
    assert json.loads(last)["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}
    assert "x-cached-tokens" not in response.headers, "not known yet"


@pytest.mark.parametrize(("path", "payload"), [CHAT, COMPLETION])
@pytest.mark.parametrize("how", [{}, USAGE])
async def test_prompt_of_several_choices_was_found_by_the_first_of_them(
    make_site, path, payload, how
):
    response = await ask(make_site, finding(1, 2), path, payload | how | {"n": 2})
    usage = json.loads(response.events[-2])["usage"] if how else response.json["usage"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 1}


async def test_several_prompts_are_summed(make_site):
    response = await ask(make_site, finding(1), "/v1/completions", {"prompt": ["ab", "cd", "ef"]})
    assert response.json["usage"]["prompt_tokens_details"] == {"cached_tokens": 3}
    assert response.headers["x-cached-tokens"] == "3"


@pytest.mark.parametrize("how", [{}, USAGE])
async def test_echoed_prompt_alone_says_it_too(make_site, how):
    payload = {"prompt": "hi", "echo": True, "max_tokens": 0} | how
    response = await ask(make_site, finding(2), "/v1/completions", payload)
    usage = json.loads(response.events[-2])["usage"] if how else response.json["usage"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 2}


async def test_native_answer_says_it_in_the_header_alone(make_site):
    payload = {"inputs": "hi", "parameters": {"details": True}}
    response = await ask(make_site, finding(2), "/generate", payload)
    assert response.headers["x-cached-tokens"] == "2"
    assert b"cached" not in response.body


async def test_best_of_counts_the_branch_that_computed_the_prompt(make_site):
    payload = {"inputs": "hi", "parameters": {"best_of": 2, "do_sample": True}}
    response = await ask(make_site, finding(2, 0), "/generate", payload)
    assert response.headers["x-cached-tokens"] == "0"


async def test_code_of_a_page_may_read_the_header(make_site):
    response = await ask(make_site, finding(2), "/generate", {"inputs": "hi"})
    assert "x-cached-tokens" in response.headers["access-control-expose-headers"].split(",")
