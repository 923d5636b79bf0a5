"""The Trio side with a real thread, whose decodes wait at a gate that the test opens."""

import threading

import pytest
import trio
from fakes.gated_thread import GatedThread
from fakes.playbook import a_request
from fakes.runner import FakeRunner
from trio.testing import MockClock, wait_all_tasks_blocked

from tgi_llama.engine.commands import CommandQueue, Publish
from tgi_llama.engine.engine import DEGRADED_S, Engine, GenerationStream, LoadedCallback
from tgi_llama.errors import (
    ConfigError,
    DecodeError,
    DecodeFailed,
    EngineDead,
    GenerationError,
    InvalidBatch,
    OutOfCells,
    ShuttingDown,
)
from tgi_llama.generation import StepReport, TokenEvent


async def tokens_of(stream: GenerationStream) -> list[int]:
    return [event.token.id async for event in stream]


async def test_stream_gives_every_token_and_ends() -> None:
    thread = GatedThread(open=True)
    reports: list[StepReport] = []
    engine = Engine(thread, observe_step=reports.append)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        with engine.open_streams([a_request([5, 6], max_new_tokens=3)]) as (stream,):
            assert await tokens_of(stream) == [7, 8, 9]
        nursery.cancel_scope.cancel()
    assert sum(report.n_generated_tokens for report in reports) == 3


async def test_streams_run_side_by_side() -> None:
    thread = GatedThread(open=True)
    engine = Engine(thread)
    results: dict[int, list[int]] = {}

    async def generate(first: int) -> None:
        with engine.open_streams([a_request([first], max_new_tokens=5)]) as (stream,):
            results[first] = await tokens_of(stream)

    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        async with trio.open_nursery() as clients:
            for first in range(10, 20):
                clients.start_soon(generate, first)
        nursery.cancel_scope.cancel()
    assert results == {first: list(range(first + 1, first + 6)) for first in range(10, 20)}


async def test_next_nowait_takes_only_what_is_there() -> None:
    thread = GatedThread()
    engine = Engine(thread)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        with engine.open_streams([a_request([5], max_new_tokens=2)]) as (stream,):
            assert stream.next_nowait() is None
            thread.let_through(2)
            event = await stream.__anext__()
            assert event.token.id == 6
            last = await stream.__anext__()
            assert last.finish is not None
            assert stream.next_nowait() is None
        nursery.cancel_scope.cancel()


async def test_leaving_a_stream_cancels_its_request() -> None:
    thread = GatedThread(runner=FakeRunner(n_slots=1))
    engine = Engine(thread)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        with engine.open_streams([a_request([5], max_new_tokens=100)]) as (stream,):
            thread.let_through(1)
            await stream.__anext__()
        with engine.open_streams([a_request([9], max_new_tokens=1)]) as (stream,):
            thread.let_through(2)  # the step that was under way, then the newcomer's
            assert await tokens_of(stream) == [10]
        nursery.cancel_scope.cancel()


async def test_cancelled_task_leaves_its_stream_in_every_phase() -> None:
    """Queued, and waiting for a token."""
    thread = GatedThread(runner=FakeRunner(n_slots=1))
    engine = Engine(thread)

    async def generate() -> None:
        with engine.open_streams([a_request([5], max_new_tokens=50)]) as (stream,):
            await tokens_of(stream)

    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        async with trio.open_nursery() as clients:
            clients.start_soon(generate)
            clients.start_soon(generate)
            await wait_all_tasks_blocked()
            await thread.wait_at_gate()
            clients.cancel_scope.cancel()
        thread.let_through(1)
        with engine.open_streams([a_request([9], max_new_tokens=1)]) as (stream,):
            thread.let_through(1)
            assert await tokens_of(stream) == [10]
        nursery.cancel_scope.cancel()


async def test_failed_generation_raises_once_and_the_engine_lives() -> None:
    thread = GatedThread(open=True)
    thread.runner.failures.append(DecodeFailed("injected"))
    engine = Engine(thread)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        with engine.open_streams([a_request([5])]) as (stream,):
            with pytest.raises(GenerationError, match="injected"):
                await stream.__anext__()
            with pytest.raises(StopAsyncIteration):
                await stream.__anext__()
        assert not engine.is_healthy
        with engine.open_streams([a_request([5], max_new_tokens=1)]) as (stream,):
            assert await tokens_of(stream) == [6]
        assert engine.is_healthy
        nursery.cancel_scope.cancel()


async def test_failed_decode_is_forgotten_after_a_while(mock_clock: MockClock) -> None:
    """Nobody may send a request to an unhealthy server, so none could show that it works."""
    thread = GatedThread(open=True)
    thread.runner.failures.append(DecodeFailed("injected"))
    engine = Engine(thread)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        with engine.open_streams([a_request([5])]) as (stream,), pytest.raises(GenerationError):
            await stream.__anext__()
        mock_clock.jump(DEGRADED_S - 1.0)
        assert not engine.is_healthy
        mock_clock.jump(1.0)
        assert engine.is_healthy
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("error", [OutOfCells("full"), InvalidBatch("bad")])
async def test_request_that_fails_by_itself_leaves_the_engine_healthy(error: DecodeError) -> None:
    thread = GatedThread(open=True)
    thread.runner.failures.append(error)
    engine = Engine(thread)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        with engine.open_streams([a_request([5])]) as (stream,), pytest.raises(GenerationError):
            await stream.__anext__()
        assert engine.is_healthy
        nursery.cancel_scope.cancel()


async def test_dying_thread_tells_everybody_and_ends_run() -> None:
    thread = GatedThread(runner=FakeRunner(n_slots=1))
    thread.runner.failures.append(MemoryError("the runner broke"))
    engine = Engine(thread)
    heard: list[str] = []

    async def generate() -> None:
        with engine.open_streams([a_request([5])]) as (stream,):
            try:
                await tokens_of(stream)
            except EngineDead as error:
                heard.append(str(error))

    with pytest.RaisesGroup(pytest.RaisesExc(EngineDead, match="the runner broke")):
        async with trio.open_nursery() as nursery:
            await nursery.start(_shielded_run, engine)
            async with trio.open_nursery() as clients:
                clients.start_soon(generate)
                clients.start_soon(generate)
                clients.cancel_scope.shield = True  # the dying engine cancels its neighbours
                await wait_all_tasks_blocked()
                thread.let_through(1)
    assert len(heard) == 2
    assert not engine.is_healthy
    with pytest.raises(EngineDead), engine.open_streams([a_request([5])]):
        pass


async def _shielded_run(engine: Engine, *, task_status: "trio.TaskStatus[None]") -> None:
    """``run`` without the extra layer of exception group that its own nursery adds."""
    try:
        await engine.run(task_status=task_status)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


async def test_failing_load_is_raised_as_it_is() -> None:
    def body(_commands: CommandQueue, _publish: Publish, _loaded: LoadedCallback) -> None:
        raise ConfigError("no such model")

    with pytest.RaisesGroup(
        pytest.RaisesExc(ConfigError, match="no such model"), flatten_subgroups=True
    ):
        async with trio.open_nursery() as nursery:
            await nursery.start(Engine(body).run)


async def test_cancel_while_loading_stops_the_thread() -> None:
    waiting = threading.Event()

    def body(commands: CommandQueue, _publish: Publish, _loaded: LoadedCallback) -> None:
        waiting.set()
        commands.get()  # the stop; a real load polls for it
        raise ConfigError("interrupted")

    async with trio.open_nursery() as nursery:

        async def load() -> None:
            await nursery.start(Engine(body).run)

        nursery.start_soon(load)
        await trio.to_thread.run_sync(waiting.wait)
        nursery.cancel_scope.cancel()


async def test_stop_ends_streams_with_its_error_and_takes_no_more() -> None:
    thread = GatedThread(runner=FakeRunner(n_slots=1))
    engine = Engine(thread)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        with (
            engine.open_streams([a_request([5], max_new_tokens=50)]) as (running,),
            engine.open_streams([a_request([5], max_new_tokens=50)]) as (queued,),
        ):
            await thread.wait_at_gate()
            engine.stop(ShuttingDown("deadline"))
            with pytest.raises(ShuttingDown), engine.open_streams([a_request([5])]):
                pass
            thread.let_through(1)
            for stream in (running, queued):
                with pytest.raises(ShuttingDown, match="deadline"):
                    await tokens_of(stream)


async def test_unread_stream_never_blocks_the_thread() -> None:
    thread = GatedThread(open=True)
    engine = Engine(thread)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        with engine.open_streams([a_request([5], max_new_tokens=50)]) as (unread,):
            with engine.open_streams([a_request([9], max_new_tokens=50)]) as (stream,):
                assert len(await tokens_of(stream)) == 50
            events: list[TokenEvent] = [event async for event in unread]
        assert len(events) == 50
        nursery.cancel_scope.cancel()


async def test_open_streams_submits_all_with_one_command_and_computes_the_prompt_once() -> None:
    thread = GatedThread()
    reports: list[StepReport] = []
    engine = Engine(thread, observe_step=reports.append)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        prompt = list(range(5, 35))
        requests = [a_request(prompt, max_new_tokens=2) for _ in range(3)]
        with engine.open_streams(requests) as streams:
            # With several commands the decode thread would begin with the first alone.
            await thread.wait_at_gate()
            thread.open = True
            thread.let_through(1)
            assert [await tokens_of(stream) for stream in streams] == [[35, 36]] * 3
        nursery.cancel_scope.cancel()
    assert thread.runner.batches[0].tokens.tolist() == prompt[:16]
    assert reports[0].n_joined == 3
    assert sum(report.n_prefill_tokens for report in reports) == len(prompt) + 2


async def test_leaving_open_streams_cancels_those_that_have_not_ended() -> None:
    thread = GatedThread(runner=FakeRunner(n_slots=2))
    engine = Engine(thread)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        requests = [a_request([5], max_new_tokens=n) for n in (1, 100, 100)]
        with engine.open_streams(requests) as streams:
            thread.let_through(1)
            assert await tokens_of(streams[0]) == [6]
        with engine.open_streams([a_request([9], max_new_tokens=1)]) as (stream,):
            thread.let_through(2)  # the step that was under way, then the newcomer's
            assert await tokens_of(stream) == [10]
        nursery.cancel_scope.cancel()


async def test_open_streams_after_a_stop_is_refused() -> None:
    engine = Engine(GatedThread(open=True))
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        engine.stop(ShuttingDown("stopping"))
        with pytest.raises(ShuttingDown), engine.open_streams([a_request([5]), a_request([5])]):
            pass
        nursery.cancel_scope.cancel()
