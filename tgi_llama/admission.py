"""The way in: a permit at once or never, validation on a worker thread, then the engine.

All methods belong to the Trio thread; only the jobs of ``ValidationWorkers`` run elsewhere.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Generic, TypeVar

import attrs
import trio

from tgi_llama.engine.engine import Engine, GenerationStream
from tgi_llama.errors import GrammarNotCompiled, Overloaded, ShuttingDown
from tgi_llama.generation import GenerationRequest
from tgi_llama.structured.compiler import known_only

T = TypeVar("T")


@attrs.define(eq=False)
class _Job(Generic[T]):
    """One call for a worker. The caller waits for ``handled`` and then asks for the result."""

    call: Callable[[], T]
    future: "Future[T]" = attrs.field(factory=Future)
    handled: trio.Event = attrs.field(factory=trio.Event)

    def execute(self) -> None:
        """Worker thread: makes the call and keeps what it returned or raised."""
        try:
            self.future.set_result(self.call())
        except Exception as error:
            self.future.set_exception(error)
        except BaseException as error:
            # A panic in the tokenizer's native code arrives as a BaseException. It would pass every
            # boundary that keeps one request's failure from another's, so it changes its class.
            self.future.set_exception(RuntimeError(f"validation broke down: {error!r}"))

    def result(self) -> T:
        """Raises what the call raised, or ShuttingDown if no worker got to make it."""
        if not self.future.done():
            raise ShuttingDown("the server is shutting down")
        return self.future.result()


@attrs.define(eq=False)
class ValidationWorkers:
    """``n_workers`` tasks that make calls on threads, in the order of arrival."""

    n_workers: int = attrs.field(validator=attrs.validators.ge(1))
    _limiter: trio.CapacityLimiter = attrs.field(init=False)
    # Without a buffer a job is handed over only to a worker that is free, so a caller who is
    # cancelled while waiting leaves nothing behind.
    _send: "trio.MemorySendChannel[_Job[object]]" = attrs.field(init=False)
    _receive: "trio.MemoryReceiveChannel[_Job[object]]" = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._limiter = trio.CapacityLimiter(self.n_workers)
        self._send, self._receive = trio.open_memory_channel(0)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keeps the workers until cancelled. Callers who still wait then get ShuttingDown."""
        with self._receive:
            async with trio.open_nursery() as nursery:
                for _ in range(self.n_workers):
                    nursery.start_soon(self._work)
                task_status.started()

    async def validate(self, call: Callable[[], T]) -> T:
        """Makes the call on a worker thread and returns or raises what it does. Cancelling the
        caller leaves a call that has begun to finish by itself."""
        job = _Job(call)
        try:
            await self._send.send(job)  # type: ignore[arg-type]  # the worker ignores what T is
        except trio.BrokenResourceError:
            raise ShuttingDown("the server is shutting down") from None
        await job.handled.wait()
        return job.result()

    async def _work(self) -> None:
        async for job in self._receive:
            try:
                await trio.to_thread.run_sync(job.execute, limiter=self._limiter)
            finally:
                job.handled.set()


def _in_haste(call: Callable[[], T]) -> T:
    with known_only():
        return call()


@attrs.define(eq=False)
class Admission:
    """Who may use the engine, and how many at a time."""

    engine: Engine
    workers: ValidationWorkers
    max_concurrent_requests: int
    compilers: ValidationWorkers | None = None
    """Workers of their own for requests whose grammar is not known yet: compiling may take a second
    each, and whoever brings none is not to wait for it. None: ``workers`` compile, too."""
    _n_running: int = attrs.field(default=0, init=False)
    _draining: bool = attrs.field(default=False, init=False)
    _idle: trio.Event = attrs.field(factory=trio.Event, init=False)
    """Set when the last permit comes back; replaced by whoever waits for that."""

    @property
    def n_running(self) -> int:
        """Permits in use."""
        return self._n_running

    @property
    def is_draining(self) -> bool:
        return self._draining

    @contextmanager
    def permit(self, n_permits: int = 1) -> Iterator[None]:
        """Holds ``n_permits`` (one per prompt of the request) from validation to the last byte.

        Never waits: raises Overloaded when not all of them are free, ShuttingDown after
        ``start_draining``.
        """
        if self._draining:
            raise ShuttingDown("the server is shutting down")
        with self.further_permits(n_permits):
            yield

    @contextmanager
    def further_permits(self, n_permits: int) -> Iterator[None]:
        """The same for a request that holds a permit already and turned out to need more: it was
        let in, so draining does not refuse it. Raises Overloaded."""
        if self._n_running + n_permits > self.max_concurrent_requests:
            raise Overloaded("Model is overloaded")
        self._n_running += n_permits
        try:
            yield
        finally:
            self._n_running -= n_permits
            if self._n_running == 0:
                self._idle.set()

    async def validate(self, call: Callable[[], T]) -> T:
        """``ValidationWorkers.validate``."""
        return await self.workers.validate(call)

    async def prepare(self, call: Callable[[], T]) -> T:
        """The same for a call that may have to compile a grammar. Where it has to, it is made once
        more by somebody whom no other request waits for."""
        if self.compilers is None:
            return await self.validate(call)
        try:
            return await self.validate(partial(_in_haste, call))
        except GrammarNotCompiled:
            return await self.compilers.validate(call)

    def submit(
        self, requests: Sequence[GenerationRequest]
    ) -> AbstractContextManager[tuple[GenerationStream, ...]]:
        """The streams of validated requests with the same prompt; entering submits them together.

        For holders of a permit. It is not refused while draining: who got a permit before may
        finish, all prompts of a call included. The engine refuses once it stops.
        """
        return self.engine.open_streams(requests)

    def start_draining(self) -> None:
        """From now on no permit is given."""
        self._draining = True

    async def wait_idle(self) -> None:
        """Returns when no permit is in use."""
        while self._n_running:
            if self._idle.is_set():
                self._idle = trio.Event()
            await self._idle.wait()
