"""From the bytes of a response's body to the payloads of its server-sent events. No I/O.

h11 could do the chunks too, but it takes some 40 microseconds for each; the load generator shares
its cores with the server that it measures, so it takes the short way for the only thing that it
reads a lot of.
"""

from collections.abc import Sequence
from typing import Protocol

import attrs

from tgi_llama.errors import MeasuredRequestFailed

_MAX_SIZE_LINE = 1024
"""Longer lines with a chunk's size are nonsense, not patience."""


class Body(Protocol):
    """Where a body ends and what in it is content."""

    is_complete: bool

    def feed(self, data: bytes) -> bytes:
        """The content in the next bytes from the socket; empty where there is none yet. Bytes after
        the body's end are dropped. Raises MeasuredRequestFailed where the framing is broken."""


@attrs.define(eq=False)
class ChunkedBody:
    """``Transfer-Encoding: chunked``."""

    is_complete: bool = False
    _waiting: bytes = b""
    """The beginning of a size line."""
    _n_left: int = 0
    """What the present chunk still has to come, the line end behind it included."""

    def feed(self, data: bytes) -> bytes:
        data = self._waiting + data if self._waiting else data
        contents: list[bytes] = []
        position = 0
        while position < len(data) and not self.is_complete:
            if self._n_left == 0:
                after = self._begin_chunk(data, position)
                if after is None:
                    break
                position = after
            content_end = position + self._n_left - len(b"\r\n")
            if content_end > position:
                contents.append(data[position:content_end])
            n_taken = min(self._n_left, len(data) - position)
            self._n_left -= n_taken
            position += n_taken
        self._waiting = data[position:]
        return contents[0] if len(contents) == 1 else b"".join(contents)

    def _begin_chunk(self, data: bytes, position: int) -> int | None:
        """Reads the size line at ``position``; the position behind it, None when it is not all
        there."""
        line_end = data.find(b"\r\n", position)
        if line_end < 0:
            if len(data) - position > _MAX_SIZE_LINE:
                raise MeasuredRequestFailed("protocol", "a chunk of the answer has no size")
            return None
        line = data[position:line_end]
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError:
            size = -1
        if size < 0:
            message = f"a chunk of the answer has the size {line[:40]!r}"
            raise MeasuredRequestFailed("protocol", message)
        self.is_complete = size == 0  # trailers, which nobody sends here, would be dropped
        self._n_left = size + len(b"\r\n")
        return line_end + len(b"\r\n")


@attrs.define(eq=False)
class SizedBody:
    """``Content-Length``."""

    _n_left: int
    is_complete: bool = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.is_complete = self._n_left == 0

    def feed(self, data: bytes) -> bytes:
        content = data[: self._n_left]
        self._n_left -= len(content)
        self.is_complete = self._n_left == 0
        return content


@attrs.define(eq=False)
class BodyToTheEnd:
    """Neither: it ends with the connection, so nothing tells a cut from an end."""

    is_complete: bool = False

    def feed(self, data: bytes) -> bytes:
        return data


@attrs.define(eq=False)
class EventReader:
    """Splits a stream into server-sent events.

    Comments and fields other than ``data`` are dropped, but ``error:``, which llama-server used for
    failures, counts as data: it would be a silent cut otherwise.
    """

    _waiting: bytes = b""

    def feed(self, data: bytes) -> Sequence[bytes]:
        """The payloads of the events that are complete now."""
        if not self._waiting and _is_one_event(data):
            return [data[6:-2]]
        data = self._waiting + data if self._waiting else data
        if b"\r" in data:  # never part of JSON
            data = data.replace(b"\r\n", b"\n")
        *events, self._waiting = data.split(b"\n\n")
        return [payload for event in events if (payload := _payload(event))]


def _is_one_event(data: bytes) -> bool:
    """Exactly one event of one line, which is how most come."""
    n_before_end = len(data) - len(b"\n\n")
    return data.startswith(b"data: ") and data.find(b"\n\n") == n_before_end == data.find(b"\n")


def _payload(event: bytes) -> bytes:
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    values = []
    for line in event.split(b"\n"):
        field, _, value = line.partition(b":")
        if field in (b"data", b"error"):
            values.append(value.removeprefix(b" "))
    return b"\n".join(values)
