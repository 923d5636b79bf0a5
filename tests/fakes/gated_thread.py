"""A real decode loop on a fake runner, whose decodes wait at a gate that the test opens."""

import queue
import threading

import attrs
import trio
from fakes.runner import FakeRunner, FakeVocabulary

from tgi_llama.engine.assembly import EngineOptions, make_loop
from tgi_llama.engine.commands import CommandQueue, Publish
from tgi_llama.engine.engine import LoadedCallback
from tgi_llama.engine.kv_cache import plan_kv


@attrs.define(eq=False)
class GatedThread:
    """The decode thread's body on a fake runner; each decode takes one ticket from the gate."""

    runner: FakeRunner = attrs.field(factory=FakeRunner)
    tickets: "queue.SimpleQueue[None]" = attrs.field(factory=queue.SimpleQueue)
    decoding: threading.Event = attrs.field(factory=threading.Event)
    """Set when a decode has come to the gate."""
    open: bool = False

    def __call__(self, commands: CommandQueue, publish: Publish, loaded: LoadedCallback) -> None:
        self.runner.before_decode = self._wait_at_gate
        plan = plan_kv(
            layout="streams",
            n_slots=self.runner.n_slots,
            cells_per_sequence=256,
            n_cells=256 * self.runner.n_slots,
        )
        loop = make_loop(
            self.runner,
            FakeVocabulary(),
            plan,
            EngineOptions(max_prefill_tokens=8),
            commands=commands,
            publish=publish,
        )
        loaded()
        loop.run()
        loop.scheduler.check_invariants()
        assert loop.scheduler.is_idle
        assert loop.placement.slots.n_busy == 0
        assert self.runner.n_cells_used == loop.placement.ledger.n_used

    def let_through(self, n: int) -> None:
        for _ in range(n):
            self.tickets.put(None)

    async def wait_at_gate(self) -> None:
        await trio.to_thread.run_sync(self.decoding.wait)

    def _wait_at_gate(self) -> None:
        self.decoding.set()
        if not self.open:
            self.tickets.get()
