"""Whether the server's memory stays flat: resident memory after 0, 100, 1000, ... short requests.

    python tests/benchmarks/memory.py --requests 10000
    python tests/benchmarks/memory.py --requests 10000 --cache-ram 64MiB
    python tests/benchmarks/memory.py --model MODEL.gguf --llama-server LLAMA_SERVER

Starts our server on loopback, by default with the built-in model, and sends it short completions
from a few clients: streamed and whole ones in turn, some on connections of their own, some left by
the client in the middle. With ``--llama-server`` the same load goes to that one as well. With
``--cache-ram`` the prompts are longer and all begin in their own way, so that each leaves a state
in host memory until that is full; the states' bytes are shown too. Stops sending after
``--seconds``.
"""

import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import click
import trio

sys.path.insert(0, str(Path(__file__).parent))

from compare_servers import free_port, serving

import tgi_llama

N_NUMBERS = 12
"""In a prompt that is kept: about 60 tokens."""

N_WARM = 20
"""Requests before the first figure: code and buffers that are there from then on."""


@attrs.frozen
class Peer:
    name: str
    port: int


@attrs.define
class Load:
    """Requests that are still to be sent, shared by the clients."""

    n_left: int
    deadline: float
    are_kept: bool = False
    """The prompts are long enough for the host cache, and no two begin alike."""
    n_sent: int = 0

    def next(self) -> int | None:
        if self.n_left == 0 or time.monotonic() > self.deadline:
            return None
        self.n_left -= 1
        self.n_sent += 1
        return self.n_sent


def body(number: int, *, is_kept: bool) -> bytes:
    prompt = f"{number}, {number + 1},"
    if is_kept:
        prompt = ", ".join(str(number * factor % 9973) for factor in range(1, N_NUMBERS + 1))
    payload = {
        "prompt": prompt,
        "max_tokens": 4,
        "temperature": 0,
        "stream": number % 2 == 0,
    }
    return json.dumps(payload).encode()


async def one_request(stream: trio.SocketStream, payload: bytes, *, leave: bool = False) -> bool:
    """Sends the request and reads the answer to its end, or only its first bytes. False where the
    server had closed the connection."""
    head = (
        "POST /v1/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(payload)}\r\n\r\n"
    )
    received = b""
    try:
        await stream.send_all(head.encode() + payload)
        while not _is_whole(received):
            data = await stream.receive_some()
            received += data
            if leave or not data:
                break
    except trio.BrokenResourceError:
        return False
    if received and not leave and not (received.startswith(b"HTTP/1.1 200") and data):
        raise click.ClickException(f"not answered: {received!r}")
    return bool(received)


def _is_whole(received: bytes) -> bool:
    head, found, rest = received.partition(b"\r\n\r\n")
    if not found:
        return False
    length = re.search(rb"content-length: (\d+)", head.lower())
    return len(rest) >= int(length[1]) if length else rest.endswith(b"0\r\n\r\n")


async def client(port: int, load: Load) -> None:
    """Every seventh request closes its connection, every eleventh is left in the middle."""
    number = load.next()
    while number is not None:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            while number is not None:
                is_left = number % 11 == 0
                payload = body(number, is_kept=load.are_kept)
                if not await one_request(stream, payload, leave=is_left):
                    break  # asked again on a connection of its own
                is_last = is_left or number % 7 == 0
                number = load.next()
                if is_last:
                    break


async def send(peer: Peer, load: Load, n_clients: int) -> int:
    async with trio.open_nursery() as nursery:
        for _ in range(n_clients):
            nursery.start_soon(client, peer.port, load)
    return load.n_sent


def resident_mib() -> float:
    """Of the server, which is this process's only child."""
    lists = [path.read_text() for path in Path("/proc/self/task").glob("*/children")]
    (pid,) = " ".join(lists).split()
    status = Path(f"/proc/{pid}/status").read_text()
    size = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    assert size is not None
    return int(size[1]) / 1024


def stages(n_requests: int) -> Iterator[int]:
    """0, 100, 300, 1000, 3000, ... and the number itself."""
    yield 0
    stage, factor = 100, 3
    while stage < n_requests:
        yield stage
        stage = stage * factor if factor == 3 else stage // 3 * 10
        factor = 13 - factor
    yield n_requests


async def host_cache_mib(port: int) -> float | None:
    """What saved states take; None where the server does not tell."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
        received = b"".join([data async for data in stream])
    found = re.search(rb"^tgi_llama_prefix_cache_host_bytes (\S+)", received, re.MULTILINE)
    return float(found[1]) / 2**20 if found else None


async def watch(
    peer: Peer, n_requests: int, n_clients: int, seconds: float, *, are_kept: bool
) -> None:
    deadline = time.monotonic() + seconds
    await send(peer, Load(N_WARM, deadline), n_clients)
    load = Load(0, deadline, are_kept=are_kept)
    for stage in stages(n_requests):
        load.n_left = stage - load.n_sent
        n_sent = await send(peer, load, n_clients)
        line = f"{peer.name:>12} after {n_sent:6d} requests: {resident_mib():8.1f} MiB resident"
        n_kept = await host_cache_mib(peer.port) if are_kept else None
        click.echo(line if n_kept is None else f"{line}, {n_kept:6.1f} in states")
        if n_sent < stage:
            click.echo(f"{peer.name:>12} had its {seconds:.0f} s")
            return


async def run(
    model: str | None,
    llama_server: str | None,
    cache_ram: str | None,
    n_requests: int,
    n_clients: int,
    seconds: float,
) -> None:
    port = free_port()
    ours = [
        sys.executable, "-m", "tgi_llama", "--hostname", "127.0.0.1", "--port", str(port),
        "--max-batch-size", "4", "--max-total-tokens", "256", "--max-input-tokens", "255",
        "--n-threads", "1", "--n-threads-batch", "1",
        *(["--model-gguf", model] if model else []),
        *(["--cache-ram", cache_ram] if cache_ram else []),
    ]  # fmt: skip
    commands: list[tuple[str, Sequence[str], int]] = [("tgi_llama", ours, port)]
    if llama_server is not None:
        their_port = free_port()
        model = model or builtin_model()
        theirs = [
            llama_server, "-m", model, "--host", "127.0.0.1", "--port", str(their_port),
            "-np", "4", "-c", "1024", "-t", "1", "-tb", "1", "--no-webui",
        ]  # fmt: skip
        commands.append(("llama-server", theirs, their_port))
    for name, command, at in commands:
        with serving(command, at):
            peer = Peer(name, at)
            await watch(peer, n_requests, n_clients, seconds, are_kept=cache_ram is not None)


def builtin_model() -> str:
    return str(Path(tgi_llama.__file__).parent / "builtin/model/model.gguf")


@click.command(help=__doc__)
@click.option("--model", type=click.Path(exists=True, dir_okay=False))
@click.option("--llama-server", type=click.Path(exists=True, dir_okay=False))
@click.option("--cache-ram", help="As the server's option; llama-server keeps its default.")
@click.option("--requests", default=10_000, show_default=True)
@click.option("--clients", default=4, show_default=True)
@click.option("--seconds", default=300.0, show_default=True, help="For each server, at most.")
def main(
    model: str | None,
    llama_server: str | None,
    cache_ram: str | None,
    requests: int,
    clients: int,
    seconds: float,
) -> None:
    trio.run(run, model, llama_server, cache_ram, requests, clients, seconds)


if __name__ == "__main__":
    main()
