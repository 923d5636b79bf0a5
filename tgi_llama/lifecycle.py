"""The composition root: what is built, in which order it starts, and how it stops.

Theory of operation
-------------------
``run_service`` builds everything behind the HTTP server, for both ways of starting: ``run`` (the
command line) and ``asgi.Application`` (an ASGI server's lifespan). It nests what it starts, so that
it stops in reverse: the validation workers, then the decode thread, then the model is freed.
Nothing that uses the native library outlives it.

Shutdown, from the first SIGTERM or SIGINT: new requests are refused and ``/health`` says 503; the
running ones get ``--graceful-termination-timeout``; what is left then ends with an error event and
has a few seconds to be sent; after that connections are cut. A second signal cuts at once.
"""

import logging
import signal
import socket
from collections.abc import AsyncIterator

import attrs
import trio

from tgi_llama.config import Config
from tgi_llama.errors import ShuttingDown
from tgi_llama.server.listener import HttpServer, bind
from tgi_llama.server.metrics_app import create_metrics_app
from tgi_llama.service import Service, find_model, run_service

_log = logging.getLogger(__name__)

_LAST_WORDS_S = 5.0
"""After the deadline: time to send the error events and to close connections in order."""


def run(config: Config) -> None:
    """Serves until a signal. Blocks; for the main thread.

    Raises ConfigError or StartError when it cannot start and EngineDead when the decode thread
    dies; what happens in a task, inside exception groups.
    """
    sockets = bind(config.hostname, config.port)
    metrics_sockets = []
    if config.prometheus_port is not None:
        metrics_sockets = bind(config.hostname, config.prometheus_port, option="--prometheus-port")
    trio.run(_serve, config, sockets, metrics_sockets)


async def _serve(
    config: Config,
    sockets: list[socket.socket],
    metrics_sockets: list[socket.socket],
) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            shutdown = Shutdown(config.graceful_termination_timeout, nursery.cancel_scope)
            nursery.start_soon(shutdown.watch, signals)
            files = await find_model(config)
            service = await nursery.start(run_service, config, files)
            if metrics_sockets:
                metrics_server = HttpServer(create_metrics_app(service.metrics), metrics_sockets)
                await nursery.start(metrics_server.run)
            server = HttpServer(service.app, sockets)
            addresses = await nursery.start(server.run)
            _log.info("listening on %s", ", ".join(addresses))
            await shutdown.run(service, server)
            nursery.cancel_scope.cancel()


@attrs.define(eq=False)
class Shutdown:
    """The way down, step by step. See the top of this module."""

    timeout_s: float
    _everything: trio.CancelScope
    """Around the whole server."""
    _serving: bool = attrs.field(default=False, init=False)
    _requested: trio.Event = attrs.field(factory=trio.Event, init=False)
    _insisted: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    """Cancelled by the second signal: ends all waiting."""

    async def watch(self, signals: AsyncIterator[int]) -> None:
        """The first signal asks, the second insists. While the model is
        still fetched or loaded there is nothing to drain, so the first one ends everything."""
        async for number in signals:
            name = signal.Signals(number).name
            if self._requested.is_set():
                _log.warning("%s again: ending at once", name)
                self._insisted.cancel()
                continue
            _log.info("%s received, starting graceful shutdown", name)
            self._requested.set()
            if not self._serving:
                self._everything.cancel()

    async def run(self, service: Service, server: HttpServer) -> None:
        """Waits for the first signal, then drains."""
        self._serving = True
        await self._requested.wait()
        await self.drain(service, server)

    async def drain(self, service: Service, server: HttpServer) -> None:
        """Lets running requests finish, then ends them, then cuts their connections."""
        service.admission.start_draining()
        server.stop_accepting()
        with self._insisted:
            with trio.move_on_after(self.timeout_s) as patience:
                await service.admission.wait_idle()
            if patience.cancelled_caught:
                n_running = service.admission.n_running
                service.engine.stop(ShuttingDown("the server is shutting down"))
                service.abort_decode()
                _log.warning("%d requests were ended at the deadline", n_running)
            await server.close_idle()
            with trio.move_on_after(_LAST_WORDS_S):
                await server.wait_closed()
        service.engine.stop(ShuttingDown("the server is shutting down"))
        service.abort_decode()
        n_cut = server.cut_off()
        if n_cut:
            _log.warning("%d connections were cut", n_cut)
