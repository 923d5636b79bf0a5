"""Several generations of one request."""

from contextlib import ExitStack

import attrs
import pytest
import trio
import trio.testing
from fakes.engine import FakeEngine, text_events

from tgi_llama.errors import GenerationError, Overloaded, ValidationError
from tgi_llama.generation import (
    Failed,
    GenerationRequest,
    SamplingParameters,
    StoppingParameters,
    TokenId,
)
from tgi_llama.server.generations import Collected, Generation, Generations, collect, shown, start
from tgi_llama.validation.prepared import PreparedGeneration

PREPARED = PreparedGeneration(
    request=GenerationRequest(
        prompt_ids=(TokenId(1),),
        sampling=SamplingParameters(),
        stopping=StoppingParameters(max_new_tokens=5),
        logprobs=True,
    ),
    prompt="x",
    n_prompt_tokens=1,
    reported_seed=None,
)


class HeldStream:
    """Gives its events one by one, when told to."""

    def __init__(self, *events):
        self._send, self._receive = trio.open_memory_channel(10)
        self._events = iter(events)

    def give(self):
        self._send.send_nowait(next(self._events))

    def next_nowait(self):
        try:
            return self._take(self._receive.receive_nowait())
        except trio.WouldBlock:
            return None

    async def __anext__(self):
        return self._take(await self._receive.receive())

    def _take(self, event):
        if isinstance(event, Failed):
            raise event.error
        return event


async def test_events_received_before_a_failure_come_before_it(make_site, nursery):
    site = await make_site(FakeEngine())
    events = text_events("a", "b")
    good, bad = HeldStream(*events), HeldStream(Failed(GenerationError("x")))
    generations = Generations(
        [Generation(PREPARED, stream, 0.0, 0.0, site.services) for stream in (good, bad)]
    )
    nursery.start_soon(give_both, good, bad)
    assert await generations.next() == (0, events[0])
    with pytest.raises(GenerationError):
        await generations.next()


async def give_both(*streams):
    await trio.testing.wait_all_tasks_blocked()
    for stream in streams:
        stream.give()


async def test_cancelled_wait_loses_no_event(make_site):
    site = await make_site(FakeEngine())
    events = text_events("a", "b")
    streams = [HeldStream(*events), HeldStream(*events)]
    generations = Generations([Generation(PREPARED, s, 0.0, 0.0, site.services) for s in streams])
    with trio.move_on_after(0):
        await generations.next()
    for stream in streams:
        stream.give()
        stream.give()
    taken = [await generations.next() for _ in range(4)]
    assert taken == [(0, events[0]), (1, events[0]), (0, events[1]), (1, events[1])]
    assert generations.is_over


async def test_start_submits_the_branches_of_a_prompt_together(make_site):
    site = await make_site()
    prepared = [attrs.evolve(PREPARED, index=index) for index in (0, 0, 0, 1, 2, 2)]
    with ExitStack() as resources:
        started = await start(site.services, resources, lambda: prepared, received=0.0)
        assert site.admission.n_running == 6
        assert started.prepared == tuple(prepared)
    assert site.engine.groups == [3, 1, 2]
    assert site.admission.n_running == 0


async def test_start_without_a_permit_raises_what_the_precheck_does(make_site):
    site = await make_site(max_concurrent_requests=0)

    def precheck():
        raise ValidationError("no")

    def start_it(**arguments):
        return start(site.services, ExitStack(), lambda: [PREPARED], received=0.0, **arguments)

    with pytest.raises(ValidationError):
        await start_it(precheck=precheck)
    with pytest.raises(Overloaded):
        await start_it()


async def test_start_with_a_permit_leaves_checking_to_the_worker(make_site):
    site = await make_site()
    with ExitStack() as resources:
        await start(
            site.services,
            resources,
            lambda: [PREPARED],
            received=0.0,
            precheck=lambda: pytest.fail("a check on the Trio thread"),
        )


def collected(site, logprobs, *, index=0, n_shown, n_branches):
    """A finished generation with these logprobs."""
    prepared = attrs.evolve(PREPARED, index=index, n_shown=n_shown, n_branches=n_branches)
    one = Collected(Generation(prepared, None, 0.0, 0.0, site.services))
    for event, logprob in zip(text_events(*"x" * len(logprobs)), logprobs, strict=True):
        one.add(attrs.evolve(event, token=attrs.evolve(event.token, logprob=logprob)))
    return one


async def test_shown_are_the_best_of_each_prompt_best_first_and_earliest_of_equals(make_site):
    site = await make_site()
    means = [(-3.0,), (-1.0,), (-2.0,), (-1.0, -1.0), (-9.0,), (-8.0,), (-9.0,), (-9.0,)]
    results = [
        collected(site, mean, index=i // 4, n_shown=2, n_branches=4) for i, mean in enumerate(means)
    ]
    assert [results.index(one) for one in shown(results)] == [1, 3, 5, 4]


async def test_shown_are_all_in_their_order_where_nothing_is_to_choose(make_site):
    site = await make_site()
    results = [collected(site, (-float(i),), n_shown=3, n_branches=3) for i in (2, 1, 3)]
    assert shown(results) == results


async def test_numbers_of_a_generation_are_reported_once_if_it_is_shown(make_site):
    site = await make_site(FakeEngine(lambda request: text_events(*"x" * request.prompt_ids[0])))

    def prepared(index, length, **counts):
        request = attrs.evolve(PREPARED.request, prompt_ids=(TokenId(length),))
        return attrs.evolve(PREPARED, index=index, request=request, **counts)

    asked = [
        prepared(0, 3),
        *[prepared(1, 4, n_branches=3, branch=branch) for branch in range(3)],
        *[prepared(2, 5, n_branches=2, n_shown=2, branch=branch) for branch in range(2)],
    ]
    with ExitStack() as resources:
        await collect(await start(site.services, resources, lambda: asked, received=0.0))
    assert site.metric("tgi_request_generated_tokens_count") == 4
    assert site.metric("tgi_request_generated_tokens_sum") == 3 + 4 + 5 + 5
