"""One running server for all clients, and an application over a scripted engine for failures."""

import contextlib
import gc
import os
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import trio
from fakes.engine import FakeEngine
from fakes.site import build_site

from tgi_llama.server.listener import HttpServer, bind

_OPTIONS = ("--max-batch-size", "4", "--max-input-tokens", "512", "--max-total-tokens", "768")


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """``python -m tgi_llama`` with the built-in model, without API keys."""
    with running_server() as url:
        yield url


@contextlib.contextmanager
def running_server(*options: str, **variables: str) -> Iterator[str]:
    """The address of a server that ends with the block."""
    kept = ("PATH", "HOME", "LANG", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "PYTHONPATH")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    command = [sys.executable, "-m", "tgi_llama", "--hostname", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(
        [*command, *_OPTIONS, *options],
        env=environment | {"N_THREADS": "1"} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            url = _address(process.stdout)
            reader = threading.Thread(target=process.stdout.read)  # a full pipe would stop it
            reader.start()
            yield url
        finally:
            process.terminate()
        reader.join()
    assert process.returncode == 0


def _address(output: Iterator[str]) -> str:
    """Where the server listens, which is its last word until it stops."""
    written = []
    for line in output:
        written.append(line)
        found = re.search(r"listening on (127\.0\.0\.1:\d+)", line)
        if found:
            return f"http://{found[1]}"
    raise AssertionError("".join(["the server ended:\n", *written]))


@pytest.fixture(autouse=True)
def _no_accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    """No client finds a proxy, a token or a tracing service of whoever runs the tests."""
    for name in list(os.environ):
        if name.upper().endswith("_PROXY") or name.startswith(
            ("HF_", "HUGGING", "OPENAI_", "LANGCHAIN_", "LANGSMITH_")
        ):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module", autouse=True)
def _garbage_is_collected() -> Iterator[None]:
    """What a client forgot to close is noticed while its module's warning filters are in force, and
    not in some later test."""
    yield
    gc.collect()


@contextlib.asynccontextmanager
async def _serving(engine: FakeEngine, **settings: object) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        site = await build_site(nursery, engine, **settings)  # type: ignore[arg-type]
        (address,) = await nursery.start(HttpServer(site.app, bind("127.0.0.1", 0)).run)
        yield f"http://{address.removeprefix('http://')}"
        nursery.cancel_scope.cancel()


@pytest.fixture
def failure_of() -> Callable[..., Exception]:
    """``failure_of(call, engine, **settings)``: what ``call(url)`` raises, in a thread of its own,
    when a server over this engine answers it."""

    def ask(
        call: Callable[[str], object], engine: FakeEngine | None = None, **settings: object
    ) -> Exception:
        def failure(url: str) -> Exception:
            try:
                answer = call(url)
            except Exception as error:  # the subject of the test
                return error
            raise AssertionError(f"it did not fail, it answered {answer!r}")

        async def main() -> Exception:
            async with _serving(engine or FakeEngine(), **settings) as url:
                return await trio.to_thread.run_sync(failure, url)

        return trio.run(main)

    return ask
