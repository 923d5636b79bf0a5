"""The generations of one request: from a permit to their events, streamed or collected.

Each generation's channel holds all its events, so the engine never waits for us and several
generations advance together whichever of them is read.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Protocol, Self

import attrs
import trio

from tgi_llama.admission import Admission
from tgi_llama.errors import Overloaded, RequestError, ValidationError
from tgi_llama.generation import Finish, FinishReason, PromptToken, Token, TokenEvent
from tgi_llama.metrics import GenerationTimes
from tgi_llama.validation.adapters import unknown_adapter
from tgi_llama.validation.prepared import PreparedGeneration

from .services import Services
from .success_log import log_success


class EventStream(Protocol):
    """What is read of ``engine.engine.GenerationStream``."""

    async def __anext__(self) -> TokenEvent:
        """The next event, after the last one StopAsyncIteration. Raises what ended a failed
        generation."""
        ...

    def __aiter__(self) -> Self: ...

    def next_nowait(self) -> TokenEvent | None: ...

    sink: Callable[[TokenEvent, float], bool] | None
    """Asked first about every event, with the moment when it was published (on
    ``time.perf_counter``'s clock): what it takes does not come out of the iterator."""


@attrs.define(eq=False)
class Generation:
    """One submitted generation and its stream, entered by whoever made this."""

    prepared: PreparedGeneration
    stream: EventStream
    received: float
    """When the work on the request began, on ``time.perf_counter``'s clock."""
    submitted: float
    """When it was handed to the engine, on the same clock."""
    _services: Services

    @property
    def is_candidate(self) -> bool:
        """Whether the answer shows it is known only when its siblings have ended too."""
        return self.prepared.n_shown < self.prepared.n_branches

    def note(self, finish: Finish) -> GenerationTimes:
        """Call once, with the finish of the last event. Reports the generation unless it is a
        candidate, which is reported when it has been chosen."""
        times = GenerationTimes.from_finish(finish, received=self.received)
        self._services.retry_advice.note_finished(times.total_s)
        if not self.is_candidate:
            self.report(finish, times)
        return times

    def report(self, finish: Finish, times: GenerationTimes) -> None:
        """Called once for each generation that an answer shows, streamed or not, as soon as all its
        numbers are known: the place for whatever is to learn of them."""
        self._services.metrics.generation_finished(times, n_generated=finish.n_generated)
        log_success(self.prepared, finish, times)


def _no_check() -> None:
    pass


async def start(
    services: Services,
    resources: ExitStack,
    prepare: Callable[[], Sequence[PreparedGeneration]],
    *,
    received: float,
    precheck: Callable[[], None] = _no_check,
) -> "Generations":
    """Takes permits, validates on a worker and submits. ``prepare`` runs on that worker and returns
    the generations of each prompt together.

    Permits and streams are entered on ``resources``. Raises whatever is known to be wrong with the
    request before its first token: Overloaded, ValidationError, TemplateError, ToolError,
    ShuttingDown. ``precheck`` is called where there is no permit: what TGI checks before it asks
    for one is an error of the request, also of one that would have been refused anyway.
    """
    admission = services.admission
    try:
        resources.enter_context(admission.permit())
    except Overloaded:
        precheck()
        raise
    prepared = await admission.prepare(prepare)
    check_can_run(len(prepared), admission)
    if len(prepared) > 1:
        resources.enter_context(admission.further_permits(len(prepared) - 1))
    prepared = [_with_adapter(one, services) for one in prepared]
    for one in prepared:
        services.metrics.generation_validated(
            n_prompt_tokens=one.n_prompt_tokens,
            max_new_tokens=one.request.stopping.max_new_tokens,
        )
    members: list[Generation] = []
    for _, branches in itertools.groupby(prepared, key=lambda one: one.index):
        group = tuple(branches)
        streams = resources.enter_context(services.admission.submit([b.request for b in group]))
        submitted = services.clock()
        for branch, stream in zip(group, streams, strict=True):
            services.metrics.generation_queued()
            members.append(Generation(branch, stream, received, submitted, services))
    return Generations(members)


def _with_adapter(prepared: PreparedGeneration, services: Services) -> PreparedGeneration:
    """The same with the loading of its adapter that there is now. Raises ValidationError where that
    was unloaded while the request was validated. What is submitted right after this comes to the
    engine before an order to unload."""
    if prepared.adapter is None:
        return prepared
    ids = services.adapters.ids
    current = ids.get(prepared.adapter)
    if current is None:
        raise unknown_adapter(ids, prepared.adapter, field=None)
    services.metrics.adapter_used(prepared.adapter)
    if current == prepared.request.adapter:
        return prepared
    return attrs.evolve(prepared, request=attrs.evolve(prepared.request, adapter=current))


def check_can_run(n_generations: int, admission: Admission) -> None:
    """Raises ValidationError for a call that could not run even alone: trying again, which is what
    an overload asks for, would never help."""
    most = admission.max_concurrent_requests
    if n_generations > 1 and 0 < most < n_generations:
        raise ValidationError(
            f"the call asks for {n_generations} generations, and this server runs at most {most} "
            "at a time"
        )


def one_per_prompt(prepared: Iterable[PreparedGeneration]) -> list[PreparedGeneration]:
    """One generation of each prompt, for what its branches share."""
    return list({one.index: one for one in prepared}.values())


class Generations:
    """The events of all generations of a request, those of different ones taken in turns.

    Trio thread, one task at a time.
    """

    def __init__(self, members: Sequence[Generation]) -> None:
        self.members = tuple(members)
        self._live = deque(enumerate(self.members))
        self._received: deque[tuple[int, TokenEvent]] = deque()
        self._error: RequestError | None = None
        """Raised after the events that were received before it."""

    @property
    def prepared(self) -> tuple[PreparedGeneration, ...]:
        """What was asked of each member; never empty."""
        return tuple(member.prepared for member in self.members)

    @property
    def is_over(self) -> bool:
        """Every last event has been given out."""
        return not self._live and not self._received

    def next_nowait(self) -> tuple[int, TokenEvent] | None:
        """The next event that is there already, with the index of its generation. Raises the error
        of a failed generation."""
        if self._received:
            return self._received.popleft()
        if self._error is not None:
            raise self._error
        for _ in range(len(self._live)):
            index, generation = self._live[0]
            event = generation.stream.next_nowait()
            if event is None:
                self._live.rotate(-1)
                continue
            self._advance(event)
            return index, event
        return None

    async def next(self) -> tuple[int, TokenEvent]:
        """The next event, waiting where there is none yet. Cancelling it loses none. Raises as
        ``next_nowait``."""
        return self.next_nowait() or await self.wait_next()

    async def wait_next(self) -> tuple[int, TokenEvent]:
        """``next`` for a caller to whom ``next_nowait`` has just given nothing."""
        if len(self._live) > 1:
            return await self._next_of_several()
        index, generation = self._live[0]
        event = await anext(generation.stream)
        self._advance(event)
        return index, event

    def _advance(self, event: TokenEvent) -> None:
        """Moves the generation that gave this event to the end of the round, or out of it."""
        if event.finish is None:
            self._live.rotate(-1)
        else:
            self._live.popleft()

    async def _next_of_several(self) -> tuple[int, TokenEvent]:
        """One wait for all: whoever gets an event first ends it. Events that came at the same
        moment are kept for the next calls."""

        async def receive(index: int, generation: Generation) -> None:
            try:
                event = await anext(generation.stream)
            except RequestError as error:  # not through the nursery, which would wrap it
                self._error = error
            else:
                self._received.append((index, event))
                if event.finish is not None:
                    self._live.remove((index, generation))
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for index, generation in tuple(self._live):
                nursery.start_soon(receive, index, generation)
        if not self._received:
            assert self._error is not None
            raise self._error
        return self._received.popleft()


@attrs.define(eq=False)
class Collected:
    """A finished generation."""

    generation: Generation
    prompt_tokens: tuple[PromptToken, ...] = ()
    """Empty where the request does not want them."""
    tokens: list[Token] = attrs.field(factory=list)
    top_tokens: list[tuple[Token, ...]] = attrs.field(factory=list)
    """One entry per token."""
    deltas: list[str] = attrs.field(factory=list)
    """What each token added to the text."""
    _finish: Finish | None = None
    _times: GenerationTimes | None = None

    @property
    def prepared(self) -> PreparedGeneration:
        return self.generation.prepared

    @property
    def text(self) -> str:
        return "".join(self.deltas)

    @property
    def finish(self) -> Finish:
        assert self._finish is not None
        return self._finish

    @property
    def times(self) -> GenerationTimes:
        assert self._times is not None
        return self._times

    @property
    def n_listed(self) -> int:
        """Tokens that an answer lists at most, the prompt's included."""
        return len(self.prompt_tokens) + len(self.tokens)

    def add(self, event: TokenEvent) -> None:
        self.prompt_tokens = self.prompt_tokens or event.prompt_tokens
        if not self.prepared.echo_only:
            self.tokens.append(event.token)
            self.top_tokens.append(event.top_tokens)
            self.deltas.append(event.delta)
        if event.finish is not None:
            self._finish = shown_finish(self.prepared, event.finish)
            self._times = self.generation.note(event.finish)

    @property
    def cached(self) -> tuple[PreparedGeneration, int]:
        """For ``n_cached``."""
        return self.prepared, self.finish.n_cached_prompt_tokens

    def mean_logprob(self) -> float:
        """By which branches are compared. Needs ``GenerationRequest.logprobs``."""
        logprobs = [token.logprob for token in self.tokens if token.logprob is not None]
        assert len(logprobs) == len(self.tokens), "asked for by whoever asked for a choice"
        return sum(logprobs) / len(logprobs) if logprobs else 0.0

    def report_chosen(self) -> None:
        """Call once for every candidate that was chosen."""
        self.generation.report(self.finish, self.times)


def shown_finish(prepared: PreparedGeneration, finish: Finish) -> Finish:
    """What the answer says about the end: where it shows the prompt alone, nothing was generated.
    The engine cannot do that; the one token that it generated is dropped."""
    if not prepared.echo_only:
        return finish
    return attrs.evolve(finish, reason=FinishReason.LENGTH, n_generated=0)


async def collect(generations: Generations) -> list[Collected]:
    """Waits for the end of all generations; the result is in their order. Raises the error of the
    first one that fails."""
    collected = [Collected(member) for member in generations.members]
    while not generations.is_over:
        index, event = await generations.next()
        collected[index].add(event)
    for one in shown(collected):
        if one.generation.is_candidate:
            one.report_chosen()
    return collected


def shown(results: Sequence[Collected]) -> list[Collected]:
    """Those that the answer shows, the ones of each prompt together: all in their own order, or the
    best ones first where the client asked for more than it wants to see."""
    by_prompt = itertools.groupby(results, key=lambda one: one.prepared.index)
    return [one for _, branches in by_prompt for one in _best(list(branches))]


def n_cached(finished: Iterable[tuple[PreparedGeneration, int]]) -> int:
    """Prompt tokens that the prompts of these generations found cached, by what each of them found.
    A prompt counts once, as it was found by the branch that came first: its siblings have nearly
    all of it from that branch."""
    by_prompt: dict[int, int] = {}
    for prepared, n_found in finished:
        by_prompt[prepared.index] = min(n_found, by_prompt.get(prepared.index, n_found))
    return sum(by_prompt.values())


def _best(branches: list[Collected]) -> list[Collected]:
    n_shown = branches[0].prepared.n_shown
    if n_shown == len(branches):
        return branches
    # Stable, so the first one of equals is the best, as in TGI.
    return sorted(branches, key=Collected.mean_logprob, reverse=True)[:n_shown]
