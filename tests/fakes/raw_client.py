"""An HTTP/1 client that writes what it is told and shows what it got, byte by byte."""

import json

import attrs
import trio

_PATIENCE_S = 10
"""Only ever spent by a test that fails."""


@attrs.frozen
class RawResponse:
    version: str
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):  # type: ignore[no-untyped-def]
        return json.loads(self.body)

    @property
    def events(self) -> list[str]:
        """What stands behind ``data: ``, one entry per SSE event."""
        return [
            block.removeprefix("data: ")
            for block in self.body.decode().split("\n\n")
            if block.startswith("data: ")
        ]


def post(
    path: str, payload: object, *, headers: tuple[str, ...] = (), version: str = "1.1"
) -> bytes:
    """A request with a JSON body."""
    body = json.dumps(payload).encode()
    lines = [
        f"POST {path} HTTP/{version}",
        "Host: test",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def get(path: str, *, headers: tuple[str, ...] = (), version: str = "1.1") -> bytes:
    return "\r\n".join([f"GET {path} HTTP/{version}", "Host: test", *headers, "", ""]).encode()


class RawClient:
    """One connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def send(self, data: bytes) -> None:
        with trio.fail_after(_PATIENCE_S):
            await self._stream.send_all(data)

    async def request(self, data: bytes) -> RawResponse:
        await self.send(data)
        return await self.read_response()

    async def read_response(self) -> RawResponse:
        """The next response, whose end its headers tell; at end of file where they do not."""
        version, status, headers = await self.read_head()
        if headers.get("transfer-encoding") == "chunked":
            body = await self._read_chunks()
        elif "content-length" in headers:
            body = await self._read_exactly(int(headers["content-length"]))
        else:
            body = await self.read_to_eof()
        return RawResponse(version, status, headers, body)

    async def read_head(self) -> tuple[str, int, dict[str, str]]:
        head = (await self.read_until(b"\r\n\r\n")).decode("latin-1")
        status_line, *lines = head.split("\r\n")[:-2]
        version, status, *_ = status_line.split(" ")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return version, int(status), headers

    async def read_until(self, mark: bytes) -> bytes:
        """Up to and including ``mark``."""
        while mark not in self._buffer:
            if not await self._receive():
                raise EOFError(bytes(self._buffer))
        return await self._read_exactly(self._buffer.index(mark) + len(mark))

    async def read_to_eof(self) -> bytes:
        """All that comes until the server closes. Fails when it does not."""
        while await self._receive():
            pass
        return await self._read_exactly(len(self._buffer))

    async def close(self) -> None:
        await self._stream.aclose()

    async def reset(self) -> None:
        """Goes away without a goodbye."""
        linger_off = b"\x01\x00\x00\x00\x00\x00\x00\x00"
        self._stream.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, linger_off)
        await self._stream.aclose()

    async def _read_chunks(self) -> bytes:
        body = b""
        while size := int(await self.read_until(b"\r\n"), 16):
            body += await self._read_exactly(size)
            await self.read_until(b"\r\n")
        await self.read_until(b"\r\n")
        return body

    async def _read_exactly(self, n_bytes: int) -> bytes:
        while len(self._buffer) < n_bytes:
            if not await self._receive():
                raise EOFError(bytes(self._buffer))
        taken = bytes(self._buffer[:n_bytes])
        del self._buffer[:n_bytes]
        return taken

    async def _receive(self) -> bool:
        with trio.fail_after(_PATIENCE_S):
            data = await self._stream.receive_some()
        self._buffer += data
        return bool(data)
