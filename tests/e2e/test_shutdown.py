"""The way down: idle, busy, at the deadline, twice, and with a client that never reads."""

import signal
import socket

import pytest
from fakes.raw_client import RawClient, get, post
from fakes.server_process import ServerProcess, tgi_llama

SHORT = {"inputs": "1, 2, 3,", "parameters": {"max_new_tokens": 3}}
LONG = {"inputs": "1, 2, 3,", "parameters": {"max_new_tokens": 1500, "ignore_eos": True}}


async def started(server: ServerProcess, payload: object) -> RawClient:
    """A client whose stream has its first token."""
    client = await server.connect()
    await client.send(post("/generate_stream", payload))
    await server.release(".")
    _, status, _ = await client.read_head()
    assert status == 200
    await client.read_until(b"\n\n")
    return client


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_while_idle_ends_at_once(
    environment: dict[str, str], number: signal.Signals
) -> None:
    async with tgi_llama(environment=environment) as server:
        client = await server.connect()
        assert (await client.request(get("/health"))).status == 200
        server.process.send_signal(number)
        assert await server.stopped() == 0
        assert await client.read_to_eof() == b""


async def test_signal_while_busy_lets_requests_finish(environment: dict[str, str]) -> None:
    async with tgi_llama(environment=environment, gated=True) as server:
        client = await started(server, SHORT)
        idle = await server.connect()
        assert (await idle.request(get("/health"))).status == 200
        server.process.send_signal(signal.SIGTERM)
        await server.wait_for("graceful shutdown")
        assert (await idle.request(get("/health"))).status == 503
        assert (await idle.request(post("/generate", SHORT))).status == 503
        with pytest.raises(OSError, match="attempts to connect"):
            await server.connect()
        await server.open_gate()
        assert b'"generated_text":"' in await client.read_to_eof()
        assert await server.stopped() == 0


async def test_deadline_ends_requests_with_an_error_event(environment: dict[str, str]) -> None:
    options = ("--graceful-termination-timeout", "0.2")
    async with tgi_llama(*options, environment=environment, gated=True) as server:
        client = await started(server, LONG)
        server.process.send_signal(signal.SIGTERM)
        await server.wait_for("ended at the deadline")
        await server.open_gate()
        assert b"shutting down" in await client.read_to_eof()
        assert await server.stopped() == 0


async def test_second_signal_does_not_wait(environment: dict[str, str]) -> None:
    async with tgi_llama(environment=environment, gated=True) as server:
        client = await started(server, LONG)
        server.process.send_signal(signal.SIGTERM)
        await server.wait_for("graceful shutdown")
        server.process.send_signal(signal.SIGTERM)
        await server.wait_for("ending at once")
        await server.open_gate()
        assert await server.stopped() == 0
        with pytest.raises((EOFError, OSError)):
            await client.read_until(b'"finish_reason"')


async def test_client_that_never_reads_cannot_hold_the_shutdown(
    environment: dict[str, str],
) -> None:
    options = ("--graceful-termination-timeout", "0.2")
    async with tgi_llama(*options, environment=environment) as server:
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            deaf.connect(("127.0.0.1", server.port))
            payload = LONG["parameters"] | {"top_n_tokens": 5}
            request = post("/generate_stream", LONG | {"parameters": payload})
            deaf.sendall(request * 8)  # one after the other on the same connection
            deaf.recv(1)
            server.process.send_signal(signal.SIGTERM)
            assert await server.stopped() == 0
            assert "connections were cut" in server.output
