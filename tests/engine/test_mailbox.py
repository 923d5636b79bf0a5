"""The way from the decode thread to the Trio thread, the short one and the ordinary one."""

import threading
from collections.abc import Iterator

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tgi_llama.engine import io_wait
from tgi_llama.engine.io_wait import BeforeIoWait
from tgi_llama.engine.mailbox import Mailbox


@pytest.fixture(params=["short", "ordinary"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "ordinary":
        monkeypatch.setattr(io_wait, "_poll_of_epoll", lambda _descriptor: None)
    return str(request.param)


@pytest.fixture
def mailbox() -> Iterator[Mailbox[int]]:
    box = Mailbox[int]()
    yield box
    box.close()


class Receiver:
    """Keeps what it is given and tells a task that waits for the n-th."""

    def __init__(self) -> None:
        self.items: list[int] = []
        self._wanted = 0
        self._done = trio.Event()

    def __call__(self, item: int) -> None:
        self.items.append(item)
        if len(self.items) == self._wanted:
            self._done.set()

    async def wait_for(self, n: int) -> None:
        self._wanted, self._done = n, trio.Event()
        if len(self.items) < n:
            with trio.fail_after(10):
                await self._done.wait()


class TaskSteps(trio.abc.Instrument):
    """Counts the turns of tasks."""

    def __init__(self) -> None:
        self.n = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002  # Trio's hook
        self.n += 1


async def post_from_thread(mailbox: Mailbox[int], *items: int) -> None:
    await trio.to_thread.run_sync(lambda: [mailbox.post(item) for item in items])


async def test_items_of_a_thread_arrive_in_order(
    mailbox: Mailbox[int], nursery: trio.Nursery
) -> None:
    receiver = Receiver()
    nursery.start_soon(mailbox.deliver_to, receiver)
    await post_from_thread(mailbox, *range(5000))
    await receiver.wait_for(5000)
    assert receiver.items == list(range(5000))


async def test_items_that_come_before_anybody_waits_are_kept(
    mailbox: Mailbox[int], nursery: trio.Nursery
) -> None:
    for i in range(100_000):
        mailbox.post(i)
    receiver = Receiver()
    nursery.start_soon(mailbox.deliver_to, receiver)
    await receiver.wait_for(100_000)
    assert receiver.items == list(range(100_000))


async def test_cancelled_wait_loses_nothing(mailbox: Mailbox[int], nursery: trio.Nursery) -> None:
    receiver = Receiver()
    with trio.CancelScope() as scope:
        scope.cancel()
        await mailbox.deliver_to(receiver)
    mailbox.post(1)
    nursery.start_soon(mailbox.deliver_to, receiver)
    await receiver.wait_for(1)
    assert receiver.items == [1]


async def test_what_is_left_can_be_taken_without_waiting(mailbox: Mailbox[int]) -> None:
    mailbox.post(1)
    mailbox.post(2)
    receiver = Receiver()
    mailbox.drain_to(receiver)
    assert receiver.items == [1, 2]


async def test_short_way_runs_no_task_for_an_item(
    mailbox: Mailbox[int], nursery: trio.Nursery, way: str
) -> None:
    received = threading.Semaphore(0)
    steps = TaskSteps()
    counts: list[int] = []

    def receive(_item: int) -> None:
        counts.append(steps.n)
        received.release()

    def post_one_by_one() -> None:
        for i in range(40):
            mailbox.post(i)
            received.acquire()

    nursery.start_soon(mailbox.deliver_to, receive)
    await wait_all_tasks_blocked()
    trio.lowlevel.add_instrument(steps)
    await trio.to_thread.run_sync(post_one_by_one)
    trio.lowlevel.remove_instrument(steps)
    n_steps = counts[-1] - counts[0]
    assert n_steps == 0 if way == "short" else n_steps >= 20


async def test_task_that_an_item_wakes_runs_at_once(
    mailbox: Mailbox[int], nursery: trio.Nursery
) -> None:
    send, receive = trio.open_memory_channel[int](10)
    answered = threading.Semaphore(0)

    async def answer() -> None:
        async for _ in receive:
            answered.release()

    def post_one_by_one() -> None:
        for i in range(20):
            mailbox.post(i)
            assert answered.acquire(timeout=10)

    nursery.start_soon(answer)
    nursery.start_soon(mailbox.deliver_to, send.send_nowait)
    await trio.to_thread.run_sync(post_one_by_one)


async def test_other_descriptors_are_served_while_items_never_cease(
    mailbox: Mailbox[int], nursery: trio.Nursery
) -> None:
    mine, other = trio.socket.socketpair()
    over = threading.Event()

    async def echo() -> None:
        for _ in range(20):
            await other.send(await other.recv(1))

    def post_until_over() -> None:
        while not over.is_set():
            mailbox.post(1)

    with mine, other:
        async with trio.open_nursery() as clients:
            nursery.start_soon(mailbox.deliver_to, lambda _item: None)
            clients.start_soon(echo)
            clients.start_soon(trio.to_thread.run_sync, post_until_over)
            try:
                with trio.fail_after(10):
                    for _ in range(20):
                        await mine.send(b"x")
                        await mine.recv(1)
            finally:
                over.set()


async def test_failing_receiver_ends_the_delivery_with_its_error(mailbox: Mailbox[int]) -> None:
    def receive(item: int) -> None:
        if item == 3:
            raise ValueError("three")

    async def deliver() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mailbox.deliver_to, receive)
            await wait_all_tasks_blocked()
            await post_from_thread(mailbox, 1, 2, 3)
            with trio.fail_after(10):
                await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await deliver()
    assert caught.group_contains(ValueError, match="three")


async def test_deadline_that_comes_while_waiting_in_place_ends_the_wait_of_trio(
    mailbox: Mailbox[int], nursery: trio.Nursery, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook: list[BeforeIoWait] = []
    enter = BeforeIoWait.__enter__
    monkeypatch.setattr(BeforeIoWait, "__enter__", lambda self: (hook.append(self), enter(self))[1])
    nursery.start_soon(mailbox.deliver_to, lambda _item: None)
    await wait_all_tasks_blocked()
    monkeypatch.setattr(io_wait, "_SHORTEST_S", 0.0)
    hook[0].before_io_wait(0.001)
    assert hook[0].is_short is (way == "short")
    n_calls = trio.lowlevel.current_statistics().run_sync_soon_queue_size
    assert n_calls == (1 if way == "short" else 0), "Trio would wait as long once more"
