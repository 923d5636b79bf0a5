"""A client cannot tell which way its stream came: the bytes of both are the same."""

import re

import pytest
import trio
from fakes.engine import FakeEngine, text_events
from fakes.raw_client import post
from fakes.scripted_loop import Script

from tgi_llama.engine.engine import Engine

PIECES = ("a", " é", "", "😀", '"\\', "\n", "%d %b", "\u2028", "z")
MESSAGES = [{"role": "user", "content": "hi"}]
STREAM = {"stream": True}
USAGE = {"stream_options": {"include_usage": True}}
ASKS = [
    ("/generate_stream", {"inputs": "hi"}),
    ("/generate_stream", {"inputs": "hi", "parameters": {"details": True, "top_n_tokens": 2}}),
    ("/", {"inputs": "hi"} | STREAM),
    ("/v1/chat/completions", {"messages": MESSAGES} | STREAM),
    ("/v1/chat/completions", {"messages": MESSAGES, "model": "%d"} | STREAM | USAGE),
    ("/v1/chat/completions", {"messages": MESSAGES, "logprobs": True} | STREAM),
    ("/v1/chat/completions", {"messages": MESSAGES, "n": 2} | STREAM),
    ("/v1/completions", {"prompt": "hi"} | STREAM),
    ("/v1/completions", {"prompt": "hi", "n": 2} | STREAM | USAGE),
    ("/v1/completions", {"prompt": "hi", "logprobs": 1} | STREAM),
    ("/v1/completions", {"prompt": "hi", "echo": True} | STREAM),
    ("/invocations", {"inputs": "hi"} | STREAM),
]


async def body(make_site, engine, path, payload, steps):
    """The frames of the answer, those of each choice in order, without what two answers never
    share: ids and the time."""
    site = await make_site(engine)
    client = await site.connect()
    await client.send(post(path, payload))
    await steps()
    received = (await client.read_response()).body
    received = re.sub(rb'"id":"\w+-[0-9a-f]{24}"', b'"id":""', received)
    frames = re.sub(rb'"created":\d+', b'"created":0', received).split(b"\n\n")
    # Choices alternate as chance has it, on the long way too.
    return sorted(frames, key=_choice) if payload.get("n") else frames


def _choice(frame):
    found = re.search(rb'"choices":\[\{"index":(\d)', frame)
    return int(found[1]) if found else 9


@pytest.mark.parametrize(("path", "payload"), ASKS)
async def test_bytes_are_the_same_on_both_ways(make_site, nursery, n_short, path, payload):
    async def no_steps():
        pass

    async def one_by_one():
        for _ in PIECES:
            await script.step()

    plain = FakeEngine(lambda _request: text_events(*PIECES))
    expected = await body(make_site, plain, path, payload, no_steps)
    assert n_short() == 0
    script = Script(*PIECES)
    engine = Engine(script, script.note_delivered)
    await nursery.start(engine.run)
    with trio.fail_after(20):
        assert await body(make_site, engine, path, payload, one_by_one) == expected
    assert n_short() > 0
