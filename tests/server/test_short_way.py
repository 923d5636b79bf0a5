"""Events that are written where the engine delivers them, past Quart and Hypercorn."""

import time

import attrs
import pytest
import trio
from fakes.engine import text_events
from fakes.raw_client import post
from fakes.scripted_loop import Script
from trio.testing import wait_all_tasks_blocked

from tgi_llama.engine.engine import Engine
from tgi_llama.generation import PromptToken, TokenId
from tgi_llama.server.generations import Generation, Generations
from tgi_llama.server.request_record import RequestRecord
from tgi_llama.server.sse import SseBody
from tgi_llama.wire.generate_requests import GenerateRequest

ASK = {"inputs": "hi", "parameters": {"max_new_tokens": 160}}
N_EVENTS = 150
LONG = "x" * 50_000
"""Times the events: more than the sockets of both sides hold."""


async def streaming(make_site, nursery, script):
    """A client that has sent its request, and the site."""
    engine = Engine(script, script.note_delivered)
    await nursery.start(engine.run)
    site = await make_site(engine)
    client = await site.connect()
    await client.send(post("/generate_stream", ASK))
    return client


async def test_events_go_the_short_way_one_by_one(make_site, nursery, n_short):
    script = Script(*"abcdefgh")
    client = await streaming(make_site, nursery, script)
    await script.step()
    await client.read_head()
    for index in range(1, 8):
        size = int(await client.read_until(b"\r\n"), 16)
        part = await client.read_until(b"\n\n\r\n")
        assert part.startswith(b'data: {"index":%d,' % index)
        assert len(part) == size + 2
        await script.step()
    rest = await client.read_until(b"0\r\n\r\n")
    assert b'"generated_text":"abcdefgh"' in rest
    assert n_short() == 6, "all but the first, which has the head before it, and the last"


async def test_client_that_reads_late_gets_all_events_in_order(make_site, nursery, n_short):
    script = Script(*[LONG] * N_EVENTS)
    client = await streaming(make_site, nursery, script)
    for _ in range(N_EVENTS):
        await script.step()
    await client.read_head()
    assert 0 < n_short() < N_EVENTS - 2, "the client was to hold some up"
    everything = await client.read_until(b"0\r\n\r\n")
    places = [everything.index(b'{"index":%d,' % (i + 1)) for i in range(N_EVENTS)]
    assert places == sorted(places)
    assert everything.count(b"data: ") == N_EVENTS


@attrs.define
class Writer:
    ready: bool = True
    takes_all: bool = True
    written: list[bytes] = attrs.field(factory=list)

    def is_ready(self):
        return self.ready

    def write_part(self, data):
        self.written.append(data)
        self.ready = self.takes_all
        return self.takes_all


class Frames:
    def token(self, _index, event):
        if event.token.text == "bad":
            raise ValueError("cannot be framed")
        return event.token.text.encode()

    def end(self):
        return b"."

    def failure(self, _failure):
        return b"failed"


async def wait_for_chunks(played, n):
    """A worker's thread is at work, so there is no telling when."""
    with trio.fail_after(10):
        while len(played.chunks) < n:
            await played.grown.wait()


class Stream:
    """Hands over what no sink takes."""

    def __init__(self):
        self.sink = None
        self._send, self._receive = trio.open_memory_channel(10)

    def deliver(self, event):
        if not self.sink(event, 0.0):
            self._send.send_nowait(event)

    def next_nowait(self):
        try:
            return self._receive.receive_nowait()
        except trio.WouldBlock:
            return None

    async def __anext__(self):
        return await self._receive.receive()


@attrs.define
class Played:
    """A body that a task reads, with the stream that feeds it."""

    stream: Stream
    writer: Writer
    chunks: list[bytes] = attrs.field(factory=list)
    grown: trio.Event = attrs.field(factory=trio.Event)
    deliveries: list[float] = attrs.field(factory=list)

    async def read(self, body):
        async for chunk in body:
            self.chunks.append(chunk)
            self.grown.set()
            self.grown = trio.Event()


@pytest.fixture
async def played(make_site, nursery):
    site = await make_site()
    stream, writer = Stream(), Writer()
    play = Played(stream, writer)
    (prepared,) = site.services.validator.generate(GenerateRequest(inputs="hi"), streaming=True)
    generation = Generation(prepared, stream, 0.0, 0.0, site.services)
    body = SseBody(
        Generations([generation]),
        Frames(),
        record=RequestRecord(site.services.metrics),
        release=lambda: None,
        keep_alive_s=15.0,
        on_worker=site.services.admission.validate,
        delivered=play.deliveries.append,
        writer=writer,
    )
    nursery.start_soon(play.read, body)
    await wait_all_tasks_blocked()
    return play


async def deliver(played, *pieces, finished=False):
    *events, last = text_events(*pieces)
    for event in [*events, last if finished else attrs.evolve(last, finish=None)]:
        played.stream.deliver(event)
    await wait_all_tasks_blocked()


async def test_first_event_takes_the_long_way_as_the_head_goes_before_it(played):
    await deliver(played, "a")
    await deliver(played, "b")
    assert (played.chunks, played.writer.written) == ([b"a"], [b"b"])


async def test_event_after_one_that_was_refused_does_not_overtake_it(played):
    await deliver(played, "a")
    played.writer.ready = False
    played.stream.deliver(attrs.evolve(text_events("b")[0], finish=None))
    played.writer.ready = True
    await deliver(played, "c")  # before the body had its turn
    await deliver(played, "d")
    assert (played.chunks, played.writer.written) == ([b"a", b"bc"], [b"d"])


async def test_rest_of_an_event_is_sent_at_once_and_not_with_the_next_one(played):
    await deliver(played, "a")
    played.writer.takes_all = False
    await deliver(played, "b")
    assert (played.chunks, played.writer.written) == ([b"a", b":\n\n"], [b"b"])
    played.writer.takes_all = played.writer.ready = True
    await deliver(played, "c")
    assert (played.chunks, played.writer.written) == ([b"a", b":\n\n"], [b"b", b"c"])


async def test_event_with_a_prompt_takes_the_long_way(played):
    await deliver(played, "a")
    prompt = (PromptToken(TokenId(1), "p", None),) * 300
    played.stream.deliver(attrs.evolve(text_events("b")[0], finish=None, prompt_tokens=prompt))
    await wait_for_chunks(played, 2)
    assert (played.chunks, played.writer.written) == ([b"a", b"b"], [])


async def test_event_on_the_short_way_puts_off_the_comment(played, mock_clock):
    await deliver(played, "a")
    mock_clock.jump(10.0)
    await deliver(played, "b")
    mock_clock.jump(10.0)
    await wait_all_tasks_blocked()
    assert played.chunks == [b"a"]
    mock_clock.jump(5.0)
    await wait_all_tasks_blocked()
    assert played.chunks == [b"a", b":\n\n"]


async def test_last_event_takes_the_long_way(played):
    await deliver(played, "a")
    await deliver(played, "b", "c", finished=True)
    assert (played.chunks, played.writer.written) == ([b"a", b"c."], [b"b"])


async def test_event_that_cannot_be_framed_fails_its_stream_and_not_the_engine(played):
    await deliver(played, "a")
    await deliver(played, "bad")
    assert (played.chunks, played.writer.written) == ([b"a", b"failed"], [])


async def test_every_chunk_of_the_long_way_is_measured_when_it_has_been_sent(played):
    await deliver(played, "a")
    assert len(played.deliveries) == 1, "the next chunk is asked for, so the first one is sent"
    await deliver(played, "b")
    assert len(played.deliveries) == 1, "whoever delivers measures what was written at once"
    played.writer.takes_all = False
    await deliver(played, "c")
    assert len(played.deliveries) == 2, "its rest went the long way"
    played.writer.takes_all = played.writer.ready = True
    await deliver(played, "d", finished=True)
    assert len(played.deliveries) == 3


async def test_delivery_is_as_old_as_the_oldest_event_of_the_chunk(played):
    await deliver(played, "a")
    played.writer.ready = False
    old, new = (attrs.evolve(text_events(text)[0], finish=None) for text in "bc")
    now = time.perf_counter()
    for event, published in ((old, now - 100.0), (new, now)):
        assert not played.stream.sink(event, published)
        played.stream._send.send_nowait(event)
    await wait_all_tasks_blocked()
    assert played.chunks == [b"a", b"bc"]
    assert 100.0 <= played.deliveries[-1] < 110.0
