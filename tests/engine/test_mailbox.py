"""The way from the decode thread to the Trio thread."""

import threading
from collections.abc import Iterator

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tgi_llama.engine.mailbox import Mailbox

PIPE_BYTES = 2**16
"""What a pipe holds on Linux: a byte per item."""


@pytest.fixture
def mailbox() -> Iterator[Mailbox[int]]:
    box = Mailbox[int]()
    yield box
    box.close()


def take_all(mailbox: Mailbox[int]) -> list[int]:
    return list(iter(mailbox.take, None))


async def test_items_of_a_thread_arrive_in_order(mailbox: Mailbox[int]) -> None:
    thread = threading.Thread(target=lambda: [mailbox.post(i) for i in range(1000)])
    thread.start()
    received: list[int] = []
    while len(received) < 1000:
        await mailbox.wait()
        received += take_all(mailbox)
    thread.join()
    assert received == list(range(1000))


async def test_reader_sleeps_until_something_is_posted(mailbox: Mailbox[int]) -> None:
    async with trio.open_nursery() as nursery:
        woken = trio.Event()

        async def read() -> None:
            await mailbox.wait()
            woken.set()

        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        assert not woken.is_set()
        await trio.to_thread.run_sync(mailbox.post, 7)
        await woken.wait()
    assert take_all(mailbox) == [7]


async def test_full_pipe_neither_blocks_nor_loses_items(mailbox: Mailbox[int]) -> None:
    n = PIPE_BYTES + 1000
    for i in range(n):
        mailbox.post(i)
    await mailbox.wait()
    assert take_all(mailbox) == list(range(n))


async def test_cancelled_wait_loses_nothing(mailbox: Mailbox[int]) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await mailbox.wait()
    mailbox.post(1)
    await mailbox.wait()
    assert take_all(mailbox) == [1]
