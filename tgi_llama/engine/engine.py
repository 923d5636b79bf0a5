"""The Trio side of the engine: streams for requests, a thread for the model.

Theory of operation
-------------------
``Engine.run`` is a task that keeps the decode thread alive: it runs ``DecodeLoop`` in one worker
thread and, when it is cancelled, asks that thread to stop and waits for it. A request is a
``GenerationStream`` of ``open_streams``: entering that submits, leaving it cancels what has not had
its terminal event. What the thread publishes comes through a ``Mailbox`` to ``_deliver`` on the
Trio thread, which puts each event into its stream's channel; it holds ``max_new_tokens + 1`` of
them, so that never blocks.

Commands about adapters carry a ticket, and a publication brings the answer to whoever waits for it.

When the thread dies, every open stream gets ``EngineDead``, and so does the nursery around ``run``:
the process is to end, since nothing can be computed any more.
"""

import itertools
import logging
import math
import queue
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Self

import attrs
import trio

from tgi_llama.engine.commands import (
    Cancel,
    CommandQueue,
    LoadAdapter,
    Publication,
    Publish,
    Stop,
    Submit,
    UnloadAdapter,
)
from tgi_llama.engine.mailbox import Mailbox
from tgi_llama.errors import EngineDead, IncompleteGeneration, RequestError, ShuttingDown
from tgi_llama.generation import (
    AdapterFacts,
    AdapterId,
    Failed,
    GenerationRequest,
    RequestId,
    StepReport,
    StreamEvent,
    TokenEvent,
)

_log = logging.getLogger(__name__)

LoadedCallback = Callable[[], None]

LoopBody = Callable[[CommandQueue, Publish, LoadedCallback], None]
"""What runs on the decode thread: loads the model, calls back, and steps until told to stop."""

DEGRADED_S = 30.0
"""How long a decode that failed makes the engine unhealthy, unless one works before."""

Sink = Callable[[TokenEvent, float], bool]
"""Takes an event, published at this moment of ``time.perf_counter``, on the spot, or says that it
did not. Must neither block nor raise, nor bring a deadline forward."""

StepObserver = Callable[[StepReport], None]

DeliveryObserver = Callable[[float], None]

_Posted = tuple[float, Publication]
"""With the moment."""


class GenerationStream:
    """One request's events, in order: an async iterator of ``TokenEvent``. Trio thread only."""

    def __init__(self, engine: "Engine", request: GenerationRequest) -> None:
        self._engine = engine
        self._request = request
        self._request_id: RequestId | None = None
        self._send, self._receive = trio.open_memory_channel[StreamEvent](
            request.stopping.max_new_tokens + 1
        )
        self._ended = False
        self.sink: Sink | None = None

    def _leave(self) -> None:
        """Cancels the request unless it has ended."""
        assert self._request_id is not None
        self._engine._close(self._request_id, cancel=not self._ended)
        self._send.close()
        self._receive.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TokenEvent:
        """The next token. Raises the error of a failed generation, once."""
        if self._ended:
            raise StopAsyncIteration
        try:
            event = await self._receive.receive()
        except trio.EndOfChannel:
            self._ended = True
            raise IncompleteGeneration("the stream ended without a last token") from None
        return self._note(event)

    def next_nowait(self) -> TokenEvent | None:
        """The next token if it is there already; None when it is not, or after the last."""
        if self._ended:
            return None
        try:
            event = self._receive.receive_nowait()
        except trio.WouldBlock:
            return None
        return self._note(event)

    def _note(self, event: StreamEvent) -> TokenEvent:
        if isinstance(event, Failed):
            self._ended = True
            raise event.error
        self._ended = event.finish is not None
        return event


@attrs.define(eq=False)
class _Reply:
    """The answer to one command, for the task that waits for it."""

    is_there: trio.Event = attrs.field(factory=trio.Event)
    result: AdapterFacts | RequestError | None = None

    def give(self, result: AdapterFacts | RequestError | None) -> None:
        """The first one counts."""
        if not self.is_there.is_set():
            self.result = result
            self.is_there.set()


@attrs.define(eq=False)
class Engine:
    """Generates text for requests. Trio thread only, but for what ``run`` starts."""

    body: LoopBody
    observe_step: StepObserver = lambda _report: None
    observe_delivery: DeliveryObserver = lambda _seconds: None
    """Told how long the last event of a publication took that a sink has taken."""
    _commands: CommandQueue = attrs.field(factory=queue.SimpleQueue, init=False)
    _streams: dict[RequestId, GenerationStream] = attrs.field(factory=dict, init=False)
    _ids: "itertools.count[int]" = attrs.field(factory=itertools.count, init=False)
    _tickets: "itertools.count[int]" = attrs.field(factory=itertools.count, init=False)
    _waiting: dict[int, "_Reply"] = attrs.field(factory=dict, init=False)
    """For the answers to commands, by their tickets."""
    _closed: RequestError | None = attrs.field(default=None, init=False)
    """Why no request is taken any more."""
    _degraded_until: float = attrs.field(default=-math.inf, init=False)
    _started: bool = attrs.field(default=False, init=False)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keeps the decode thread until cancelled or until ``stop``; has started when the model is
        loaded. Raises what loading raised, or EngineDead when the thread died later."""
        mailbox = Mailbox[_Posted]()
        delivering = trio.CancelScope(shield=True)  # until the thread has said its last
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._stop_when_cancelled)
                nursery.start_soon(self._deliver_all, mailbox, delivering)
                try:
                    await self._run_thread(mailbox, task_status)
                finally:
                    delivering.cancel()
                nursery.cancel_scope.cancel()
        finally:
            mailbox.close()

    @property
    def is_healthy(self) -> bool:
        """A model is loaded, its thread lives, and no decode has failed lately. After a while
        without decodes a failure is forgotten: a balancer that sends nothing to an unhealthy
        server would otherwise never find out that it works again."""
        is_degraded = trio.current_time() < self._degraded_until
        return self._started and self._closed is None and not is_degraded

    @contextmanager
    def open_streams(
        self, requests: Sequence[GenerationRequest]
    ) -> Iterator[tuple[GenerationStream, ...]]:
        """The streams of requests, submitted together: those of neighbours with the same prompt
        share its computation. Leaving cancels what has not ended. Both only post a command, so the
        block can be left in any state, also while its task is being cancelled. Raises EngineDead or
        ShuttingDown when nobody would answer."""
        streams = tuple(GenerationStream(self, request) for request in requests)
        self._open(streams)
        try:
            yield streams
        finally:
            for stream in streams:
                stream._leave()

    async def load_adapter(
        self, adapter: AdapterId, path: Path, *, scale: float = 1.0
    ) -> AdapterFacts:
        """Makes the LoRA adapter in the file, applied ``scale`` times, available to requests under
        an id that was never used. Running streams pause while the file is read.

        Raises AdapterError where the file is not an adapter of this model, EngineDead or
        ShuttingDown. Cancelled, it leaves nothing loaded.
        """
        ticket = next(self._tickets)
        is_loaded = False
        try:
            command = LoadAdapter(ticket=ticket, adapter=adapter, path=path, scale=scale)
            facts = await self._ask(ticket, command)
            assert facts is not None
            is_loaded = True
            return facts
        finally:
            if not is_loaded and self._closed is None:  # nothing to do where it was not loaded
                unused = next(self._tickets)
                self._commands.put(UnloadAdapter(ticket=unused, adapter=adapter))

    async def unload_adapter(self, adapter: AdapterId) -> None:
        """Waits until no unfinished request has the adapter, and frees it with all that was
        computed with it. New requests do not get it from the call on, also if the wait is
        cancelled: then it is freed all the same. Nothing to do for an adapter that is not loaded.
        Raises EngineDead or ShuttingDown."""
        ticket = next(self._tickets)
        await self._ask(ticket, UnloadAdapter(ticket=ticket, adapter=adapter))

    def stop(self, error: RequestError) -> None:
        """Takes no more requests and ends the running ones with ``error`` at the next step."""
        if self._closed is None:
            self._closed = error
        self._commands.put(Stop(error))

    async def _ask(self, ticket: int, command: LoadAdapter | UnloadAdapter) -> AdapterFacts | None:
        """Posts a command and waits for the answer to it."""
        if self._closed is not None:
            raise _copy(self._closed)
        reply = self._waiting[ticket] = _Reply()
        self._commands.put(command)
        try:
            await reply.is_there.wait()
        finally:
            self._waiting.pop(ticket, None)
        if isinstance(reply.result, RequestError):
            raise reply.result
        return reply.result

    async def _stop_when_cancelled(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.stop(ShuttingDown("the server is shutting down"))

    async def _run_thread(
        self, mailbox: Mailbox[_Posted], task_status: trio.TaskStatus[None]
    ) -> None:
        token = trio.lowlevel.current_trio_token()

        def loaded() -> None:
            token.run_sync_soon(self._loaded, task_status)

        def publish(publication: Publication) -> None:
            mailbox.post((perf_counter(), publication))

        def decode_loop() -> None:
            """The operating system shows its name as the thread's."""
            self.body(self._commands, publish, loaded)

        try:
            # Not abandoned on cancellation: the thread owns the native context, so it must leave
            # by its own door. A limiter of its own keeps it from waiting for other threads.
            await trio.to_thread.run_sync(decode_loop, limiter=trio.CapacityLimiter(1))
        except Exception as error:
            mailbox.drain_to(self._deliver)
            if self._closed is not None and not self._started:
                return  # asked to stop while loading, which it reports as a failure to load
            self._die(error)
            if self._started:
                raise EngineDead(f"the decode thread died: {error!r}") from error
            raise
        mailbox.drain_to(self._deliver)
        self._end_streams(ShuttingDown("the engine has stopped"))

    async def _deliver_all(self, mailbox: Mailbox[_Posted], scope: trio.CancelScope) -> None:
        with scope:
            await mailbox.deliver_to(self._deliver)

    def _loaded(self, task_status: trio.TaskStatus[None]) -> None:
        self._started = True
        task_status.started()

    def _die(self, error: Exception) -> None:
        """Tells everybody who waits. Nobody is left in the dark."""
        if self._started:
            _log.critical("the decode thread died", exc_info=error)
        self._closed = None
        self._end_streams(EngineDead(f"the decode thread died: {error!r}"))

    def _end_streams(self, error: RequestError) -> None:
        if self._closed is None:
            self._closed = error
        for stream in self._streams.values():
            stream._send.send_nowait(Failed(_copy(self._closed)))
        self._streams.clear()
        for reply in self._waiting.values():
            reply.give(_copy(self._closed))

    def _open(self, streams: Sequence[GenerationStream]) -> None:
        """Submits the streams' requests with one command."""
        if self._closed is not None:
            raise _copy(self._closed)
        requests: list[tuple[RequestId, GenerationRequest]] = []
        for stream in streams:
            request_id = RequestId(next(self._ids))
            stream._request_id = request_id
            self._streams[request_id] = stream
            requests.append((request_id, stream._request))
        self._commands.put(Submit(tuple(requests), perf_counter()))

    def _close(self, request_id: RequestId, *, cancel: bool) -> None:
        if self._streams.pop(request_id, None) is not None and cancel:
            self._commands.put(Cancel(request_id))

    def _deliver(self, posted: _Posted) -> None:
        """Called once per step, with the cold caches that a decode leaves: every function and every
        object that it touches costs microseconds."""
        published, publication = posted
        streams = self._streams
        any_taken = False
        for request_id, event in publication.events:
            stream = streams.get(request_id)
            if stream is None:
                continue  # left meanwhile; its Cancel is on the way
            if isinstance(event, Failed) or event.finish is not None:
                del streams[request_id]
            sink = stream.sink
            if sink is None or isinstance(event, Failed) or not sink(event, published):
                stream._send.send_nowait(event)
            else:
                any_taken = True
        for answer in publication.answers:
            if answer.ticket in self._waiting:
                self._waiting[answer.ticket].give(answer.result)
        report = publication.report
        if report.device_failed:
            self._degraded_until = trio.current_time() + DEGRADED_S
        elif self._degraded_until > -math.inf and report.n_computed_tokens > 0:
            self._degraded_until = -math.inf
        self.observe_step(report)
        if any_taken:
            self.observe_delivery(perf_counter() - published)


def _copy(error: RequestError) -> RequestError:
    """A new exception of the same kind, so that two tasks never share one traceback."""
    return type(error)(str(error))
