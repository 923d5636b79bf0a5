"""A small real HTTP server that speaks OpenAI's API and TGI's and does what a test says.

It runs on Trio over loopback sockets. There are no delays: a test that wants something to wait
gives it an event.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial

import attrs
import orjson
import trio

_TEXT_PATHS = ("/v1/completions", "/v1/chat/completions", "/generate_stream")


@attrs.frozen
class Received:
    """One request, as the server saw it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, object]

    @property
    def prompt(self) -> str:
        """The prompt, or the texts of a chat's messages on a line each."""
        if isinstance(messages := self.body.get("messages"), list):
            return "\n".join(f"{one['role']}: {one['content']}" for one in messages)
        return str(self.body.get("prompt") or self.body.get("inputs"))

    @property
    def n_asked(self) -> int:
        parameters = self.body.get("parameters")
        if isinstance(parameters, dict):
            return int(parameters["max_new_tokens"])
        return int(str(self.body["max_tokens"]))


@attrs.frozen(kw_only=True)
class Answer:
    """How a request is answered: all its tokens, if nothing else is said."""

    status: int = 200
    error: str = ""
    """With a status other than 200."""
    n_tokens: int | None = None
    """Instead of as many as were asked for."""
    finish_reason: str = "length"
    cut_after: int | None = None
    """The connection ends after so many tokens."""
    error_after: int | None = None
    """An error event comes after so many tokens."""
    in_one_write: bool = False
    with_usage: bool = True
    content_type: str = "text/event-stream"
    gates: Mapping[int, trio.Event] = attrs.field(factory=dict)
    """From a token's number to the event it waits for."""


@attrs.define(eq=False)
class ScriptedServer:
    decide: Callable[[Received], Answer] = lambda _received: Answer()
    models: Mapping[str, object] | None = attrs.field(factory=lambda: {"data": [{"id": "played"}]})
    """What ``/v1/models`` answers; None: there is no such route."""
    info: Mapping[str, object] | None = attrs.field(factory=lambda: {"model_id": "played/native"})
    api_key: str | None = None
    received: list[Received] = attrs.field(factory=list)
    """Requests for text, in the order in which they came."""
    n_running: int = 0
    most_running: int = 0
    url: str = ""

    async def serve(self, stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            async with stream:
                await self._answer(stream, await _read(stream))

    async def _answer(self, stream: trio.SocketStream, received: Received) -> None:
        key = received.headers.get("authorization")
        if self.api_key is not None and key != f"Bearer {self.api_key}":
            await _send_json(stream, 401, {"error": "Unauthorized"})
        elif received.path in _TEXT_PATHS:
            self.received.append(received)
            self.n_running += 1
            self.most_running = max(self.most_running, self.n_running)
            try:
                await self._answer_with_text(stream, received, self.decide(received))
            finally:
                self.n_running -= 1
        else:
            known = {"/v1/models": self.models, "/info": self.info}.get(received.path)
            await _send_json(stream, 404 if known is None else 200, known or {"error": "not found"})

    async def _answer_with_text(
        self, stream: trio.SocketStream, received: Received, answer: Answer
    ) -> None:
        if answer.status != 200:
            await _send_json(stream, answer.status, {"error": {"message": answer.error}})
            return
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Type: {answer.content_type}\r\n"
            "Transfer-Encoding: chunked\r\n\r\n"
        )
        await stream.send_all(head.encode())
        n_tokens = received.n_asked if answer.n_tokens is None else answer.n_tokens
        waiting = b""
        for number in range(n_tokens):
            if number in answer.gates:
                await answer.gates[number].wait()
            if number == answer.cut_after:
                return
            if number == answer.error_after:
                await stream.send_all(_chunk(_sse({"error": "it broke", "error_type": "x"})))
                return
            waiting += _token(received, number, n_tokens, answer)
            if not answer.in_one_write:
                await stream.send_all(_chunk(waiting))
                waiting = b""
        await stream.send_all(_chunk(waiting + _end(received, n_tokens, answer)) + b"0\r\n\r\n")


@contextlib.asynccontextmanager
async def playing(server: ScriptedServer) -> AsyncIterator[ScriptedServer]:
    """Runs the server on a free port and tells it its URL."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, server.serve, 0, host="127.0.0.1"))
        server.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        yield server
        nursery.cancel_scope.cancel()


def _token(received: Received, number: int, n_tokens: int, answer: Answer) -> bytes:
    text = f" w{number}"
    if received.path == "/generate_stream":
        is_last = number == n_tokens - 1
        details = {"finish_reason": answer.finish_reason, "generated_tokens": n_tokens}
        return _sse(
            {
                "index": number + 1,
                "token": {"id": number, "text": text, "logprob": -1.0, "special": False},
                "generated_text": "all" if is_last else None,
                "details": {**details, "input_length": 7} if is_last else None,
            }
        )
    if received.path == "/v1/completions":
        return _sse({"choices": [{"index": 0, "text": text, "finish_reason": None}]})
    return _sse({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})


def _end(received: Received, n_tokens: int, answer: Answer) -> bytes:
    if received.path == "/generate_stream":
        return b""
    content = {"text": ""} if received.path == "/v1/completions" else {"delta": {}}
    choice = {"index": 0, "finish_reason": answer.finish_reason, **content}
    usage = {
        "prompt_tokens": 7,
        "completion_tokens": n_tokens,
        "prompt_tokens_details": {"cached_tokens": 3},
    }
    counts = _sse({"choices": [], "usage": usage}) if answer.with_usage else b""
    return _sse({"choices": [choice]}) + counts + b"data: [DONE]\n\n"


def _sse(value: object) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""


async def _send_json(stream: trio.SocketStream, status: int, value: object) -> None:
    body = orjson.dumps(value)
    head = f"HTTP/1.1 {status} Status\r\nContent-Type: application/json\r\n"
    await stream.send_all(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)


async def _read(stream: trio.SocketStream) -> Received:
    data = bytearray()
    while b"\r\n\r\n" not in data:
        data += await stream.receive_some()
    head, _, body = bytes(data).partition(b"\r\n\r\n")
    request_line, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += await stream.receive_some()
    method, path, _ = request_line.split(" ")
    return Received(method, path, headers, orjson.loads(body) if body else {})
