"""Several generations of one request."""

import pytest
import trio
import trio.testing
from fakes.engine import FakeEngine, text_events

from tgi_llama.errors import GenerationError
from tgi_llama.generation import Failed
from tgi_llama.server.generations import Generation, Generations


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
        [Generation(None, stream, 0.0, site.services) for stream in (good, bad)]
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
    generations = Generations([Generation(None, s, 0.0, site.services) for s in streams])
    with trio.move_on_after(0):
        await generations.next()
    for stream in streams:
        stream.give()
        stream.give()
    taken = [await generations.next() for _ in range(4)]
    assert taken == [(0, events[0]), (1, events[0]), (0, events[1]), (1, events[1])]
    assert generations.is_over
