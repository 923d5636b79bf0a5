"""A container's entrypoint, run by buildah with chroot isolation: the file system is the image's,
network and processes are this machine's."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs
import httpx
from container.image_build import Buildah

START_S = 120
STOP_S = 60
"""Limits that only a failing test reaches."""

_PYTHON = b"/opt/tgi_llama/bin/"


@attrs.define(eq=False)
class Container:
    """A container of the image, in which one program runs at a time or several."""

    buildah: Buildah
    name: str
    config: Mapping[str, object]

    @property
    def root(self) -> Path:
        """Its file system, as this machine sees it."""
        return Path(self.buildah.run("mount", self.name))

    def command(
        self,
        *words: str,
        user: str | None = None,
        volumes: Mapping[Path, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> list[str]:
        """The command line that runs the words inside, as the image's user or another."""
        options = ["--isolation", "chroot", "--user", user or str(self.config["User"])]
        options += [f"--volume={path}:{place}" for path, place in (volumes or {}).items()]
        options += [f"--env={name}={value}" for name, value in (environment or {}).items()]
        return self.buildah.command("run", *options, self.name, "--", *words)

    def run(self, *words: str, **options: object) -> "subprocess.CompletedProcess[str]":
        command = self.command(*words, **options)  # type: ignore[arg-type]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    @contextlib.contextmanager
    def serving(self, *arguments: str, port: int, **options: object) -> "Iterator[Server]":
        """The entrypoint with the arguments. Yields when ``/health`` answers 200."""
        entrypoint = self.config["Entrypoint"]
        assert isinstance(entrypoint, Sequence)
        command = self.command(*entrypoint, *arguments, **options)  # type: ignore[arg-type]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            server = Server(process, port)
            try:
                server.wait_healthy()
                yield server
            finally:
                server.kill()


@attrs.define(eq=False)
class Server:
    _process: "subprocess.Popen[str]"
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the server itself: buildah starts it by way of some of its own."""
        pid = self._process.pid
        while not Path(f"/proc/{pid}/cmdline").read_bytes().startswith(_PYTHON):
            pid = _children(pid)[0]
        return pid

    def wait_healthy(self) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                assert self._process.stdout is not None
                raise AssertionError(f"the server ended:\n{self._process.stdout.read()}")
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health").status_code == 200:
                    return
            time.sleep(0.1)  # it is in another process that tells nobody when it is ready
        raise AssertionError("the server did not become healthy")

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def stopped(self) -> tuple[int, str]:
        """The exit status and all that it wrote."""
        output, _ = self._process.communicate(timeout=STOP_S)
        return self._process.returncode, output

    def kill(self) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, IndexError):  # it has ended meanwhile
                os.kill(self.pid, signal.SIGKILL)
            self._process.communicate()


def _children(pid: int) -> list[int]:
    """Of all threads of the process: any of them may have started one."""
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in found for child in path.read_text().split()]
