"""Server-sent events: the frames of a stream and the response body that sends them."""

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter
from types import TracebackType
from typing import Protocol, Self

import trio
from quart import Response
from quart.wrappers.response import ResponseBody

from tgi_llama.generation import TokenEvent
from tgi_llama.metrics import FailureKind

from .bodies import WRITTEN_AT_ONCE_TOKENS
from .exchange import PartWriter
from .failures import Failure, describe_in_stream
from .generations import Generations
from .request_record import RequestRecord

_log = logging.getLogger(__name__)

DONE = b"data: [DONE]\n\n"
_KEEP_ALIVE = b":\n\n"

_MAX_EVENTS_PER_CHUNK = 64
"""Bounds the work between two chances for other tasks to run: about a millisecond."""
_MAX_CHUNK_BYTES = 2**16
"""Beyond this a chunk is only memory: the socket takes no more at once."""


def frame(payload: bytes) -> bytes:
    """One event. JSON escapes line breaks, so the payload is one line."""
    return b"data: %b\n\n" % payload


class Frames(Protocol):
    """How one kind of stream words its events. Each method returns whole frames."""

    def token(self, index: int, event: TokenEvent) -> bytes:
        """A token of the generation at ``index``; the last one has ``event.finish``. Nothing where
        all of it is held back."""
        ...

    def end(self) -> bytes:
        """What follows the last token of the last generation."""
        ...

    def failure(self, failure: Failure) -> bytes:
        """What ends the stream instead of ``end``."""
        ...


OnWorker = Callable[[Callable[[], bytes]], Awaitable[bytes]]
"""Makes a call on a validation worker."""


class SseBody(ResponseBody):
    """The body of a streamed answer.

    Events that are waiting already go out in one chunk: a client cannot tell, and one write to the
    socket costs more than making an event. The request's permit and streams are given back
    through ``release`` before the last chunk is sent, so that a client that has seen the end finds
    its permit free.

    Between chunks the task that sends the body waits for the next event. Most events never wake it:
    they are framed and written where the engine delivers them (``_push``), which takes a turn of
    Trio's scheduler and the whole way through Quart and Hypercorn less, on cores that decode. What
    the kernel does not take at once, and the last event, go the long way.

    A class and not an async generator: Quart may drop it at any ``await`` without a chance for a
    generator's ``finally`` to await.
    """

    def __init__(
        self,
        generations: Generations,
        frames: Frames,
        *,
        record: RequestRecord,
        release: Callable[[], None],
        keep_alive_s: float,
        on_worker: OnWorker,
        delivered: Callable[[float], None],
        writer: PartWriter | None = None,
    ) -> None:
        self._generations = generations
        self._frames = frames
        self._record = record
        self._release = release
        self._keep_alive_s = keep_alive_s
        self._on_worker = on_worker
        self._has_ended = False
        self._had_more = False
        """The last chunk was full, so there may be another one at once."""
        self._delivered = delivered
        """Told how old the oldest event of a chunk was when the chunk had been sent."""
        self._queued_since: float | None = None
        """When the oldest event was published that is to go the long way."""
        self._sending_since: float | None = None
        """The same of the chunk that is being sent."""
        self._writer = writer
        self._free_writer: PartWriter | None = None
        """The writer while the task waits for an event, after the first chunk: events may be
        written at once. What is refused wakes the task, and those after it have to queue."""
        self._silence = trio.CancelScope()
        """Around that wait; ends when a comment is due."""
        self._last_sent = 0.0
        """On Trio's clock."""
        self._has_begun = False
        for index, member in enumerate(generations.members):
            member.stream.sink = partial(self._push, index)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._release()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """The next chunk: one or more frames, or a comment after a silence."""
        self._note_sent()
        if self._has_ended:
            raise StopAsyncIteration
        self._last_sent = trio.current_time()
        chunk = b""
        while not chunk:  # the text of some tokens is held back
            chunk = await self._next_chunk()
        self._note_sending()
        return chunk

    async def _next_chunk(self) -> bytes:
        if self._had_more:
            await trio.lowlevel.checkpoint()  # others have their turn: writing need not wait
        else:
            await trio.lowlevel.checkpoint_if_cancelled()  # the client may have left meanwhile
        self._had_more = False
        frames: list[bytes] = []
        try:
            first = self._generations.next_nowait() or await self._wait()
            if first is None:
                return _KEEP_ALIVE
            await self._take_waiting(first, frames)
            if self._generations.is_over:
                self._record.succeeded()
                frames.append(self._end(self._frames.end()))
        # The boundary of the request: the status line is sent, so nobody above could answer.
        except Exception as error:
            frames.append(self._fail(error))
        return b"".join(frames)

    def _note_sending(self) -> None:
        self._sending_since = self._queued_since
        if not self._had_more:
            self._queued_since = None

    def _note_sent(self) -> None:
        """Quart asks for the next chunk when the one before has been sent, and with it the head."""
        if self._sending_since is not None:
            self._delivered(perf_counter() - self._sending_since)
            self._sending_since = None

    async def _wait(self) -> tuple[int, TokenEvent] | None:
        """The next event, or None after a silence."""
        while True:
            due = self._last_sent + self._keep_alive_s
            with trio.CancelScope(deadline=due) as self._silence:
                self._free_writer = self._writer if self._has_begun else None
                self._has_begun = True
                try:
                    return await self._generations.wait_next()
                finally:
                    was_free = self._free_writer is not None
                    self._free_writer = None
            # Nothing is said to the scope when an event is written: that would touch Trio's heap of
            # deadlines for every token.
            if not was_free or self._last_sent + self._keep_alive_s <= trio.current_time():
                return None

    def _push(self, index: int, event: TokenEvent, published: float) -> bool:
        """A sink: writes the event at once, if everything before it has been written."""
        writer, self._free_writer = self._free_writer, None
        if (
            writer is None
            or event.finish is not None  # the end takes more than a write
            or event.prompt_tokens  # much to frame
            or not writer.is_ready()
        ):
            return self._refuse(published)
        try:
            data = self._frames.token(index, event)
        except Exception:  # not in the engine's task: the body meets it again, and knows what to do
            return self._refuse(published)
        if not data:
            self._free_writer = writer
        elif writer.write_part(data):
            self._last_sent = trio.current_time()
            self._free_writer = writer
        else:
            self._refuse(published)
            self._silence.cancel()  # the body sends a comment the long way, and with it the rest
        return True

    def _refuse(self, published: float) -> bool:
        if self._queued_since is None:
            self._queued_since = published
        return False

    async def _take_waiting(self, first: tuple[int, TokenEvent], frames: list[bytes]) -> None:
        """Appends the frames of this event and of those that are there already."""
        n_bytes = 0
        waiting: tuple[int, TokenEvent] | None = first
        while waiting is not None:
            frames.append(await self._framed(*waiting))
            n_bytes += len(frames[-1])
            if len(frames) == _MAX_EVENTS_PER_CHUNK or n_bytes >= _MAX_CHUNK_BYTES:
                self._had_more = True
                return
            waiting = self._generations.next_nowait()

    async def _framed(self, index: int, event: TokenEvent) -> bytes:
        """The event's frame. One that lists a long prompt is written on a worker: it would hold up
        all other streams."""
        if event.finish is not None:
            self._generations.members[index].note(event.finish)
        if len(event.prompt_tokens) > WRITTEN_AT_ONCE_TOKENS:
            return await self._on_worker(partial(self._frames.token, index, event))
        return self._frames.token(index, event)

    def _fail(self, error: Exception) -> bytes:
        failure = describe_in_stream(error)
        if failure.kind is FailureKind.INTERNAL:
            _log.error("a stream failed", exc_info=error)
        self._record.failed(failure.kind)
        return self._end(self._frames.failure(failure))

    def _end(self, last_frames: bytes) -> bytes:
        self._has_ended = True
        self._release()
        return last_frames


def sse_response(body: SseBody, headers: dict[str, str]) -> Response:
    """A 200 response that sends ``body`` for as long as it takes."""
    response = Response(
        body,
        headers={"cache-control": "no-cache", "x-accel-buffering": "no", **headers},
        content_type="text/event-stream",
    )
    response.timeout = None  # Quart would cut the stream after RESPONSE_TIMEOUT
    return response
