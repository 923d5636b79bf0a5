"""HTTP/1.1 and 1.0 on a real socket: who closes, who keeps, and what is in between."""

import json

import pytest
import trio
import trio.testing
from fakes.engine import FakeEngine, generated
from fakes.raw_client import get, post

ASK = {"inputs": "hi"}
CLOSE = ("Connection: close",)


@pytest.mark.parametrize("path", ["/health", "/info", "/metrics", "/no-such-route"])
async def test_get_connection_close_is_answered_and_closed(make_site, path):
    client = await (await make_site()).connect()
    await client.send(get(path, headers=CLOSE))
    answer = await client.read_to_eof()
    assert answer.startswith(b"HTTP/1.1 ")
    assert b"connection: close" in answer.lower()


@pytest.mark.parametrize("path", ["/", "/generate", "/v1/models"])
@pytest.mark.parametrize("status", [200, 422])
async def test_post_connection_close_is_answered_and_closed(make_site, path, status):
    client = await (await make_site()).connect()
    payload = ASK if status == 200 else {"inputs": ""}
    await client.send(post(path, payload, headers=CLOSE))
    head = await client.read_to_eof()
    assert int(head.split()[1]) == (405 if path == "/v1/models" else status)


async def test_stream_connection_close_ends_with_terminator_and_is_closed(make_site):
    client = await (await make_site()).connect()
    await client.send(post("/generate_stream", ASK, headers=CLOSE))
    assert (await client.read_to_eof()).endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("headers", [(), ("Connection: keep-alive",)])
async def test_http_1_0_is_answered_and_closed(make_site, headers):
    client = await (await make_site()).connect()
    response = await client.request(post("/generate", ASK, headers=headers, version="1.0"))
    assert response.json == {"generated_text": "Hello world"}
    assert response.headers["connection"] == "close"
    assert await client.read_to_eof() == b""


async def test_http_1_0_stream_is_unchunked_and_ends_at_eof(make_site):
    client = await (await make_site()).connect()
    response = await client.request(post("/generate_stream", ASK, version="1.0"))
    assert "transfer-encoding" not in response.headers
    assert len(response.events) == 3


async def test_keep_alive_serves_many_requests_on_one_connection(make_site):
    client = await (await make_site()).connect()
    for _ in range(3):
        assert (await client.request(get("/health"))).status == 200
        assert (await client.request(post("/generate", ASK))).status == 200
        assert len((await client.request(post("/generate_stream", ASK))).events) == 3


async def test_pipelined_requests_are_answered_in_order(make_site):
    client = await (await make_site()).connect()
    await client.send(
        get("/health")
        + post("/generate", ASK)
        + post("/generate_stream", ASK)
        + get("/no-such-route")
        + get("/info", headers=CLOSE)
    )
    statuses = [(await client.read_response()).status for _ in range(5)]
    assert statuses == [200, 200, 200, 404, 200]
    assert await client.read_to_eof() == b""


async def test_chunked_request_body_is_read(make_site):
    client = await (await make_site()).connect()
    body = json.dumps({"inputs": "hi", "parameters": {"details": True}}).encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    head = (
        b"POST /generate HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    for piece in (head, chunks[:50], chunks[50:]):
        await client.send(piece)
    assert (await client.read_response()).json["generated_text"] == "Hello world"
    assert (await client.request(get("/health"))).status == 200


async def test_expect_100_continue_is_granted(make_site):
    client = await (await make_site()).connect()
    request = post("/generate", ASK, headers=("Expect: 100-continue",))
    head, body = request.split(b"\r\n\r\n", 1)
    await client.send(head + b"\r\n\r\n")
    assert (await client.read_head())[1] == 100
    assert (await client.request(body)).status == 200
    assert (await client.request(get("/health"))).status == 200


async def test_too_large_body_announced_is_refused_before_it_is_sent(make_site):
    client = await (await make_site(payload_limit_bytes=1000)).connect()
    await client.send(
        b"POST /generate HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
        b"Content-Length: 5000\r\n\r\n"
    )
    response = await client.read_response()
    assert response.status == 413
    assert response.json["error_type"] == "validation"


async def test_too_large_body_sent_to_its_end_keeps_the_connection(make_site):
    client = await (await make_site(payload_limit_bytes=1000)).connect()
    response = await client.request(post("/generate", {"inputs": "x" * 300_000}))
    assert response.status == 413
    assert (await client.request(get("/health"))).status == 200


async def test_too_large_chunked_body_is_refused_while_it_is_read(make_site):
    client = await (await make_site(payload_limit_bytes=1000)).connect()
    await client.send(
        b"POST /generate HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
    )
    await client.send(b"800\r\n" + b"x" * 2048 + b"\r\n")
    assert (await client.read_response()).status == 413
    await trio.testing.wait_all_tasks_blocked()  # the server waits for the rest of the body
    await client.send(b"0\r\n\r\n")
    assert (await client.request(get("/health"))).status == 200


async def test_too_large_body_that_never_ends_is_cut_off(make_site):
    site = await make_site(payload_limit_bytes=1000, linger_s=0.0)
    client = await site.connect()
    await client.send(
        b"POST /generate HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n800\r\n" + b"x" * 2048 + b"\r\n"
    )
    assert (await client.read_response()).status == 413
    assert await client.read_to_eof() == b""


async def test_body_that_nobody_reads_keeps_the_connection(make_site):
    client = await (await make_site()).connect()
    assert (await client.request(post("/no-such-route", ["x" * 200_000]))).status == 404
    assert (await client.request(get("/health"))).status == 200


async def test_body_too_slow_is_answered_408(make_site):
    client = await (await make_site(body_timeout_s=0.0, linger_s=0.0)).connect()
    await client.send(
        b"POST /generate HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
        b"Content-Length: 10\r\n\r\n{"
    )
    assert (await client.read_response()).status == 408
    assert await client.read_to_eof() == b""


async def test_head_has_headers_and_no_body(make_site):
    client = await (await make_site()).connect()
    await client.send(b"HEAD /info HTTP/1.1\r\nHost: test\r\n\r\n")
    _, status, headers = await client.read_head()
    assert status == 200
    assert int(headers["content-length"]) > 0
    assert (await client.request(get("/health"))).status == 200


async def test_many_connections_at_once_are_all_served(make_site):
    site = await make_site(FakeEngine(generated("a", "b")), max_concurrent_requests=32)
    await site.connect()
    counts: list[int] = []

    async def ask() -> None:
        client = await site.connect()
        response = await client.request(post("/generate_stream", ASK, headers=CLOSE))
        assert await client.read_to_eof() == b""
        counts.append(len(response.events))

    async with trio.open_nursery() as clients:
        for _ in range(16):
            clients.start_soon(ask)
    assert counts == [3] * 16
    assert site.admission.n_running == 0
