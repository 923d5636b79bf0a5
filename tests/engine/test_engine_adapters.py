"""Adapters from the Trio side, with a real thread: answers, cancellation, the engine's end."""

from pathlib import Path

import attrs
import pytest
import trio
from fakes.gated_thread import GatedThread
from fakes.playbook import a_request
from fakes.runner import FakeRunner
from trio.testing import wait_all_tasks_blocked

from tgi_llama.engine.engine import Engine
from tgi_llama.errors import AdapterError, DecodeFailed, EngineDead, GenerationError, ShuttingDown
from tgi_llama.generation import AdapterFacts, AdapterId

A = AdapterId(1)
FILE = Path("adapter.gguf")


async def test_load_returns_the_facts_and_requests_may_have_the_adapter() -> None:
    thread = GatedThread(open=True)
    engine = Engine(thread)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        facts = await engine.load_adapter(A, FILE, scale=0.5)
        assert facts == AdapterFacts(n_bytes=1000, n_weights=2, rank=4)
        assert thread.runner.adapters == {A: (FILE, 0.5)}
        with engine.open_streams([a_request([5], max_new_tokens=3, adapter=1)]) as (stream,):
            assert [event.token.id async for event in stream] == [6, 7, 8]
        assert {batch.adapter for batch in thread.runner.batches} == {A}
        nursery.cancel_scope.cancel()


async def test_load_of_a_wrong_file_raises_adapter_error_and_the_engine_goes_on() -> None:
    thread = GatedThread(open=True)
    engine = Engine(thread)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        with pytest.raises(AdapterError, match=r"bad\.gguf"):
            await engine.load_adapter(A, Path("bad.gguf"))
        assert not thread.runner.adapters
        with (
            engine.open_streams([a_request([5], adapter=1)]) as (stream,),
            pytest.raises(GenerationError, match="not loaded"),
        ):
            await stream.__anext__()
        await engine.load_adapter(A, FILE)
        nursery.cancel_scope.cancel()


async def test_unload_waits_for_the_last_request_that_has_it() -> None:
    thread = GatedThread()
    engine = Engine(thread)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await engine.load_adapter(A, FILE)
        done = trio.Event()

        async def unload() -> None:
            await engine.unload_adapter(A)
            done.set()

        with engine.open_streams([a_request([5], max_new_tokens=3, adapter=1)]) as (stream,):
            nursery.start_soon(unload)
            thread.let_through(2)
            await stream.__anext__()
            await stream.__anext__()
            assert not done.is_set()
            thread.open = True
            thread.let_through(1)
            await stream.__anext__()
        await done.wait()
        assert not thread.runner.adapters
        nursery.cancel_scope.cancel()


async def test_unload_of_what_is_not_loaded_returns() -> None:
    engine = Engine(GatedThread(open=True))
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await engine.unload_adapter(A)
        nursery.cancel_scope.cancel()


async def test_cancelled_load_leaves_nothing_loaded() -> None:
    """The thread is in a decode, and will load only when nobody waits any more."""
    thread = GatedThread()
    engine = Engine(thread)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        with engine.open_streams([a_request([5], max_new_tokens=2)]) as (stream,):
            await thread.wait_at_gate()
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as loading:
                    loading.start_soon(engine.load_adapter, A, FILE)
                    await wait_all_tasks_blocked()
                    scope.cancel()
            thread.open = True
            thread.let_through(1)
            assert len([event async for event in stream]) == 2
        await engine.unload_adapter(AdapterId(9))  # behind what was posted
        assert not thread.runner.adapters
        assert not engine._waiting
        nursery.cancel_scope.cancel()


async def test_cancelled_unload_frees_the_adapter_all_the_same() -> None:
    thread = GatedThread()
    engine = Engine(thread)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await engine.load_adapter(A, FILE)
        with engine.open_streams([a_request([5], max_new_tokens=2, adapter=1)]) as (stream,):
            await thread.wait_at_gate()
            with trio.move_on_after(0):
                await engine.unload_adapter(A)
            thread.open = True
            thread.let_through(1)
            assert len([event async for event in stream]) == 2
        await engine.unload_adapter(AdapterId(9))
        assert not thread.runner.adapters
        nursery.cancel_scope.cancel()


@attrs.define(eq=False)
class BrokenRunner(FakeRunner):
    """Its loads break."""

    def load_adapter(
        self,
        adapter: AdapterId,  # noqa: ARG002 - the protocol's
        path: Path,  # noqa: ARG002 - the protocol's
        *,
        scale: float,  # noqa: ARG002 - the protocol's
    ) -> AdapterFacts:
        raise MemoryError("no memory for the adapter")


async def test_load_that_breaks_is_told_and_does_not_end_the_thread() -> None:
    engine = Engine(GatedThread(BrokenRunner(), open=True))
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        with pytest.raises(AdapterError, match="no memory"):
            await engine.load_adapter(A, FILE)
        assert engine.is_healthy
        nursery.cancel_scope.cancel()


async def test_whoever_waits_is_told_when_the_thread_dies() -> None:
    thread = GatedThread()
    thread.runner.failures.append(RuntimeError("of the test"))
    engine = Engine(thread)
    told: list[EngineDead] = []

    async def serve(*, task_status: trio.TaskStatus[None]) -> None:
        with pytest.RaisesGroup(EngineDead, flatten_subgroups=True):
            await engine.run(task_status=task_status)

    async def load() -> None:
        with pytest.raises(EngineDead) as caught:
            await engine.load_adapter(AdapterId(2), FILE)
        told.append(caught.value)

    async def unload() -> None:
        with pytest.raises(EngineDead) as caught:
            await engine.unload_adapter(A)
        told.append(caught.value)

    with trio.fail_after(60):  # or nobody is told
        async with trio.open_nursery() as nursery:
            await nursery.start(serve)
            await engine.load_adapter(A, FILE)
            with engine.open_streams([a_request([5], adapter=1)]) as (stream,):
                await thread.wait_at_gate()
                nursery.start_soon(unload)
                nursery.start_soon(load)
                await wait_all_tasks_blocked()
                thread.let_through(1)
                with pytest.raises(EngineDead):
                    await stream.__anext__()
    assert len(told) == 2
    assert told[0] is not told[1]


async def test_nothing_is_loaded_after_the_end() -> None:
    engine = Engine(GatedThread(open=True))
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        nursery.cancel_scope.cancel()
    for ask in (engine.unload_adapter(A), engine.load_adapter(A, FILE)):
        with pytest.raises(ShuttingDown):
            await ask


async def test_unload_that_waits_ends_with_the_engine() -> None:
    thread = GatedThread()
    engine = Engine(thread)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await engine.load_adapter(A, FILE)
        with engine.open_streams([a_request([5], max_new_tokens=50, adapter=1)]):
            await thread.wait_at_gate()
            with trio.fail_after(60):  # or nobody is told
                async with trio.open_nursery() as waiting:

                    async def unload() -> None:
                        with pytest.raises(ShuttingDown):
                            await engine.unload_adapter(A)

                    waiting.start_soon(unload)
                    await wait_all_tasks_blocked()
                    engine.stop(ShuttingDown("enough"))
                    thread.open = True
                    thread.let_through(1)


async def test_failed_decode_does_not_hold_an_unload_up() -> None:
    thread = GatedThread()
    thread.runner.failures.append(DecodeFailed("of the test"))
    engine = Engine(thread)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await engine.load_adapter(A, FILE)
        with engine.open_streams([a_request([5], adapter=1)]) as (stream,):
            await thread.wait_at_gate()
            thread.open = True
            thread.let_through(1)
            with pytest.raises(GenerationError):
                await stream.__anext__()
            await engine.unload_adapter(A)
        assert not thread.runner.adapters
        nursery.cancel_scope.cancel()
