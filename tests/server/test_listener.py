"""How a server ends when it is cancelled, as it is when the decode thread has died."""

import socket

import trio
from fakes.raw_client import RawClient, get, post
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope
from trio.testing import wait_all_tasks_blocked

from tgi_llama.server.listener import HttpServer, bind

PATIENCE_S = 10
"""Only ever spent by a test that fails."""


async def answer(send: ASGISendCallable, body: bytes) -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def port_of(addresses: list[str]) -> int:
    return int(addresses[0].rpartition(":")[2])


async def test_cancelled_server_is_not_held_by_a_client_that_never_reads() -> None:
    async def endless(_scope: Scope, _receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await answer(send, bytes(32 * 2**20))

    with socket.socket() as deaf:

        async def give_up() -> None:
            await trio.sleep(PATIENCE_S)
            deaf.close()  # a shielded write can be ended in no other way

        async with trio.open_nursery() as patience:
            patience.start_soon(give_up)
            async with trio.open_nursery() as nursery:
                server = HttpServer(endless, bind("127.0.0.1", 0))
                addresses = await nursery.start(server.run)
                deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                deaf.connect(("127.0.0.1", port_of(addresses)))
                deaf.sendall(get("/"))
                await trio.to_thread.run_sync(deaf.recv, 1)
                await wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            patience.cancel_scope.cancel()
        assert deaf.fileno() >= 0, "the server waited for its client"


async def test_cancelled_server_sends_the_answers_that_come_at_once() -> None:
    dying = trio.Event()

    async def last_words(
        _scope: Scope, _receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        await dying.wait()
        await answer(send, b"it died")

    async def die_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            dying.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(die_when_cancelled)
        server = HttpServer(last_words, bind("127.0.0.1", 0))
        addresses = await nursery.start(server.run)
        stream = await trio.open_tcp_stream("127.0.0.1", port_of(addresses))
        client = RawClient(stream)
        await client.send(get("/"))
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert (await client.read_response()).body == b"it died"
    assert await client.read_to_eof() == b""
    await client.close()


async def test_answer_larger_than_the_socket_takes_at_once_arrives_whole() -> None:
    body = bytes(range(256)) * 2**15

    async def large(_scope: Scope, _receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await answer(send, body)

    async with trio.open_nursery() as nursery:
        addresses = await nursery.start(HttpServer(large, bind("127.0.0.1", 0)).run)
        async with await trio.open_tcp_stream("127.0.0.1", port_of(addresses)) as client:
            for _ in range(2):  # the connection is in step afterwards
                await client.send_all(get("/"))
                received = b""
                while not received.endswith(b"\r\n\r\n" + body):
                    received += await client.receive_some(2**16)
        nursery.cancel_scope.cancel()


async def test_sockets_of_clients_that_have_left_are_closed_at_once() -> None:
    async def short(_scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        while (await receive()).get("more_body"):
            pass
        await answer(send, b"done")

    async with trio.open_nursery() as nursery:
        server = HttpServer(short, bind("127.0.0.1", 0))
        addresses = await nursery.start(server.run)
        for _ in range(8):
            async with await trio.open_tcp_stream("127.0.0.1", port_of(addresses)) as stream:
                client = RawClient(stream)
                await client.send(post("/", {}))
                assert (await client.read_response()).body == b"done"
        server.stop_accepting()
        with trio.fail_after(PATIENCE_S):
            await server.wait_closed()
        nursery.cancel_scope.cancel()
