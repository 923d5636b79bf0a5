"""A real server in a process of its own."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import attrs
import trio
from fakes.raw_client import RawClient

START_S = 60
STOP_S = 30
"""Limits that only a failing test reaches."""

GATED_SERVER = Path(__file__).parent / "gated_server.py"


@attrs.define(eq=False)
class ServerProcess:
    process: trio.Process
    lines: list[str] = attrs.field(factory=list)
    """What it wrote to standard output and error."""
    port: int = 0
    _grew: trio.Event = attrs.field(factory=trio.Event)
    _clients: list[RawClient] = attrs.field(factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    async def connect(self) -> RawClient:
        """A new connection; closed with the server."""
        client = RawClient(await trio.open_tcp_stream("127.0.0.1", self.port))
        self._clients.append(client)
        return client

    async def wait_for(self, pattern: str) -> "re.Match[str]":
        """The first line, already written or still to come, in which the pattern is found."""
        n_seen = 0
        with trio.fail_after(START_S):
            while True:
                for line in self.lines[n_seen:]:
                    found = re.search(pattern, line)
                    if found:
                        return found
                n_seen = len(self.lines)
                if self.process.poll() is not None:
                    raise AssertionError(f"the server ended:\n{self.output}")
                await self._grew.wait()

    async def release(self, decodes: str) -> None:
        """Lets a gated server decode once per character; see ``gated_server.py``."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all(decodes.encode())

    async def open_gate(self) -> None:
        """Lets a gated server decode freely."""
        assert self.process.stdin is not None
        await self.process.stdin.aclose()

    async def stopped(self) -> int:
        """The exit status."""
        with trio.fail_after(STOP_S):
            return await self.process.wait()

    async def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return await self.stopped()

    async def close(self) -> None:
        """Ends the process if it still runs, its workers too, and closes everything that leads to
        it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()
        for client in self._clients:
            await client.close()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                await pipe.aclose()

    async def read_output(self) -> None:
        assert self.process.stdout is not None
        rest = b""
        async for data in self.process.stdout:
            *lines, rest = (rest + data).split(b"\n")
            self._add(lines)
        self._add([rest] if rest else [])

    def _add(self, lines: Sequence[bytes]) -> None:
        self.lines += [line.decode() for line in lines]
        self._grew.set()
        self._grew = trio.Event()


@contextlib.asynccontextmanager
async def running(
    command: Sequence[str], *, environment: Mapping[str, str], listening: str
) -> AsyncIterator[ServerProcess]:
    """Starts a server and kills it in the end. ``listening`` is a pattern with the port in it."""
    process = await trio.lowlevel.open_process(
        list(command),
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # a group of its own, which ends as a whole
    )
    server = ServerProcess(process)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.read_output)
            server.port = int((await server.wait_for(listening))[1])
            yield server
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await server.close()


def tgi_llama(
    *options: str, environment: Mapping[str, str], gated: bool = False
) -> "contextlib.AbstractAsyncContextManager[ServerProcess]":
    """``python -m tgi_llama`` on a free port."""
    program = [str(GATED_SERVER)] if gated else ["-m", "tgi_llama"]
    return running(
        [sys.executable, *program, "--hostname", "127.0.0.1", "--port", "0", *options],
        environment=environment,
        listening=r"listening on 127\.0\.0\.1:(\d+)",
    )
