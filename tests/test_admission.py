"""Permits, validation workers, and draining."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from fakes.engine import FakeEngine

from tgi_llama.admission import Admission, ValidationWorkers
from tgi_llama.errors import GrammarNotCompiled, Overloaded, ShuttingDown, ValidationError
from tgi_llama.generation import (
    GenerationRequest,
    SamplingParameters,
    StoppingParameters,
    TokenId,
)
from tgi_llama.structured.compiler import may_compile

REQUEST = GenerationRequest(
    prompt_ids=(TokenId(1),),
    sampling=SamplingParameters(greedy=True),
    stopping=StoppingParameters(max_new_tokens=4),
)


def admission(*, n_permits: int = 2, engine: FakeEngine | None = None) -> Admission:
    return Admission(engine or FakeEngine(), ValidationWorkers(1), n_permits)


@asynccontextmanager
async def running(workers: ValidationWorkers) -> AsyncIterator[trio.Nursery]:
    async with trio.open_nursery() as nursery:
        await nursery.start(workers.run)
        yield nursery
        nursery.cancel_scope.cancel()


# --- permits --------------------------------------------------------------------------------------


async def test_permit_beyond_the_last_is_refused_at_once() -> None:
    door = admission(n_permits=2)
    with door.permit(), door.permit():
        assert door.n_running == 2
        with pytest.raises(Overloaded, match=r"^Model is overloaded$"), door.permit():
            pass
        assert door.n_running == 2
    assert door.n_running == 0


async def test_permit_for_several_prompts_takes_all_or_none() -> None:
    door = admission(n_permits=3)
    with door.permit(), pytest.raises(Overloaded), door.permit(3):
        pass
    with door.permit(3):
        assert door.n_running == 3


async def test_permit_limit_of_zero_refuses_everything() -> None:
    with pytest.raises(Overloaded), admission(n_permits=0).permit():
        pass


async def test_permit_comes_back_when_its_holder_fails() -> None:
    door = admission()
    with pytest.raises(ZeroDivisionError), door.permit():
        raise ZeroDivisionError
    assert door.n_running == 0


async def test_permit_comes_back_when_its_holder_is_cancelled() -> None:
    door = admission()
    with trio.CancelScope() as scope, door.permit():
        scope.cancel()
        await trio.sleep_forever()
    assert door.n_running == 0


# --- draining -------------------------------------------------------------------------------------


async def test_draining_refuses_new_requests_and_lets_old_ones_submit() -> None:
    engine = FakeEngine()
    door = admission(engine=engine)
    with door.permit():
        door.start_draining()
        assert door.is_draining
        with pytest.raises(ShuttingDown), door.permit():
            pass
        with door.submit([REQUEST]) as (stream,):
            texts = [event.delta async for event in stream]
    assert texts == ["Hello", " world", ""]
    assert engine.n_open == 0


async def test_further_permits_are_given_while_draining_but_not_beyond_the_last() -> None:
    door = admission(n_permits=3)
    with door.permit():
        door.start_draining()
        with door.further_permits(2):
            assert door.n_running == 3
        with pytest.raises(Overloaded), door.further_permits(3):
            pass
    assert door.n_running == 0


async def test_submit_to_a_stopped_engine_is_refused() -> None:
    engine = FakeEngine()
    engine.stop()
    with pytest.raises(ShuttingDown), admission(engine=engine).submit([REQUEST]):
        pass


async def test_wait_idle_without_requests_returns_at_once() -> None:
    with trio.fail_after(1):
        await admission().wait_idle()


async def test_wait_idle_returns_for_all_waiters_when_the_last_permit_is_back() -> None:
    door = admission()
    left = []

    async def wait(name: str) -> None:
        await door.wait_idle()
        left.append(name)

    async with trio.open_nursery() as nursery:
        with door.permit():
            pass  # an earlier idle moment must not count
        with door.permit():
            with door.permit():
                nursery.start_soon(wait, "a")
                nursery.start_soon(wait, "b")
                await trio.testing.wait_all_tasks_blocked()
            await trio.testing.wait_all_tasks_blocked()
            assert left == []
    assert sorted(left) == ["a", "b"]


async def test_wait_idle_waits_again_when_a_request_slipped_in() -> None:
    door = admission()
    async with trio.open_nursery() as nursery:
        permit = door.permit()
        with permit:
            nursery.start_soon(door.wait_idle)
            await trio.testing.wait_all_tasks_blocked()
        with door.permit():
            await trio.testing.wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 1


# --- workers --------------------------------------------------------------------------------------


async def test_validate_returns_what_the_call_returns_from_another_thread() -> None:
    workers = ValidationWorkers(1)
    async with running(workers):
        assert await workers.validate(threading.get_ident) != threading.get_ident()


async def test_validate_raises_what_the_call_raises_and_the_worker_lives_on() -> None:
    workers = ValidationWorkers(1)

    def refuse() -> None:
        raise ValidationError("no", field="x")

    async with running(workers):
        with pytest.raises(ValidationError, match="no") as caught:
            await workers.validate(refuse)
        assert caught.value.field == "x"
        assert await workers.validate(lambda: 5) == 5


async def test_validate_panic_of_native_code_becomes_an_ordinary_error() -> None:
    workers = ValidationWorkers(1)

    class PanicError(BaseException):
        pass

    def panic() -> None:
        raise PanicError("index out of bounds")

    async with running(workers):
        with pytest.raises(RuntimeError, match="index out of bounds"):
            await workers.validate(panic)
        assert await workers.validate(lambda: 5) == 5


async def test_validate_runs_as_many_calls_at_a_time_as_there_are_workers() -> None:
    workers = ValidationWorkers(2)
    both_inside = threading.Barrier(2)
    results = []

    async def validate() -> None:
        results.append(await workers.validate(lambda: both_inside.wait(timeout=10)))

    async with running(workers), trio.open_nursery() as callers:
        callers.start_soon(validate)
        callers.start_soon(validate)
    assert sorted(results) == [0, 1]


async def test_validate_cancelled_while_queued_never_runs_and_frees_its_place() -> None:
    workers = ValidationWorkers(1)
    gate = threading.Event()
    ran = []
    async with running(workers) as nursery:
        nursery.start_soon(workers.validate, gate.wait)
        await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await workers.validate(lambda: ran.append("cancelled"))
        gate.set()
        await workers.validate(lambda: ran.append("next"))
    assert ran == ["next"]


async def test_validate_cancelled_while_running_leaves_the_worker_working() -> None:
    workers = ValidationWorkers(1)
    inside, gate = threading.Event(), threading.Event()
    finished = []

    def call() -> None:
        inside.set()
        gate.wait()
        finished.append("cancelled")

    async with running(workers):
        async with trio.open_nursery() as caller:
            caller.start_soon(workers.validate, call)
            await trio.to_thread.run_sync(inside.wait)
            caller.cancel_scope.cancel()
        assert finished == []
        gate.set()
        assert await workers.validate(lambda: "next") == "next"
    assert finished == ["cancelled"]


async def test_validate_after_the_workers_stopped_is_refused() -> None:
    workers = ValidationWorkers(1)
    async with running(workers):
        pass
    with pytest.raises(ShuttingDown):
        await workers.validate(lambda: None)


async def test_validate_queued_when_the_workers_stop_is_refused() -> None:
    workers = ValidationWorkers(1)
    inside, gate = threading.Event(), threading.Event()
    outcomes = []

    def call() -> str:
        inside.set()
        gate.wait()
        return "finished"

    async def validate(name: str) -> None:
        try:
            outcomes.append(await workers.validate(call))
        except ShuttingDown:
            outcomes.append(f"{name} refused")

    async with trio.open_nursery() as callers, running(workers):
        callers.start_soon(validate, "first")
        await trio.to_thread.run_sync(inside.wait)
        callers.start_soon(validate, "second")
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert sorted(outcomes) == ["finished", "second refused"]


async def test_validate_in_the_moment_the_workers_stop_is_refused() -> None:
    n_refused = 0

    async def validate(workers: ValidationWorkers) -> None:
        nonlocal n_refused
        with pytest.raises(ShuttingDown):
            await workers.validate(lambda: None)
        n_refused += 1

    async def cancel(nursery: trio.Nursery) -> None:
        nursery.cancel_scope.cancel()

    # The job is handed over in the turn of Trio's loop that cancels the workers, before or after
    # that: Trio throws dice, so this asks often enough to see both.
    for _ in range(20):
        workers = ValidationWorkers(1)
        async with trio.open_nursery() as callers, trio.open_nursery() as nursery:
            await nursery.start(workers.run)
            await trio.testing.wait_all_tasks_blocked()
            callers.start_soon(validate, workers)
            callers.start_soon(cancel, nursery)
    assert n_refused == 20


async def test_workers_less_than_one_are_refused() -> None:
    with pytest.raises(ValueError, match="n_workers"):
        ValidationWorkers(0)


async def test_admission_validates_on_its_workers() -> None:
    door = admission()
    async with running(door.workers):
        assert await door.validate(lambda: 1) == 1


async def test_call_that_has_to_compile_is_made_again_by_a_compiler() -> None:
    workers, compilers = ValidationWorkers(1), ValidationWorkers(1)
    door = Admission(FakeEngine(), workers, 2, compilers)
    calls = []

    def call() -> str:
        calls.append(may_compile())
        if not may_compile():
            raise GrammarNotCompiled
        return "compiled"

    async with running(workers), running(compilers):
        assert await door.prepare(call) == "compiled"
        assert await door.prepare(lambda: "plain") == "plain"
        with pytest.raises(ValidationError):
            await door.prepare(refuse)
    assert calls == [False, True]
    alone = admission()
    async with running(alone.workers):
        assert await alone.prepare(call) == "compiled"


def refuse() -> None:
    raise ValidationError("no", field="x")
