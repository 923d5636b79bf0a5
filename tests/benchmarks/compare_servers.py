"""Compares tgi_llama with llama-server on one model: ratios of medians, the two in turn.

    python tests/benchmarks/compare_servers.py MODEL.gguf LLAMA_SERVER

Starts both servers on loopback with the same slots, context and threads, and drives one after the
other with the same client: streamed completions of fresh random prompts of ``--words`` words and
``--tokens`` generated tokens, at each number of streams in a closed loop. Every round measures
both, A B, then B A, for some ten seconds each: the speed of a shared machine changes by a quarter
within minutes, so a ratio only means something between neighbours. Quoted are the medians of each
and the median of the rounds' ratios with the smallest and the largest.
"""

import contextlib
import json
import random
import re
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial

import attrs
import click
import trio

WORDS = """
time year people way day man thing woman life child world school state family student group country
problem hand part place case week company system program question work number night point home water
room mother area money story fact month lot right study book eye job word
""".split()  # noqa: SIM905  # a list of quoted words takes a page
STEP_METRICS = ("tgi_llama_step_python_seconds", "tgi_llama_step_decode_seconds")


@attrs.frozen
class Peer:
    name: str
    port: int


@attrs.frozen
class Sample:
    """One load on one server."""

    tokens_per_s: float
    ttft_s: float
    """Median time to the first token."""


@attrs.frozen
class Load:
    n_streams: int
    n_requests: int
    n_words: int
    n_tokens: int


def prompts(load: Load, seed: int) -> list[str]:
    # Fresh in every load: llama-server keeps the prompts of earlier ones in its host memory.
    rng = random.Random(f"{load.n_streams} {seed}")
    return [" ".join(rng.choices(WORDS, k=load.n_words)) for _ in range(load.n_requests)]


async def complete(port: int, prompt: str, n_tokens: int) -> tuple[float, float]:
    """One streamed completion; seconds to the first event and to the end."""
    body = json.dumps(
        {
            "prompt": prompt,
            "max_tokens": n_tokens,
            "temperature": 0,
            "stream": True,
            "ignore_eos": True,
        }
    ).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    started = time.perf_counter()
    first = None
    tail = b""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(head.encode() + body)
        async for data in stream:
            if first is None and b"data: {" in data:
                first = time.perf_counter() - started
            tail = (tail + data)[-64:]
            if b"[DONE]" in tail:
                break
    if first is None or b"[DONE]" not in tail:
        raise click.ClickException(f"port {port} did not answer with a stream: {tail!r}")
    return first, time.perf_counter() - started


async def measure(peer: Peer, load: Load, seed: int) -> Sample:
    """Runs the load: ``n_streams`` clients share the requests."""
    waiting = prompts(load, seed)
    firsts: list[float] = []

    async def client() -> None:
        while waiting:
            first, _ = await complete(peer.port, waiting.pop(), load.n_tokens)
            firsts.append(first)

    started = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(load.n_streams):
            nursery.start_soon(client)
    elapsed = time.perf_counter() - started
    return Sample(load.n_requests * load.n_tokens / elapsed, statistics.median(firsts))


async def compare(ours: Peer, theirs: Peer, load: Load, n_rounds: int) -> None:
    """Prints the medians of both and their ratios."""
    samples: dict[str, list[Sample]] = {ours.name: [], theirs.name: []}
    for number in range(n_rounds):
        order = [ours, theirs] if number % 2 == 0 else [theirs, ours]
        for peer in order:
            samples[peer.name].append(await measure(peer, load, seed=number))
    rounds = list(zip(samples[ours.name], samples[theirs.name], strict=True))
    rates = _compared([(a.tokens_per_s, b.tokens_per_s) for a, b in rounds])
    firsts = _compared([(a.ttft_s * 1e3, b.ttft_s * 1e3) for a, b in rounds])
    click.echo(f"{load.n_streams:3d} streams: tokens/s {rates}")
    click.echo(f"{load.n_streams:3d} streams: TTFT in ms {firsts}")


def _compared(pairs: Sequence[tuple[float, float]]) -> str:
    ours, theirs = (statistics.median(values) for values in zip(*pairs, strict=True))
    ratios = sorted(a / b for a, b in pairs)
    return (
        f"{ours:.1f} against {theirs:.1f}, ratio {statistics.median(ratios):.3f} "
        f"({ratios[0]:.3f} to {ratios[-1]:.3f})"
    )


async def fetch(port: int, path: str) -> str:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(f"GET {path} HTTP/1.0\r\nHost: bench\r\n\r\n".encode())
        return b"".join([data async for data in stream]).decode()


async def step_times(port: int) -> dict[str, tuple[float, float]]:
    """Sum and count of our step metrics."""
    page = await fetch(port, "/metrics")

    def value(name: str) -> float:
        found = re.search(rf"^{name} (\S+)$", page, re.MULTILINE)
        return float(found[1]) if found else 0.0

    return {name: (value(f"{name}_sum"), value(f"{name}_count")) for name in STEP_METRICS}


async def report_python_time(peer: Peer, load: Load) -> None:
    before = await step_times(peer.port)
    await measure(peer, load, seed=1000)
    after = await step_times(peer.port)
    for name in STEP_METRICS:
        n_steps = after[name][1] - before[name][1]
        per_step = (after[name][0] - before[name][0]) / n_steps
        click.echo(f"{load.n_streams:3d} streams: {name} {per_step * 1e3:.3f} ms a step (mean)")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def serving(name: str, command: Sequence[str], port: int) -> AsyncIterator[Peer]:
    """The server, once it is healthy; ended in the end."""
    process = await trio.lowlevel.open_process(
        list(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with trio.fail_after(120):
            while True:
                with contextlib.suppress(OSError):
                    if " 200" in (await fetch(port, "/health")).split("\r\n")[0]:
                        break
                if process.poll() is not None:
                    raise click.ClickException(f"{name} did not start: {' '.join(command)}")
                await trio.sleep(0.2)
        yield Peer(name, port)
    finally:
        process.terminate()
        with trio.CancelScope(shield=True):
            await process.wait()


async def run(
    model: str, llama_server: str, *, slots: int, context: int, threads: int, loads: list[Load],
    n_rounds: int,
) -> None:  # fmt: skip
    our_port, their_port = free_port(), free_port()
    ours = [
        sys.executable, "-m", "tgi_llama", "--model-gguf", model, "--hostname", "127.0.0.1",
        "--port", str(our_port), "--max-batch-size", str(slots), "--max-total-tokens", str(context),
        "--max-input-tokens", str(context - 1), "--n-threads", str(threads),
    ]  # fmt: skip
    theirs = [
        llama_server, "-m", model, "--host", "127.0.0.1", "--port", str(their_port),
        "-np", str(slots), "-c", str(slots * context), "-t", str(threads), "-b", "2048",
        "-ub", "512", "--no-webui",
    ]  # fmt: skip
    async with (
        serving("tgi_llama", ours, our_port) as our_peer,
        serving("llama-server", theirs, their_port) as their_peer,
    ):
        for peer in (our_peer, their_peer):
            await measure(peer, attrs.evolve(loads[0], n_requests=1), seed=-1)
        for load in loads:
            await compare(our_peer, their_peer, load, n_rounds)
            await report_python_time(our_peer, load)


@click.command(help=__doc__)
@click.argument("model", type=click.Path(exists=True, dir_okay=False))
@click.argument("llama_server", type=click.Path(exists=True, dir_okay=False))
@click.option("--streams", multiple=True, type=int, default=(1, 8, 16), show_default=True)
@click.option("--rounds", type=int, default=6, show_default=True)
@click.option("--waves", type=int, default=2, show_default=True, help="Requests per stream.")
@click.option("--words", type=int, default=64, show_default=True)
@click.option("--tokens", type=int, default=64, show_default=True)
@click.option("--slots", type=int, default=16, show_default=True)
@click.option("--context", type=int, default=1024, show_default=True, help="Tokens per slot.")
@click.option("--threads", type=int, default=2, show_default=True)
def main(
    model: str,
    llama_server: str,
    streams: tuple[int, ...],
    rounds: int,
    waves: int,
    words: int,
    tokens: int,
    slots: int,
    context: int,
    threads: int,
) -> None:
    loads = [Load(n, max(6, waves * n), words, tokens) for n in streams]
    trio.run(
        partial(
            run,
            model,
            llama_server,
            slots=slots,
            context=context,
            threads=threads,
            loads=loads,
            n_rounds=rounds,
        )
    )


if __name__ == "__main__":
    main()
