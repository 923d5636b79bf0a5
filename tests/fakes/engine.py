"""A scripted engine behind the interface of ``tgi_llama.engine.engine.Engine``.

``FakeEngine(script=generated("Hello", " world"))`` answers every request with these tokens, and
``FakeEngine(branches=[generated("a"), generated("b")])`` each generation of a prompt with its own.
With ``gate`` set, a stream waits for that event before it gives the token of index ``gate_at``. A
request with ``prompt_logprobs`` finds its prompt in its first event, one character per id.

Every file is an adapter of its model, unless ``adapter_error`` is set; with ``adapter_gate`` set a
load waits for that event.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import attrs
import trio

from tgi_llama.errors import RequestError, ShuttingDown
from tgi_llama.generation import (
    AdapterFacts,
    AdapterId,
    Failed,
    Finish,
    FinishReason,
    GenerationRequest,
    PromptToken,
    StreamEvent,
    Timings,
    Token,
    TokenEvent,
    TokenId,
)

Script = Callable[[GenerationRequest], Sequence[StreamEvent]]

TIMINGS = Timings(submitted=1.0, started=1.25, first_token=1.5, finished=2.0)


def finish(reason: FinishReason, *, n_generated: int) -> Finish:
    return Finish(reason=reason, n_generated=n_generated, timings=TIMINGS)


def text_events(
    *pieces: str, reason: FinishReason = FinishReason.LENGTH, first_id: int = 10
) -> tuple[TokenEvent, ...]:
    """One event per piece, with logprobs -0.5, -1.0, ...; the last one carries the finish."""
    last = len(pieces) - 1
    return tuple(
        TokenEvent(
            token=Token(TokenId(first_id + i), piece, -0.5 * (i + 1), False),
            delta=piece,
            finish=finish(reason, n_generated=len(pieces)) if i == last else None,
        )
        for i, piece in enumerate(pieces)
    )


def ended_by_eos(*pieces: str, eos: str = "<|im_end|>") -> tuple[TokenEvent, ...]:
    """The pieces and then the end-of-generation token, which is no part of the text."""
    events = [attrs.evolve(event, finish=None) for event in text_events(*pieces)]
    n = len(pieces) + 1
    end = TokenEvent(
        token=Token(TokenId(2), eos, -0.125, True),
        delta="",
        finish=finish(FinishReason.EOS_TOKEN, n_generated=n),
    )
    return (*events, end)


def generated(*pieces: str) -> Script:
    """A script that says the same to everybody."""
    events = ended_by_eos(*pieces)
    return lambda _request: events


def fails_after(*pieces: str, error: Exception) -> Script:
    """A script that gives the pieces and then breaks."""
    events = [attrs.evolve(event, finish=None) for event in text_events(*pieces)] if pieces else []
    return lambda _request: [*events, Failed(error)]


START = TokenId(1)
"""The id that ``fakes.site.CharacterTokenizer`` puts before a prompt."""


def character(token: TokenId) -> str:
    """The text of an id of ``fakes.site.CharacterTokenizer``."""
    return "<s>" if token == START else chr(token)


def prompt_tokens(request: GenerationRequest) -> tuple[PromptToken, ...]:
    """Logprobs None, -0.25, -0.5, ...; each token is its own first alternative, ``?`` the next."""
    return tuple(
        PromptToken(
            token,
            character(token),
            -0.25 * i if i else None,
            (
                Token(token, character(token), -0.25 * i, False),
                Token(TokenId(63), "?", -9.0, False),
            )[: request.n_prompt_top_tokens],
        )
        for i, token in enumerate(request.prompt_ids)
    )


def _with_prompt(
    events: Sequence[StreamEvent], request: GenerationRequest
) -> Sequence[StreamEvent]:
    first = events[0] if events else None
    if not isinstance(first, TokenEvent):
        return events
    return [attrs.evolve(first, prompt_tokens=prompt_tokens(request)), *events[1:]]


@attrs.define(eq=False)
class FakeStream:
    """As ``engine.engine.GenerationStream``."""

    engine: "FakeEngine"
    request: GenerationRequest
    script: Script
    sink: Callable[[TokenEvent, float], bool] | None = attrs.field(default=None, init=False)
    """Never asked: its events come out of the iterator, as if nobody had been waiting for them."""
    _events: list[StreamEvent] = attrs.field(factory=list, init=False)
    _n_given: int = attrs.field(default=0, init=False)
    _ended: bool = attrs.field(default=False, init=False)

    def __enter__(self) -> Self:
        if self.engine.closed is not None:
            raise self.engine.closed
        events = self.script(self.request)
        if self.request.prompt_logprobs:
            events = _with_prompt(events, self.request)
        self._events = list(events)
        adapter = self.request.adapter
        assert adapter is None or adapter in self.engine.adapters, "the engine would fail it"
        self.engine.n_opened += 1
        self.engine.running.append(self.request)
        self.engine.requests.append(self.request)
        self.engine.opened.set()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.engine.n_closed += 1
        self.engine.running.remove(self.request)
        self.engine.one_closed.set()
        if not self._ended:
            self.engine.n_cancelled += 1
        if self.engine.n_open == 0:
            self.engine.all_closed.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TokenEvent:
        await trio.lowlevel.checkpoint()
        if self._ended:
            raise StopAsyncIteration
        if self._is_gated():
            assert self.engine.gate is not None
            await self.engine.gate.wait()
        if self._n_given == len(self._events):
            await trio.sleep_forever()
        return self._take()

    def next_nowait(self) -> TokenEvent | None:
        if self._ended or self._is_gated() or self._n_given == len(self._events):
            return None
        return self._take()

    def _is_gated(self) -> bool:
        gate = self.engine.gate
        return gate is not None and not gate.is_set() and self._n_given == self.engine.gate_at

    def _take(self) -> TokenEvent:
        event = self._events[self._n_given]
        self._n_given += 1
        if isinstance(event, Failed):
            self._ended = True
            raise event.error
        self._ended = event.finish is not None
        return event


@attrs.define(eq=False)
class FakeEngine:
    """As ``engine.engine.Engine``. A script without a last event leaves the stream hanging."""

    script: Script = attrs.field(factory=lambda: generated("Hello", " world"))
    branches: Sequence[Script] = ()
    """One script for each generation of a prompt, instead of ``script``."""
    gate: trio.Event | None = None
    gate_at: int = 0
    is_healthy: bool = True
    closed: RequestError | None = None
    """What entering a stream raises, if anything."""
    n_opened: int = 0
    n_closed: int = 0
    n_cancelled: int = 0
    """Streams left before their last event."""
    requests: list[GenerationRequest] = attrs.field(factory=list)
    groups: list[int] = attrs.field(factory=list)
    """How many requests were submitted together, each time."""
    opened: trio.Event = attrs.field(factory=trio.Event)
    """Set when the first stream opens."""
    all_closed: trio.Event = attrs.field(factory=trio.Event)
    """Set when the last open stream has been left."""
    one_closed: trio.Event = attrs.field(factory=trio.Event)
    """Set when a stream has been left; replaced by whoever waits for the next."""
    running: list[GenerationRequest] = attrs.field(factory=list)
    adapters: dict[AdapterId, tuple[Path, float]] = attrs.field(factory=dict)
    """What is loaded: file and scale."""
    unloading: list[AdapterId] = attrs.field(factory=list)
    """What was asked to be unloaded, each time."""
    adapter_error: RequestError | None = None
    adapter_gate: trio.Event | None = None

    @property
    def n_open(self) -> int:
        return self.n_opened - self.n_closed

    def open_stream(self, request: GenerationRequest) -> FakeStream:
        return FakeStream(self, request, self.script)

    @contextmanager
    def open_streams(
        self, requests: Sequence[GenerationRequest]
    ) -> Iterator[tuple[FakeStream, ...]]:
        assert len({request.prompt_ids for request in requests}) == 1, "they share a prompt"
        self.groups.append(len(requests))
        scripts = self.branches or [self.script] * len(requests)
        with ExitStack() as stack:
            yield tuple(
                stack.enter_context(FakeStream(self, request, script))
                for request, script in zip(requests, scripts, strict=True)
            )

    async def load_adapter(
        self, adapter: AdapterId, path: Path, *, scale: float = 1.0
    ) -> AdapterFacts:
        assert adapter not in self.adapters
        await trio.lowlevel.checkpoint()
        if self.adapter_gate is not None:
            await self.adapter_gate.wait()
        if self.adapter_error is not None:
            raise self.adapter_error
        self.adapters[adapter] = (path, scale)
        return AdapterFacts(n_bytes=1000, n_weights=4, rank=8)

    async def unload_adapter(self, adapter: AdapterId) -> None:
        self.unloading.append(adapter)
        await trio.lowlevel.checkpoint()
        while any(request.adapter == adapter for request in self.running):
            self.one_closed = trio.Event()
            await self.one_closed.wait()
        del self.adapters[adapter]

    def stop(self, error: RequestError | None = None) -> None:
        self.closed = error or ShuttingDown("the server is shutting down")
