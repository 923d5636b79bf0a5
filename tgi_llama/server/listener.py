"""Sockets and connections: Hypercorn's protocol code under a life of our own.

Hypercorn's ``serve`` cannot be told to stop accepting while it goes on serving, and it shields its
socket writes from cancellation, so one client that never reads would hold the process for ever.
Here accepting, draining and cutting off are three separate steps; the protocol itself (HTTP/1.1
over h11, one ASGI call per request) stays Hypercorn's ``TCPServer``.
"""

import errno
import logging
import os
import socket
from typing import cast

import h11
import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.events import Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol, H11WSConnection
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState
from hypercorn.utils import wrap_app

from tgi_llama.errors import ConfigError

from .exchange import WRITER_KEY

_log = logging.getLogger(__name__)

_BACKLOG = 1024
_KEEP_ALIVE_S = 75.0
"""How long an idle connection is kept: longer than the 60 s of common load balancers, which expect
the server not to hang up first."""

_CHUNK = b"%x\r\n%b\r\n"
"""A part of a body in HTTP/1.1's chunked coding."""

_LAST_WORDS_S = 1.0
"""How long a server that is cancelled lets its connections write the answers they have."""


def bind(hostname: str, port: int, *, option: str = "--port") -> list[socket.socket]:
    """Binds all addresses of the host name, without listening yet: nothing is served before the
    model is loaded, but a port in use is known at once.

    Raises ConfigError naming the option.
    """
    try:
        found = socket.getaddrinfo(
            hostname or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise ConfigError(f"--hostname: cannot resolve {hostname!r}: {error.strerror}") from error
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in found:
            sock = socket.socket(family, kind, protocol)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
            sock.setblocking(False)
    except OSError as error:
        for sock in sockets:
            sock.close()
        culprit = "--hostname" if error.errno == errno.EADDRNOTAVAIL else option
        raise ConfigError(
            f"{culprit}: cannot listen on {hostname}, port {port}: {error.strerror}"
        ) from error
    return sockets


class HttpServer:
    """Serves one ASGI application on bound sockets. Trio thread only."""

    def __init__(self, app: ASGIFramework, sockets: list[socket.socket]) -> None:
        self._app = wrap_app(app, 0, "asgi")
        self._sockets = sockets
        self._config = HypercornConfig()
        self._config.keep_alive_timeout = _KEEP_ALIVE_S
        self._config.include_server_header = False
        self._config.errorlog = logging.getLogger("hypercorn.error")
        self._config.accesslog = None
        self._context = WorkerContext(None)
        self._connected = trio.CancelScope(shield=True)
        """Around the connections. Ended by ``_end_when_cancelled`` alone, in order."""
        self._accepting = trio.CancelScope()
        self._closed = trio.Event()
        self._streams: set[trio.SocketStream] = set()

    async def run(
        self, *, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Accepts until ``stop_accepting``, then waits for the connections that are left. Starts
        with the addresses, as ``host:port``. Raises ConfigError when it cannot listen.

        Cancelled, it gives answers that are on their way a moment, then cuts the connections.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_when_cancelled)
            with self._connected:
                await self._serve(task_status)
            nursery.cancel_scope.cancel()

    async def _serve(self, task_status: trio.TaskStatus[list[str]]) -> None:
        try:
            async with trio.open_nursery() as connections:
                with self._accepting:
                    listeners = self._listen()
                    task_status.started([_address(listener) for listener in listeners])
                    await trio.serve_listeners(
                        self._serve_connection, listeners, handler_nursery=connections
                    )
        finally:
            self._closed.set()

    async def _end_when_cancelled(self) -> None:
        """Cancelling the connections is not enough: a write to a client that does not read is
        shielded, and would hold a process whose decode thread has died for ever."""
        try:
            await trio.sleep_forever()
        finally:
            self.stop_accepting()
            with trio.move_on_after(_LAST_WORDS_S, shield=True):
                await self.close_idle()
                await self.wait_closed()
            self.cut_off()
            self._connected.cancel()

    def stop_accepting(self) -> None:
        """Closes the listening sockets. Open connections go on, idle ones too."""
        self._accepting.cancel()

    async def close_idle(self) -> None:
        """Closes every idle connection now and every other one after its response."""
        await self._context.terminated.set()

    async def wait_closed(self) -> None:
        """Returns when ``run`` has ended: nothing is accepted and no connection is left."""
        await self._closed.wait()

    def cut_off(self) -> int:
        """Closes all connections at once, also those whose client does not read. Returns how many
        there were."""
        n_streams = len(self._streams)
        for stream in self._streams:
            stream.socket.close()  # wakes a write that Hypercorn shields from cancellation
        return n_streams

    def _listen(self) -> list[trio.SocketListener]:
        listeners = []
        for sock in self._sockets:
            try:
                sock.listen(_BACKLOG)
            except OSError as error:
                raise ConfigError(f"--port: cannot listen: {error.strerror}") from error
            listeners.append(trio.SocketListener(trio.socket.from_stdlib_socket(sock)))
        return listeners

    async def _serve_connection(self, stream: trio.SocketStream) -> None:
        self._streams.add(stream)
        try:
            # Declared for TLS streams, but made for both kinds.
            any_stream = cast("trio.SSLStream[trio.SocketStream]", stream)
            state = ConnectionState({})
            connection = _Connection(self._app, self._config, self._context, state, any_stream)
            connection.socket = stream.socket
            state[WRITER_KEY] = connection
            await connection
        except* Exception as group:  # the boundary of one connection
            _log.error("a connection failed", exc_info=group)
        finally:
            self._streams.discard(stream)


class _Connection(TCPServer):
    """Hypercorn's connection with short ways to the socket.

    A token is a write of a few hundred bytes, which the kernel nearly always takes at once, but
    Hypercorn's way there takes a lock and passes several of Trio's checkpoints, each a turn of the
    scheduler, on cores that decode. So a write is tried first; what does not fit goes the long way.
    ``write_part`` (see ``exchange.PartWriter``) is shorter still: it passes the ASGI layers by.
    """

    socket: trio.socket.SocketType
    """The stream's; set before the connection is served."""

    _unsent = b""
    """Of the last ``write_part``; it goes before everything else."""

    _is_chunking = False
    """In the middle of a body whose parts h11 frames as chunks, with nothing left over."""

    _has_left = False
    """The client has closed its side."""

    async def _read_data(self) -> None:
        """Hypercorn would keep the socket of a client that has left until the idle time-out, and
        with enough of them every file descriptor."""
        try:
            await super()._read_data()
        finally:
            self._has_left = True
            await self.idle_task.stop()

    async def protocol_send(self, event: Event) -> None:
        self._is_chunking = False
        if isinstance(event, Updated) and self._has_left:
            return  # it would start the idle time-out again
        if isinstance(event, RawData):
            if not event.data:
                await self._end_refused_upgrade()
                return
            data, self._unsent = self._unsent + event.data, b""
            n_sent = 0 if self.send_lock.locked() else self._send_now(data)
            if n_sent == len(data):
                return
            event = RawData(data[n_sent:])
        await super().protocol_send(event)

    def is_ready(self) -> bool:
        """See ``PartWriter``: in the middle of a body over HTTP/1, with nothing left over."""
        if self._is_chunking:
            return True
        if self._unsent or self.send_lock.locked():
            return False
        http = self.protocol.protocol
        return isinstance(http, H11Protocol) and http.connection.our_state is h11.SEND_BODY

    def write_part(self, data: bytes) -> bool:
        """See ``PartWriter``."""
        framed = _CHUNK % (len(data), data)
        if not self._is_chunking:
            # h11 tells how it frames this body, and has nothing to say about the parts that follow:
            # its state is the same after each of them.
            http = cast(H11Protocol, self.protocol.protocol)
            by_h11 = http.connection.send(h11.Data(data=data))
            self._is_chunking = by_h11 == framed
            framed = by_h11
        try:
            n_sent = os.write(self.socket.fileno(), framed)
        except OSError:  # left to the long way, which meets it too
            n_sent = 0
        if n_sent == len(framed):
            return True
        self._unsent = framed[n_sent:]
        self._is_chunking = False
        return False

    async def _end_refused_upgrade(self) -> None:
        """Hypercorn answers a WebSocket handshake that it does not like with ``connection: close``
        and then forgets to close. The end of an answer with a content-length is a write of nothing.
        """
        if isinstance(self.protocol.protocol.connection, H11WSConnection):
            await self._close()

    def _send_now(self, data: bytes) -> int:
        """How much of it the kernel took. Errors are left to the long way, which meets them too."""
        try:
            return os.write(self.socket.fileno(), data)
        except OSError:
            return 0


def _address(listener: trio.SocketListener) -> str:
    name = listener.socket.getsockname()
    return f"{name[0]}:{name[1]}"
