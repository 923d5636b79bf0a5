"""Runs a measurement: servers found, progress shown, an interrupt turned into an early end."""

import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager

import attrs
import trio

from .http_client import Endpoint
from .plan import Measurement, Plan
from .server import Server, find_server

Shown = Callable[[Measurement], AbstractAsyncContextManager[None]]
"""Shows a measurement's progress as long as it is entered."""


@attrs.frozen(kw_only=True)
class ServerOptions:
    """How the servers are to be asked."""

    api: str
    model: str | None
    ignore_eos: bool
    fields: dict[str, object]


async def find_servers(endpoints: Sequence[Endpoint], options: ServerOptions) -> Sequence[Server]:
    """Named A, B, ... in their order. Raises BenchError."""
    return [
        await find_server(
            name,
            endpoint,
            api=options.api,
            model=options.model,
            ignore_eos=options.ignore_eos,
            fields=options.fields,
        )
        for name, endpoint in zip("AB", endpoints, strict=False)
    ]


async def run_session(
    find: Callable[[], Awaitable[Plan]], show: Shown
) -> tuple[Measurement | None, bool]:
    """What was measured, None where it did not come to that, and whether it was interrupted by
    SIGINT. Raises BenchError."""
    measurement = None
    is_interrupted = False
    async with trio.open_nursery() as nursery:

        async def watch(task_status: trio.TaskStatus[None]) -> None:
            nonlocal is_interrupted
            with trio.open_signal_receiver(signal.SIGINT) as signals:
                task_status.started()
                async for _ in signals:
                    is_interrupted = True
                    nursery.cancel_scope.cancel()

        await nursery.start(watch)
        measurement = Measurement(await find())
        async with show(measurement):
            await measurement.run()
        nursery.cancel_scope.cancel()
    return measurement, is_interrupted
