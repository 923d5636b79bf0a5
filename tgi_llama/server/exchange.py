"""One HTTP request at the ASGI boundary: what must happen whatever the handler does.

Theory of operation
-------------------
``Exchange`` stands between Hypercorn and Quart for the length of one ASGI call and does four
things that neither of them does:

* It owns the request's ``ExitStack``. A streaming handler leaves its permit and its engine stream
  there; the stack is closed when the call ends for any reason, also when the response body was
  never entered because the client had gone.
* It hides ``http.disconnect`` once the last message of the response is on its way. Hypercorn 0.18
  announces the end of a request to the application before it recycles or closes the connection,
  from inside the application's own ``send``; quart-trio cancels the request's nursery on that
  message, and with it Hypercorn's clean-up. The sockets of ``Connection: close`` and HTTP/1.0
  clients then stay open for good, and idle keep-alive connections have no time-out. A shielded
  ``send`` would do too, but it could not be stopped at shutdown.
* It reads the rest of a request body that the handler did not want, for a limited time, before it
  ends the response. Otherwise the kernel answers the client's next bytes with a reset, which may
  destroy an answer (413, say) that the client has not read yet. The connection then is either in
  step, and can be kept, or it is closed.
* It answers CORS: the same headers on every response, and every OPTIONS request.
"""

import contextlib
import re
from collections.abc import Iterable
from typing import Protocol, cast

import attrs
import trio
from hypercorn.typing import (
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    ASGISendEvent,
    HTTPScope,
)
from quart import Request

from .header_names import ANSWER_HEADERS, STREAM_HEADERS
from .request_record import RequestRecord

WRITER_KEY = "tgi_llama.writer"
"""Key of the connection state."""
_SCOPE_KEY = "tgi_llama.exchange"

_VARY = (b"vary", b"origin, access-control-request-method, access-control-request-headers")
_ALLOWED_HEADERS = (b"content-type", b"authorization")
_EXPOSED_HEADERS = ",".join((*(STREAM_HEADERS | ANSWER_HEADERS), "retry-after")).encode()
"""What the code of a page may read beside the few headers that it always may."""

_OWN_HEADER = re.compile(rb"x-[!#$%&'*+.^_`|~0-9a-z-]+")
"""Headers that clients make up: OpenAI's sends a dozen of them with every request."""


class PartWriter(Protocol):
    """The short way to the socket; see ``listener._Connection``."""

    def is_ready(self) -> bool:
        """Everything before has been written, and nobody is writing."""
        ...

    def write_part(self, data: bytes) -> bool:
        """A part of the body; only when ready. Never blocks and never fails. False when the kernel
        did not take all of it: the rest goes before the next part that is sent the long way."""
        ...


@attrs.frozen
class CorsPolicy:
    """Which origins may read responses; none named means all."""

    allowed_origins: frozenset[bytes]

    @classmethod
    def from_names(cls, names: Iterable[str]) -> "CorsPolicy":
        return cls(frozenset(name.encode() for name in names))

    def headers(self, scope: HTTPScope) -> list[tuple[bytes, bytes]]:
        """The headers for every response to this request."""
        allowed = self._allowed_origin(scope)
        if allowed is None:
            return [_VARY]
        return [
            _VARY,
            (b"access-control-allow-origin", allowed),
            (b"access-control-expose-headers", _EXPOSED_HEADERS),
        ]

    def preflight_headers(self, scope: HTTPScope) -> list[tuple[bytes, bytes]]:
        """The headers for the answer to OPTIONS."""
        allowed_headers = list(_ALLOWED_HEADERS)
        headers = [_VARY]
        allowed = self._allowed_origin(scope)
        if allowed is not None:
            headers.append((b"access-control-allow-origin", allowed))
            asked = _header(scope, b"access-control-request-headers") or b""
            names = (name.strip().lower() for name in asked.split(b","))
            allowed_headers += (name for name in names if _OWN_HEADER.fullmatch(name))
        return [
            *headers,
            (b"access-control-allow-methods", b"GET,POST"),
            (b"access-control-allow-headers", b",".join(allowed_headers)),
        ]

    def _allowed_origin(self, scope: HTTPScope) -> bytes | None:
        if not self.allowed_origins:
            return b"*"
        origin = _header(scope, b"origin")
        return origin if origin in self.allowed_origins else None


@attrs.define(eq=False)
class Exchange:
    """The state of one request outside Quart. See the top of this module."""

    scope: HTTPScope
    _receive: ASGIReceiveCallable
    _send: ASGISendCallable
    _cors: CorsPolicy
    _linger_s: float
    resources: contextlib.ExitStack = attrs.field(factory=contextlib.ExitStack, init=False)
    """Closed when the ASGI call ends."""
    record: RequestRecord | None = attrs.field(default=None, init=False)
    """Set for requests that ask for a generation."""
    _response_ends: bool = attrs.field(default=False, init=False)
    _request_over: trio.Event = attrs.field(factory=trio.Event, init=False)
    """The request body is complete, or the client is gone."""

    def __attrs_post_init__(self) -> None:
        # The scope is the one thing that Quart hands on to the handler untouched.
        cast(dict[str, object], self.scope)[_SCOPE_KEY] = self

    @property
    def writer(self) -> PartWriter | None:
        """The short way to the client's socket, where our own listener serves."""
        return cast(PartWriter | None, self.scope.get("state", {}).get(WRITER_KEY))

    async def receive(self) -> ASGIReceiveEvent:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._request_over.set()
            if self._response_ends:
                await trio.sleep_forever()  # until quart-trio has sent the response
        elif message["type"] == "http.request" and not message.get("more_body", False):
            self._request_over.set()
        return message

    async def send(self, message: ASGISendEvent) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *self._cors.headers(self.scope)]
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self._response_ends = True
            # The client has the whole answer by now: it came with a content-length.
            with trio.move_on_after(self._linger_s):
                await self._request_over.wait()
        await self._send(message)

    async def answer_preflight(self) -> None:
        headers = [(b"content-length", b"0"), *self._cors.preflight_headers(self.scope)]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _header(scope: HTTPScope, name: bytes) -> bytes | None:
    """The first header of this name, which is in lower case."""
    return next((value for found, value in scope["headers"] if found == name), None)


def record_of(request: Request) -> RequestRecord:
    """The record of a request that asks for a generation."""
    record = exchange_of(request).record
    assert record is not None, "opened before the view function is called"
    return record


def exchange_of(request: Request) -> Exchange:
    """The exchange that this Quart request belongs to."""
    return cast(Exchange, cast(dict[str, object], request.scope)[_SCOPE_KEY])
