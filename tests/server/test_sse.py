"""Silence, length and failure of streams."""

import json

import pytest
import trio
import trio.testing
from fakes.engine import FakeEngine, fails_after, generated
from fakes.raw_client import post

from tgi_llama.errors import GenerationError, IncompleteGeneration, ShuttingDown

ASK = {"inputs": "hi"}
CHAT = {"messages": [{"role": "user", "content": "hi"}], "stream": True}


async def test_stream_silent_for_long_gets_comments_and_is_not_cut(make_site, mock_clock):
    site = await make_site(FakeEngine(generated("a"), gate=trio.Event(), gate_at=1))
    connection = site.client().request(
        "/generate_stream", method="POST", headers={"content-type": "application/json"}
    )
    async with connection:
        await connection.send(json.dumps(ASK).encode())
        await connection.send_complete()
        assert (await connection.receive()).startswith(b'data: {"index":1,')
        for _ in range(5):  # 75 s, more than any of Quart's timeouts
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(15.0)
            assert await connection.receive() == b":\n\n"
        site.engine.gate.set()
    assert connection.response_data.startswith(b'data: {"index":2,')


async def test_stream_first_token_late_gets_comment_after_headers(make_site, mock_clock):
    site = await make_site(FakeEngine(gate=trio.Event()), keep_alive_s=3.0)
    connection = site.client().request(
        "/v1/chat/completions", method="POST", headers={"content-type": "application/json"}
    )
    async with connection:
        await connection.send(json.dumps(CHAT).encode())
        await connection.send_complete()
        await site.engine.opened.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert connection.status_code == 200
        mock_clock.jump(3.0)
        assert await connection.receive() == b":\n\n"
        site.engine.gate.set()
    assert connection.response_data.endswith(b"data: [DONE]\n\n")


async def test_events_that_wait_go_out_together(make_site):
    site = await make_site(FakeEngine(generated(*"abcdefgh"), gate=trio.Event()))
    client = await site.connect()
    await client.send(post("/generate_stream", ASK))
    await site.engine.opened.wait()
    site.engine.gate.set()
    await client.read_head()
    size = int(await client.read_until(b"\r\n"), 16)
    assert (await client.read_until(b"\n\n\r\n")).count(b"data: ") == 9
    assert size > 900


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            GenerationError("it broke"),
            {
                "error": "Request failed during generation: it broke",
                "error_type": "generation",
            },
        ),
        (
            IncompleteGeneration("?"),
            {
                "error": "Incomplete generation stream",
                "error_type": "incomplete_generation_stream",
            },
        ),
        (
            ShuttingDown("the server is shutting down"),
            {"error": "the server is shutting down", "error_type": "unavailable"},
        ),
    ],
)
async def test_native_stream_failing_ends_with_error_event(make_site, error, expected):
    site = await make_site(FakeEngine(fails_after("a", error=error)))
    response = await (await site.connect()).request(post("/generate_stream", ASK))
    assert response.status == 200
    first, last = (json.loads(event) for event in response.events)
    assert first["token"]["text"] == "a"
    assert last == expected
    assert site.admission.n_running == 0


@pytest.mark.parametrize(
    ("path", "payload"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/completions", {"prompt": ["a", "b"], "stream": True}),
    ],
)
async def test_openai_stream_failing_ends_with_error_event_and_done(make_site, path, payload):
    site = await make_site(FakeEngine(fails_after("a", error=GenerationError("it broke"))))
    response = await (await site.connect()).request(post(path, payload))
    assert response.status == 200
    *_, error, done = response.events
    assert json.loads(error) == {
        "error": {
            "message": "Request failed during generation: it broke",
            "type": "server_error",
            "param": None,
            "code": 424,
        },
        "error_type": "generation",
    }
    assert done == "[DONE]"
    assert site.metric('tgi_request_failure{err="generation"}') == 1
    assert site.admission.n_running == 0


async def test_stream_failing_unexpectedly_hides_the_reason_and_logs_it(make_site, caplog):
    site = await make_site(FakeEngine(fails_after(error=RuntimeError("secret"))))
    response = await (await site.connect()).request(post("/generate_stream", ASK))
    assert response.events == [
        '{"error":"The server failed; its log says why","error_type":"internal_error"}'
    ]
    assert "secret" in caplog.text
    assert site.metric('tgi_request_failure{err="internal"}') == 1


async def test_streams_of_several_prompts_wait_together(make_site):
    site = await make_site(FakeEngine(generated("a", "b"), gate=trio.Event(), gate_at=1))
    client = await site.connect()
    await client.send(post("/v1/completions", {"prompt": ["x", "y", "z"], "stream": True}))
    await client.read_head()
    await trio.testing.wait_all_tasks_blocked()
    site.engine.gate.set()
    events = (await client._read_chunks()).decode().split("\n\n")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    choices = [chunk["choices"][0] for chunk in chunks]
    for index in range(3):
        assert "".join(c["text"] for c in choices if c["index"] == index) == "ab"
    assert [c["index"] for c in choices[:3]] == [0, 1, 2]
    assert site.engine.n_cancelled == 0
