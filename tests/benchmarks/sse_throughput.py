"""What sending SSE events costs the HTTP side, without a model.

The real application on the real server in this process, a client in another, streams between them.
A stub takes the place of the decode loop: it publishes one token per stream and step. There are two
ways to run it.

As fast as it can, but never more than ``--ahead`` steps before the oldest one is delivered. 1 is
the worst case: nothing ever waits in a channel, so each event is a write of its own. The real
decode loop does not wait for delivery at all.

    python tests/benchmarks/sse_throughput.py --seconds 5

With ``--sweep-mib`` two threads read that much memory before each step, as a decode reads the
weights, and the Trio thread finds cold caches, as it does in the real server: an event then costs
several times as much. Quoted is the median over the steps of that thread's CPU time, so that what
starts and ends requests does not count.

    python tests/benchmarks/sse_throughput.py --sweep-mib 128 --connections 1

With ``--slots`` the other connections wait for their turn, each stream with a comment now and then:

    python tests/benchmarks/sse_throughput.py --sweep-mib 128 --connections 200 --slots 8

The last lines say how long events took from their publication to the socket.
"""

import json
import socket
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import click
import numpy as np
import trio

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the fakes, as pytest does

from fakes.site import LIMITS, MODEL, CharacterTokenizer, CharacterVocabulary, PlainTemplate
from fakes.stub_loop import StubLoop

from tgi_llama.admission import Admission, ValidationWorkers
from tgi_llama.engine.engine import Engine
from tgi_llama.generation import StepReport
from tgi_llama.metrics import MetricLimits, Metrics
from tgi_llama.server.app import create_app
from tgi_llama.server.listener import HttpServer, bind
from tgi_llama.server.services import Services, Settings
from tgi_llama.validation.validator import Validator

N_TOKENS = 150
"""Per request: a short answer, so that starting and ending requests has its share."""

BODIES = {
    "/generate_stream": {"inputs": "hello", "parameters": {"max_new_tokens": N_TOKENS}},
    "/v1/completions": {"prompt": "hello", "max_tokens": N_TOKENS, "stream": True},
    "/v1/chat/completions": {
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": N_TOKENS,
        "stream": True,
    },
}


@attrs.define(eq=False)
class Sweep:
    """Reads memory on two threads without the interpreter lock."""

    mib: int
    _halves: list[np.ndarray] = attrs.field(init=False)
    _other: ThreadPoolExecutor = attrs.field(factory=lambda: ThreadPoolExecutor(1), init=False)

    def __attrs_post_init__(self) -> None:
        self._halves = [np.ones(self.mib * 2**16) for _ in range(2)]  # 8 bytes each

    def __call__(self) -> None:
        other = self._other.submit(self._halves[1].sum)
        self._halves[0].sum()
        other.result()


@attrs.define(eq=False)
class Meter:
    """The Trio thread's CPU time between deliveries, in the interpreter and in the kernel, and how
    long deliveries took."""

    total_s: list[float] = attrs.field(factory=list)
    deliveries_s: list[float] = attrs.field(factory=list)
    _last: float = 0.0

    def note(self) -> None:
        now = time.thread_time()
        self.total_s.append(now - self._last)
        self._last = now

    def print(self, n_streams: int) -> None:
        per_step = statistics.median(self.total_s) * 1e6
        click.echo(f"{per_step:.0f} us of the Trio thread's CPU per step (median)")
        click.echo(f"{per_step / n_streams:.1f} us per event")
        self.deliveries_s.sort()
        for percent in (50, 99, 99.9, 100):
            at = min(int(len(self.deliveries_s) * percent / 100), len(self.deliveries_s) - 1)
            click.echo(f"delivered in {self.deliveries_s[at] * 1e3:.2f} ms: {percent} %")


def services(engine: Engine, workers: ValidationWorkers, metrics: Metrics, n: int) -> Services:
    tokenizer = CharacterTokenizer()
    return Services(
        settings=Settings(
            model_id="stub",
            version="0",
            limits=LIMITS,
            max_concurrent_requests=n,
            validation_workers=2,
        ),
        admission=Admission(engine, workers, n),
        validator=Validator(LIMITS, tokenizer, PlainTemplate(), vocabulary=CharacterVocabulary()),
        tokenizer=tokenizer,
        metrics=metrics,
        model=MODEL,
        is_healthy=lambda: True,
    )


async def serve(
    n_connections: int, seconds: float, n_ahead: int, sweep_mib: int, route: str, n_slots: int
) -> None:
    metrics = Metrics(
        MetricLimits(max_input_tokens=100, max_total_tokens=200, n_cells=3200, n_slots=16)
    )
    delivered = threading.Semaphore(n_ahead)
    meter = Meter()
    note = meter.note if sweep_mib else delivered.release
    pace = Sweep(sweep_mib) if sweep_mib else delivered.acquire
    stub = StubLoop(N_TOKENS, n_slots=n_slots, before_step=pace)

    def observe(report: StepReport) -> None:
        metrics.record_step(report)
        note()

    metrics.record_delivery = meter.deliveries_s.append  # type: ignore[method-assign]
    engine = Engine(stub, observe, metrics.record_delivery)
    workers = ValidationWorkers(2)
    app = create_app(services(engine, workers, metrics, n_connections))
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await nursery.start(workers.run)
        (address,) = await nursery.start(HttpServer(app, bind("127.0.0.1", 0)).run)
        await _run_client(address, n_connections, seconds, route)
        click.echo(f"{stub.n_steps} steps")
        if sweep_mib:
            meter.print(min(n_connections, n_slots))
        nursery.cancel_scope.cancel()


async def _run_client(address: str, n_connections: int, seconds: float, route: str) -> None:
    command = [sys.executable, __file__, "--client", address, "--route", route]
    options = ["--connections", str(n_connections), "--seconds", str(seconds)]
    before = time.process_time()
    done = await trio.run_process([*command, *options], capture_stdout=True)
    used = time.process_time() - before
    rate, measured = (float(number) for number in done.stdout.split())
    click.echo(f"{rate:,.0f} events/s over {n_connections} connections in {measured:.1f} s")
    click.echo(f"{used / (rate * measured) * 1e6:.1f} us of this process's CPU per event")


def client(address: str, n_connections: int, seconds: float, route: str) -> None:
    """Reads streams with plain sockets in threads; prints the rate and the time measured."""
    host, _, port = address.rpartition(":")
    counts = [0] * n_connections
    deadline = time.monotonic() + seconds
    threads = [
        threading.Thread(target=_read_streams, args=(host, int(port), route, deadline, counts, i))
        for i in range(n_connections)
    ]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    measured = time.monotonic() - started
    click.echo(f"{sum(counts) / measured} {measured}")


def _read_streams(
    host: str, port: int, route: str, deadline: float, counts: list[int], index: int
) -> None:
    body = json.dumps(BODIES[route]).encode()
    head = f"POST {route} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    with socket.create_connection((host, port)) as sock:
        while time.monotonic() < deadline:
            sock.sendall(request)
            counts[index] += _read_stream(sock)


def _read_stream(sock: socket.socket) -> int:
    """The number of events until the end of the chunked response."""
    received = bytearray()
    while not received.endswith(b"0\r\n\r\n"):
        data = sock.recv(65536)
        if not data:
            raise EOFError(bytes(received))
        received += data
    if not received.startswith(b"HTTP/1.1 200"):
        raise ValueError(bytes(received))
    return received.count(b"data: {")


@click.command(help=__doc__)
@click.option("--connections", default=16, show_default=True)
@click.option("--seconds", default=5.0, show_default=True)
@click.option("--client", "address", hidden=True, help="Run as the client of this address.")
@click.option("--ahead", default=4, show_default=True, help="Undelivered steps.")
@click.option("--sweep-mib", default=0, help="Memory that is read before each step.")
@click.option("--slots", default=16, show_default=True, help="Streams at a time.")
@click.option("--route", type=click.Choice(list(BODIES)), default="/generate_stream")
def main(
    connections: int,
    seconds: float,
    address: str | None,
    ahead: int,
    sweep_mib: int,
    slots: int,
    route: str,
) -> None:
    if address is None:
        trio.run(serve, connections, seconds, ahead, sweep_mib, route, slots)
    else:
        client(address, connections, seconds, route)


if __name__ == "__main__":
    main()
