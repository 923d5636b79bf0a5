"""Compares tgi_llama with llama-server on one model, for the workloads of ``tgi-llama bench``.

    python tests/benchmarks/compare_servers.py MODEL.gguf LLAMA_SERVER own-prompts bully

Starts both servers on loopback with the same slots, context and threads, and has
``tgi-llama bench`` measure them in turn; A is tgi_llama, B llama-server. Then it prints what a step
took inside tgi_llama, over all that was measured.
"""

import contextlib
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import click

from tgi_llama.bench.workloads import WORKLOADS
from tgi_llama.cli import run

STEP_METRICS = ("tgi_llama_step_python_seconds", "tgi_llama_step_decode_seconds")
PATIENCE_S = 180
"""For a server to load its model."""


@attrs.frozen(kw_only=True)
class Setting:
    """What both servers have in common."""

    model: str
    slots: int
    context: int
    """Tokens per slot."""
    threads: int


def our_command(setting: Setting, port: int) -> list[str]:
    return [
        sys.executable, "-m", "tgi_llama", "--model-gguf", setting.model,
        "--hostname", "127.0.0.1", "--port", str(port),
        "--max-batch-size", str(setting.slots), "--max-total-tokens", str(setting.context),
        "--max-input-tokens", str(setting.context - 1), "--n-threads", str(setting.threads),
        # llama-server queues what comes; so must we where 200 clients come at once.
        "--max-concurrent-requests", "1000",
    ]  # fmt: skip


def their_command(setting: Setting, port: int, llama_server: str) -> list[str]:
    return [
        llama_server, "-m", setting.model, "--host", "127.0.0.1", "--port", str(port),
        "-np", str(setting.slots), "-c", str(setting.slots * setting.context),
        "-t", str(setting.threads), "-b", "2048", "-ub", "512", "--no-webui",
    ]  # fmt: skip


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def fetch(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        content: bytes = answer.read()
        return content.decode()


@contextlib.contextmanager
def serving(command: Sequence[str], port: int) -> Iterator[None]:
    """The server, once it is healthy; ended in the end."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_healthy(process, port)
        yield
    finally:
        process.terminate()
        process.wait()


def wait_healthy(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline:
        # 503 while the model loads.
        with contextlib.suppress(OSError, urllib.error.HTTPError):
            fetch(port, "/health")
            return
        time.sleep(0.2)
    raise click.ClickException(f"did not start: {shlex.join(map(str, process.args))}")  # type: ignore[arg-type]


def step_times(port: int) -> dict[str, tuple[float, float]]:
    """Sum and count of our step metrics."""
    page = fetch(port, "/metrics")

    def value(name: str) -> float:
        found = re.search(rf"^{name} (\S+)$", page, re.MULTILINE)
        return float(found[1]) if found else 0.0

    return {name: (value(f"{name}_sum"), value(f"{name}_count")) for name in STEP_METRICS}


def report_steps(
    before: dict[str, tuple[float, float]], after: dict[str, tuple[float, float]]
) -> None:
    for name in STEP_METRICS:
        (sum_before, n_before), (sum_after, n_after) = before[name], after[name]
        if n_after > n_before:
            mean = (sum_after - sum_before) / (n_after - n_before)
            click.echo(f"{name}: {mean * 1e3:.3f} ms a step (mean of {n_after - n_before:.0f})")


def bench(
    workload: str, ports: tuple[int, int], rounds: int, streams: str, out: Path | None,
    options: str,
) -> int:  # fmt: skip
    ours, theirs = (f"http://127.0.0.1:{port}" for port in ports)
    arguments = [
        "bench",
        ours,
        "--compare",
        theirs,
        "--workload",
        workload,
        "--rounds",
        str(rounds),
    ]
    if workload == "own-prompts":
        arguments += ["--clients", streams]
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        arguments += ["--json", str(out / f"{workload}.json")]
    before = step_times(ports[0])
    status = run([*arguments, *shlex.split(options)], serve=lambda _config: None)
    report_steps(before, step_times(ports[0]))
    return status


@click.command(help=__doc__)
@click.argument("model", type=click.Path(exists=True, dir_okay=False))
@click.argument("llama_server", type=click.Path(exists=True, dir_okay=False))
@click.argument("workloads", nargs=-1, type=click.Choice(list(WORKLOADS)))
@click.option("--streams", default="1,8,16", show_default=True, help="Clients of own-prompts.")
@click.option("--rounds", type=int, default=6, show_default=True)
@click.option("--slots", type=int, default=16, show_default=True)
@click.option("--context", type=int, default=1024, show_default=True, help="Tokens per slot.")
@click.option("--threads", type=int, default=2, show_default=True)
@click.option("--ours-args", default="", help="More options for tgi_llama, in one text.")
@click.option("--theirs-args", default="", help="More options for llama-server.")
@click.option("--bench-args", default="", help="More options for tgi-llama bench.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="For JSON results.")
def main(
    *,
    model: str,
    llama_server: str,
    workloads: tuple[str, ...],
    streams: str,
    rounds: int,
    slots: int,
    context: int,
    threads: int,
    ours_args: str,
    theirs_args: str,
    bench_args: str,
    out: Path | None,
) -> None:
    # The default would end this process and leave its servers.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    setting = Setting(model=model, slots=slots, context=context, threads=threads)
    ports = free_port(), free_port()
    ours = [*our_command(setting, ports[0]), *shlex.split(ours_args)]
    theirs = [*their_command(setting, ports[1], llama_server), *shlex.split(theirs_args)]
    with serving(ours, ports[0]), serving(theirs, ports[1]):
        statuses = [
            bench(workload, ports, rounds, streams, out, bench_args)
            for workload in workloads or ("own-prompts",)
        ]
    sys.exit(max(statuses))


if __name__ == "__main__":
    main()
