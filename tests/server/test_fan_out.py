"""Many more streaming clients than slots, over real sockets and with the engine's own thread."""

import json
import threading

import pytest
import trio
from fakes.raw_client import post
from fakes.stub_loop import StubLoop

from tgi_llama.engine.engine import Engine

N_CLIENTS = 200
N_SLOTS = 8
N_TOKENS = 20
ASK = {"inputs": "hi", "parameters": {"max_new_tokens": N_TOKENS}}
CHAT = {
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": N_TOKENS,
    "stream": True,
    "stream_options": {"include_usage": True},
}


@pytest.fixture
async def crowd(make_site, nursery):
    """A site on whose engine a gate holds up every step, and the gate."""
    gate = threading.Event()
    stub = StubLoop(N_TOKENS, n_slots=N_SLOTS, before_step=gate.wait)
    engine = Engine(stub)
    await nursery.start(engine.run)
    site = await make_site(engine, max_concurrent_requests=N_CLIENTS, keep_alive_s=0.5)
    engine.observe_step = site.services.metrics.record_step
    engine.observe_delivery = site.services.metrics.record_delivery
    yield site, gate
    gate.set()


async def all_answers(site, gate, path, payload):
    """The bodies of all clients, of whom nobody gets a token before all have had a comment."""
    n_waiting = N_CLIENTS
    bodies = []

    async def ask(client):
        nonlocal n_waiting
        await client.send(post(path, payload))
        _, status, _ = await client.read_head()
        assert status == 200
        comment = await client.read_until(b":\n\n")
        n_waiting -= 1
        if n_waiting == 0:
            gate.set()
        bodies.append(comment + await client.read_until(b"\r\n0\r\n\r\n"))

    with trio.fail_after(60):
        async with trio.open_nursery() as clients:
            for _ in range(N_CLIENTS):
                clients.start_soon(ask, await site.connect())
    return bodies


def events(body):
    """What stands behind ``data: `` in a chunked body, and how many comments there are."""
    lines = body.split(b"\n")
    found = [line.removeprefix(b"data: ") for line in lines if line.startswith(b"data: ")]
    return found, lines.count(b":")


async def test_every_client_gets_every_token_in_order(crowd):
    site, gate = crowd
    bodies = await all_answers(site, gate, "/generate_stream", ASK)
    assert len(bodies) == N_CLIENTS
    for body in bodies:
        found, n_comments = events(body)
        ids = [json.loads(event)["token"]["id"] for event in found]
        assert ids == list(range(N_TOKENS))
        assert n_comments >= 1, "those that waited were told that the server lives"
    assert site.metric("tgi_request_success") == N_CLIENTS
    with site.admission.permit(N_CLIENTS):
        pass  # all are back


async def test_every_chat_ends_with_its_usage(crowd):
    site, gate = crowd
    for body in await all_answers(site, gate, "/v1/chat/completions", CHAT):
        *chunks, usage, done = events(body)[0]
        text = "".join(json.loads(one)["choices"][0]["delta"]["content"] for one in chunks)
        assert text == " token" * N_TOKENS
        assert json.loads(usage)["usage"]["completion_tokens"] == N_TOKENS
        assert done == b"[DONE]"


async def test_delivery_is_measured_on_both_ways(crowd):
    site, gate = crowd
    await all_answers(site, gate, "/generate_stream", ASK)
    n_steps = N_CLIENTS // N_SLOTS * N_TOKENS
    n_long = 2 * N_CLIENTS  # the first event of each, which has the head before it, and the last
    n_measured = site.metric("tgi_llama_event_delivery_seconds_count")
    assert n_long <= n_measured <= n_long + N_CLIENTS * N_TOKENS
    assert n_measured >= n_long // 2 + n_steps // 2
    assert site.metric("tgi_llama_event_delivery_seconds_sum") > 0
