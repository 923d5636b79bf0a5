"""A thin HTTP/1.1 client on Trio: h11 for heads, ``framing`` for bodies.

One connection per request, closed afterwards, as a user's first request has it.
"""

import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit

import attrs
import h11
import trio

from tgi_llama.errors import ConfigError, MeasuredRequestFailed

from .framing import Body, BodyToTheEnd, ChunkedBody, SizedBody

_READ_BYTES = 65536
_PORTS = {"http": 80, "https": 443}


@attrs.frozen(kw_only=True)
class Endpoint:
    """Where a server is and how to ask it."""

    url: str
    """As the user wrote it, for messages."""
    host: str
    address: str
    """What is connected to: the host, or its address once it is resolved."""
    port: int
    path: str
    """Goes before every path; no slash at its end."""
    is_tls: bool
    api_key: str | None = attrs.field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str, api_key: str | None = None) -> "Endpoint":
        """Raises ConfigError. A ``/v1`` at the end is dropped: OpenAI's clients want it there."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"{url!r} is not a URL: {error}") from error
        if parts.scheme not in _PORTS or not parts.hostname or parts.query or parts.fragment:
            raise ConfigError(f"expected a URL such as http://localhost:3000, got {url!r}")
        return cls(
            url=url,
            host=parts.hostname,
            address=parts.hostname,
            port=_PORTS[parts.scheme] if port is None else port,
            path=parts.path.rstrip("/").removesuffix("/v1"),
            is_tls=parts.scheme == "https",
            api_key=api_key,
        )

    async def resolved(self) -> "Endpoint":
        """With the address that answers, so that no request has to look it up. Raises OSError."""
        async with await trio.open_tcp_stream(self.host, self.port) as stream:
            address, *_ = stream.socket.getpeername()
        return attrs.evolve(self, address=address)

    def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """The bytes of a request with a JSON body."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        headers = [("Host", f"{host}:{self.port}"), ("Connection", "close")]
        headers += [("User-Agent", "tgi-llama-bench"), ("Content-Length", str(len(body)))]
        if body:
            headers.append(("Content-Type", "application/json"))
        if self.api_key is not None:
            headers.append(("Authorization", f"Bearer {self.api_key}"))
        client = h11.Connection(h11.CLIENT)
        head = client.send(h11.Request(method=method, target=self.path + path, headers=headers))
        return (head or b"") + body


@attrs.define(eq=False)
class Response:
    """An answer whose head has come."""

    status: int
    content_type: str
    _receive: Callable[[int], Awaitable[bytes | bytearray]]
    _body: Body
    _early: bytes
    """What of the body came with the head."""

    async def read_some(self) -> bytes:
        """The next content; empty at the body's end. Raises MeasuredRequestFailed where the
        connection ends before the body does."""
        content = self._body.feed(self._early)
        self._early = b""
        while not content:
            if self._body.is_complete:
                return b""
            try:
                data = await self._receive(_READ_BYTES)
            except (trio.BrokenResourceError, OSError) as error:
                message = f"the connection broke: {reason_of(error)}"
                raise MeasuredRequestFailed("cut", message) from error
            if not data:
                if isinstance(self._body, BodyToTheEnd):
                    return b""
                raise MeasuredRequestFailed("cut", "the connection ended inside the answer")
            content = self._body.feed(bytes(data))
        return content

    async def read_text(self, limit_bytes: int = 1_000_000) -> str:
        """The rest of the body, cut at the limit."""
        content = bytearray()
        while len(content) < limit_bytes and (data := await self.read_some()):
            content += data
        return content[:limit_bytes].decode(errors="replace")


@contextlib.asynccontextmanager
async def open_response(endpoint: Endpoint, request: bytes) -> AsyncIterator[Response]:
    """Sends the request and waits for the head of its answer. Raises MeasuredRequestFailed."""
    stream = await _connect(endpoint)
    try:
        with contextlib.suppress(trio.BrokenResourceError):
            # A server may answer and close before it has read all: the answer says why.
            await stream.send_all(request)
        yield await _read_head(stream)
    finally:
        # Forceful: a goodbye over TLS would wait for the server's.
        await trio.aclose_forcefully(stream)


async def _connect(endpoint: Endpoint) -> trio.abc.Stream:
    try:
        stream = await trio.open_tcp_stream(endpoint.address, endpoint.port)
    except OSError as error:
        raise MeasuredRequestFailed("connection", reason_of(error)) from error
    if not endpoint.is_tls:
        return stream
    context = ssl.create_default_context()
    return trio.SSLStream(stream, context, server_hostname=endpoint.host)


def reason_of(error: BaseException) -> str:
    """What is at the root of a failure to connect or to read."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)


async def _read_head(stream: trio.abc.Stream) -> Response:
    parser = h11.Connection(h11.CLIENT)
    # The parser wants to have seen a request before it takes an answer.
    parser.send(h11.Request(method="POST", target="/", headers=[("Host", "x")]))
    try:
        while True:
            event = parser.next_event()
            if isinstance(event, h11.Response):
                return _response(event, stream, parser.trailing_data[0])
            if event is h11.NEED_DATA:
                parser.receive_data(bytes(await stream.receive_some(_READ_BYTES)))
            elif isinstance(event, h11.ConnectionClosed):
                raise MeasuredRequestFailed("cut", "the connection ended without an answer")
    except h11.RemoteProtocolError as error:
        raise MeasuredRequestFailed("protocol", f"the answer is not HTTP: {error}") from error
    except trio.BrokenResourceError as error:
        message = f"the connection broke before an answer: {reason_of(error)}"
        raise MeasuredRequestFailed("cut", message) from error


def _response(head: h11.Response, stream: trio.abc.Stream, early: bytes) -> Response:
    headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
    body: Body
    if "chunked" in headers.get("transfer-encoding", ""):
        body = ChunkedBody()
    elif "content-length" in headers:
        body = SizedBody(int(headers["content-length"]))
    else:
        body = BodyToTheEnd()
    # Past the stream's own layer where there is one, which takes microseconds of every event.
    receive = stream.socket.recv if isinstance(stream, trio.SocketStream) else stream.receive_some
    return Response(head.status_code, headers.get("content-type", ""), receive, body, early)
