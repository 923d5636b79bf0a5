"""A decode loop that says what it is told, one event at a time, when the test wants it."""

import queue

import trio
from fakes.engine import text_events
from trio.testing import wait_all_tasks_blocked

from tgi_llama.engine.commands import Publication, Stop, Submit
from tgi_llama.generation import StepReport

REPORT = StepReport(
    **{
        name: 0
        for name in StepReport._fields
        if name not in ("decode_failed", "device_failed", "placement")
    },
    decode_failed=False,
    device_failed=False,
)


class Script:
    """A decode thread that publishes the next event of every request when it is told to."""

    def __init__(self, *pieces):
        self.events = text_events(*pieces)
        self._go = queue.SimpleQueue()
        self._delivered, self._receive = trio.open_memory_channel(1)

    def __call__(self, commands, publish, loaded):
        loaded()
        submit = commands.get()
        assert isinstance(submit, Submit)
        for event in self.events:
            self._go.get()
            publish(Publication(tuple((i, event) for i, _ in submit.requests), REPORT))
        while not isinstance(commands.get(), Stop):
            pass

    def note_delivered(self, _report):
        self._delivered.send_nowait(None)

    async def step(self):
        """Publishes the next event; returns when it is delivered and everybody waits again."""
        self._go.put(None)
        await self._receive.receive()
        await wait_all_tasks_blocked()
