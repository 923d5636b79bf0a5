"""How many SSE events a second the HTTP side can send, without a model.

The real application on the real server in this process, a client in another, 16 connections of
``/generate_stream`` between them. A stub takes the place of the decode loop: it publishes one token
per stream and step, as fast as it can, but never more than ``--ahead`` steps before the oldest one
is delivered. 1 is the worst case: nothing ever waits in a channel, so each event is a write of its
own. The real decode loop does not wait for delivery at all.

    python tests/benchmarks/sse_throughput.py --seconds 5
"""

import queue
import socket
import sys
import threading
import time
from pathlib import Path

import click
import trio

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the fakes, as pytest does

from fakes.site import LIMITS, MODEL, CharacterTokenizer

from tgi_llama.admission import Admission, ValidationWorkers
from tgi_llama.engine.decode_loop import Cancel, CommandQueue, Publication, Publish, Stop, Submit
from tgi_llama.engine.engine import Engine
from tgi_llama.generation import (
    Finish,
    FinishReason,
    RequestId,
    StepReport,
    Timings,
    Token,
    TokenEvent,
    TokenId,
)
from tgi_llama.metrics import MetricLimits, Metrics
from tgi_llama.server.app import create_app
from tgi_llama.server.listener import HttpServer, bind
from tgi_llama.server.services import Services, Settings
from tgi_llama.validation.validator import Validator

N_TOKENS = 150
"""Per request: a short answer, so that starting and ending requests has its share."""


class StubLoop:
    """Stands in for ``DecodeLoop``: every request gets ``N_TOKENS`` tokens, one per step."""

    def __init__(self, n_ahead: int) -> None:
        self.n_steps = 0
        self._delivered = threading.Semaphore(n_ahead)
        self._left: dict[RequestId, int] = {}

    def note_delivered(self, _report: StepReport) -> None:
        """The engine's observer, called once per delivered step."""
        self._delivered.release()

    def __call__(self, commands: CommandQueue, publish: Publish, loaded: object) -> None:
        loaded()  # type: ignore[operator]
        while self._take_commands(commands):
            self._delivered.acquire()
            publish(Publication(events=self._step(), report=self._report()))
            self.n_steps += 1

    def _take_commands(self, commands: CommandQueue) -> bool:
        while True:
            try:
                command = commands.get(block=not self._left)
            except queue.Empty:
                return True
            if isinstance(command, Stop):
                return False
            if isinstance(command, Submit):
                self._left |= {request_id: N_TOKENS for request_id, _ in command.requests}
            if isinstance(command, Cancel):
                self._left.pop(command.request_id, None)

    def _step(self) -> tuple[tuple[RequestId, TokenEvent], ...]:
        events = tuple((request_id, _EVENTS[n]) for request_id, n in self._left.items())
        self._left = {request_id: n - 1 for request_id, n in self._left.items() if n > 1}
        return events

    def _report(self) -> StepReport:
        n = len(self._left)
        return StepReport(
            n_decode_sequences=n,
            n_prefill_sequences=0,
            n_prefill_tokens=0,
            n_generated_tokens=n,
            n_joined=0,
            n_queued=0,
            n_running=n,
            n_reserved_cells=n,
            decode_failed=False,
            device_failed=False,
            step_s=1e-3,
            decode_s=5e-4,
            sampling_s=1e-4,
            text_s=1e-4,
        )


def _event(n_left: int) -> TokenEvent:
    now = time.perf_counter()
    timings = Timings(submitted=now, started=now, first_token=now, finished=now)
    finish = Finish(reason=FinishReason.LENGTH, n_generated=N_TOKENS, timings=timings)
    token = Token(TokenId(n_left), " token", -1.2345678, False)
    return TokenEvent(token=token, delta=" token", finish=finish if n_left == 1 else None)


# Made once: the real decode thread makes its events while the GIL is not contended, inside a step.
_EVENTS = [_event(n_left) for n_left in range(N_TOKENS + 1)]


async def serve(n_connections: int, seconds: float, n_ahead: int) -> None:
    stub = StubLoop(n_ahead)
    metrics = Metrics(
        MetricLimits(max_input_tokens=100, max_total_tokens=200, n_cells=3200, n_slots=16)
    )

    def observe(report: StepReport) -> None:
        metrics.record_step(report)
        stub.note_delivered(report)

    engine = Engine(stub, observe)
    workers = ValidationWorkers(2)
    tokenizer = CharacterTokenizer()
    app = create_app(
        Services(
            settings=Settings(
                model_id="stub",
                version="0",
                limits=LIMITS,
                max_concurrent_requests=n_connections,
                validation_workers=2,
            ),
            admission=Admission(engine, workers, n_connections),
            validator=Validator(LIMITS, tokenizer),
            tokenizer=tokenizer,
            metrics=metrics,
            model=MODEL,
            is_healthy=lambda: True,
        )
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await nursery.start(workers.run)
        (address,) = await nursery.start(HttpServer(app, bind("127.0.0.1", 0)).run)
        await _run_client(address, n_connections, seconds)
        click.echo(f"{stub.n_steps} steps")
        nursery.cancel_scope.cancel()


async def _run_client(address: str, n_connections: int, seconds: float) -> None:
    command = [sys.executable, __file__, "--client", address]
    options = ["--connections", str(n_connections), "--seconds", str(seconds)]
    before = time.process_time()
    done = await trio.run_process([*command, *options], capture_stdout=True)
    used = time.process_time() - before
    rate, measured = (float(number) for number in done.stdout.split())
    click.echo(f"{rate:,.0f} events/s over {n_connections} connections in {measured:.1f} s")
    click.echo(f"{used / (rate * measured) * 1e6:.1f} us of this process's CPU per event")


def client(address: str, n_connections: int, seconds: float) -> None:
    """Reads streams with plain sockets in threads; prints the rate and the time measured."""
    host, _, port = address.rpartition(":")
    counts = [0] * n_connections
    deadline = time.monotonic() + seconds
    threads = [
        threading.Thread(target=_read_streams, args=(host, int(port), deadline, counts, index))
        for index in range(n_connections)
    ]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    measured = time.monotonic() - started
    click.echo(f"{sum(counts) / measured} {measured}")


def _read_streams(host: str, port: int, deadline: float, counts: list[int], index: int) -> None:
    body = b'{"inputs":"hello","parameters":{"max_new_tokens":%d}}' % N_TOKENS
    head = "POST /generate_stream HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
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
    return received.count(b"data: ")


@click.command(help=__doc__)
@click.option("--connections", default=16, show_default=True)
@click.option("--seconds", default=5.0, show_default=True)
@click.option("--client", "address", hidden=True, help="Run as the client of this address.")
@click.option("--ahead", default=4, show_default=True, help="Undelivered steps.")
def main(connections: int, seconds: float, address: str | None, ahead: int) -> None:
    if address is None:
        trio.run(serve, connections, seconds, ahead)
    else:
        client(address, connections, seconds)


if __name__ == "__main__":
    main()
