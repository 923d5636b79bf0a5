"""What is sent: the workloads, each with the sizes it has by default.

Every round makes fresh prompts, since servers keep those that they have computed.
"""

from collections.abc import Awaitable, Callable, Sequence

import attrs
import trio

from .dialects import Job, Message
from .load import Closed, Phase, Round, Shape
from .sample import Milestone, Sample

ALL = "all"
_LONG_TOKENS = 32


@attrs.frozen
class Row:
    """A line of the report: some of the samples, and of their gaps those in one phase."""

    name: str
    groups: frozenset[str] | None = None
    """None: all samples."""
    phase: str | None = None
    """The gaps that ended in this phase are what counts; None: all. With a phase, requests have
    no times of their own."""


@attrs.frozen(kw_only=True)
class Workload:
    name: str
    summary: str
    shape: Shape
    run: Callable[[Round], Awaitable[None]]
    rows: Sequence[Row] = (Row(ALL),)
    can_be_open: bool = False
    """Requests are alike and may arrive at a rate."""
    needs_chat: bool = False


async def _own_prompts(round_: Round) -> None:
    shape = round_.shape
    await round_.drive(
        lambda: Job(group=ALL, prompt=round_.prompts.words(shape.n_words), n_tokens=shape.n_tokens)
    )


async def _shared_prefix(round_: Round) -> None:
    await round_.drive(_prefixed(round_))


async def _shared_prefix_warm(round_: Round) -> None:
    make_job = _prefixed(round_)
    await round_.send(make_job())
    round_.restart_clock()
    await round_.drive(make_job)


def _prefixed(round_: Round) -> Callable[[], Job]:
    """Makes requests with a beginning in common, which is new in this round."""
    shape = round_.shape
    prefix = round_.prompts.words(shape.n_prefix_words or 0)

    def make_job() -> Job:
        prompt = f"{prefix} {round_.prompts.words(shape.n_words)}"
        return Job(group=ALL, prompt=prompt, n_tokens=shape.n_tokens)

    return make_job


async def _chat(round_: Round) -> None:
    system = round_.prompts.words(round_.shape.n_prefix_words or 0)
    async with trio.open_nursery() as nursery:
        for _ in range(_n_clients(round_)):
            nursery.start_soon(_one_chat, round_, system)


async def _one_chat(round_: Round, system: str) -> None:
    """The history is what the server answered; a failed answer ends the chat."""
    shape = round_.shape
    messages = [Message("system", system)] if system else []
    for turn in range(shape.n_turns or 1):
        messages.append(Message("user", round_.prompts.words(shape.n_words)))
        group = "first turn" if turn == 0 else "later turns"
        job = Job(group=group, messages=tuple(messages), n_tokens=shape.n_tokens)
        sample = await round_.send(job)
        if not sample.is_finished:
            break
        messages.append(Message("assistant", sample.text))


async def _long_arrivals(round_: Round) -> None:
    """Steady streams run to their end; the long prompts arrive all at once in the middle."""
    shape, prompts = round_.shape, round_.prompts
    steady = [
        Job(group="steady", prompt=prompts.words(shape.n_words), n_tokens=shape.n_tokens)
        for _ in range(_n_clients(round_))
    ]
    async with trio.open_nursery() as nursery:
        samples = [round_.begin(job) for job in steady]
        for job, sample in zip(steady, samples, strict=True):
            sample.milestone = Milestone(shape.n_undisturbed or 1)
            nursery.start_soon(round_.measure, job, sample)
        for sample in samples:
            assert sample.milestone is not None
            await sample.milestone.wait_reached()
        await _send_long_prompts(round_, samples)


async def _send_long_prompts(round_: Round, steady: Sequence[Sample]) -> None:
    first_events = [sample.event_times[0] for sample in steady if sample.event_times]
    jobs = [_long_job(round_, "long") for _ in range(round_.shape.n_long_prompts or 1)]
    samples = [round_.begin(job) for job in jobs]
    arrived = samples[0].due
    async with trio.open_nursery() as nursery:
        for job, sample in zip(jobs, samples, strict=True):
            nursery.start_soon(round_.measure, job, sample)
    ended = max(sample.ended or arrived for sample in samples)
    round_.phases.append(Phase("undisturbed", max(first_events, default=arrived), arrived))
    round_.phases.append(Phase("during", arrived, ended))


def _long_job(round_: Round, group: str) -> Job:
    shape = round_.shape
    prompt = round_.prompts.words(shape.n_long_words or 0)
    return Job(group=group, prompt=prompt, n_tokens=shape.n_long_tokens or _LONG_TOKENS)


async def _bully(round_: Round) -> None:
    """One client sends long prompts back to back until the tiny requests are through."""
    shape, prompts = round_.shape, round_.prompts
    n_waiting = shape.n_requests or 0
    is_over = False

    async def bully() -> None:
        sample = None
        while not is_over and (sample is None or sample.is_finished):
            sample = await round_.send(_long_job(round_, "bully"))

    async def tiny() -> None:
        nonlocal n_waiting
        while n_waiting > 0:
            n_waiting -= 1
            prompt = prompts.words(shape.n_words)
            await round_.send(Job(group="tiny", prompt=prompt, n_tokens=shape.n_tokens))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bully)
        async with trio.open_nursery() as tinies:
            for _ in range(_n_clients(round_)):
                tinies.start_soon(tiny)
        is_over = True


async def _fan_out(round_: Round) -> None:
    shape = round_.shape
    async with trio.open_nursery() as nursery:
        for _ in range(_n_clients(round_)):
            prompt = round_.prompts.words(shape.n_words)
            nursery.start_soon(round_.send, Job(group=ALL, prompt=prompt, n_tokens=shape.n_tokens))


def _n_clients(round_: Round) -> int:
    assert isinstance(round_.load, Closed)  # the command line refuses rates for these
    return round_.load.n_clients


def _row(name: str, phase: str | None = None) -> Row:
    return Row(f"{name}, {phase}" if phase else name, frozenset({name}), phase)


_PREFIXED = Shape(
    n_words=16, n_tokens=32, n_clients=8, n_requests=24, duration_s=0, n_prefix_words=1000
)

_ALL_WORKLOADS = (
    Workload(
        name="own-prompts",
        summary="every request has a prompt of its own",
        shape=Shape(n_words=64, n_tokens=64, n_clients=8, n_requests=0, duration_s=0),
        run=_own_prompts,
        can_be_open=True,
    ),
    Workload(
        name="shared-prefix",
        summary="all prompts begin with the same words, which the server has not seen before",
        shape=_PREFIXED,
        run=_shared_prefix,
        can_be_open=True,
    ),
    Workload(
        name="shared-prefix-warm",
        summary="the same after one request with that beginning, which does not count",
        shape=_PREFIXED,
        run=_shared_prefix_warm,
        can_be_open=True,
    ),
    Workload(
        name="chat",
        summary="users ask one question after the other; the answers become history",
        shape=Shape(n_words=48, n_tokens=48, n_clients=6, n_turns=5, n_prefix_words=0),
        run=_chat,
        rows=(Row(ALL), _row("first turn"), _row("later turns")),
        needs_chat=True,
    ),
    Workload(
        name="long-arrivals",
        summary="long prompts arrive while steady streams run",
        shape=Shape(
            n_words=64, n_tokens=400, n_clients=6, n_undisturbed=48,
            n_long_prompts=4, n_long_words=1500, n_long_tokens=_LONG_TOKENS,
        ),
        run=_long_arrivals,
        rows=(_row("steady", "undisturbed"), _row("steady", "during"), _row("long")),
    ),
    Workload(
        name="bully",
        summary="one client sends long prompts back to back, others send tiny ones",
        shape=Shape(
            n_words=8, n_tokens=16, n_clients=4, n_requests=40,
            n_long_words=1500, n_long_tokens=_LONG_TOKENS,
        ),
        run=_bully,
        rows=(_row("tiny"), _row("bully")),
    ),
    Workload(
        name="fan-out",
        summary="many clients at once, one request each",
        shape=Shape(n_words=16, n_tokens=32, n_clients=200),
        run=_fan_out,
    ),
)  # fmt: skip
WORKLOADS = {workload.name: workload for workload in _ALL_WORKLOADS}
