"""What a schema costs: chats with and without one, on tgi_llama and on llama-server.

    python tests/benchmarks/structured_output.py MODEL.gguf LLAMA_SERVER

Starts both servers as ``compare_servers.py`` does. A round is four measurements by ``tgi-llama
bench``, one after the other: ours without and with the schema, theirs with and without it. Printed
are the medians of the rounds' ratios, with the smallest and the largest.

Then tgi_llama alone: the same free chats undisturbed, and while another client sends schemas and
patterns that are meant to take long to compile, one after the other.
"""

import itertools
import json
import signal
import statistics
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
import click
from compare_servers import Setting, free_port, our_command, serving, their_command

from tgi_llama.cli import run

_PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 24},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "city": {"type": "string", "maxLength": 24},
        "is_member": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 3},
    },
    "required": ["name", "age", "city", "is_member", "tags"],
    "additionalProperties": False,
}
SCHEMA = {
    "type": "object",
    "properties": {
        "people": {"type": "array", "items": _PERSON, "minItems": 20, "maxItems": 40},
    },
    "required": ["people"],
    "additionalProperties": False,
}
"""Longer than what is generated, so that every answer has the same number of tokens."""

_NUMBERS = itertools.count()

RESPONSE_FORMAT = {
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "people", "strict": True, "schema": SCHEMA},
    }
}


def hostile_bodies(number: int) -> list[bytes]:
    """Bodies for chats whose grammars are large or slow to compile; each is to be answered within
    two seconds, whatever the answer is. Those of another number are new to the server."""
    word = f"x{number}"
    megabyte = {
        "type": "object",
        "properties": {
            f"{word}_property_{n}": {"type": "string", "maxLength": n} for n in range(22_000)
        },
    }
    patterns = [
        "(a{1,1000}){1,1000}",
        "(.*a){50}",
        "((a|b)*c){200}(x|y|z){1,500}",
        r"\p{L}{1,5000}",
    ]
    formats: list[object] = [
        {"type": "json_schema", "json_schema": {"name": "large", "schema": megabyte}},
        *({"type": "regex", "value": word + pattern} for pattern in patterns),
        {"type": "json_schema", "json_schema": {"name": "wide", "schema": _wide_schema(word)}},
    ]
    return [
        json.dumps(
            {
                "model": "tgi",
                "messages": [{"role": "user", "content": "Hello"}],
                "max_tokens": 4,
                "response_format": each,
            }
        ).encode()
        for each in formats
    ]


def _wide_schema(word: str) -> object:
    """Close to the largest that is accepted."""
    return {
        "type": "object",
        "properties": {f"{word}_{n}": {"type": "string", "maxLength": n} for n in range(1000)},
    }


@attrs.frozen
class Figures:
    """Of one measurement."""

    tokens_per_s: float
    ttft_p50_s: float
    inter_token_p99_s: float


def measure(port: int, *, clients: int, turns: int, schema: bool, seed: str) -> Figures:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "results.json"
        arguments = [
            "bench", f"http://127.0.0.1:{port}", "--workload", "chat", "--plain",
            "--clients", str(clients), "--turns", str(turns), "--tokens", "96",
            "--seed", seed, "--json", str(file), "--no-samples",
        ]  # fmt: skip
        if schema:
            arguments += ["--body", json.dumps(RESPONSE_FORMAT)]
        if run(arguments, serve=lambda _config: None) != 0:
            raise click.ClickException("the measurement failed")
        summary = json.loads(file.read_text())["points"][0]["servers"][0]["summary"]
    if summary["failures"]:
        raise click.ClickException(f"requests failed: {summary['examples']}")
    row = summary["rows"][0]
    return Figures(summary["generated_per_s"], row["ttft_s"]["p50"], row["inter_token_s"]["p99"])


def print_ratios(name: str, upper: Sequence[Figures], lower: Sequence[Figures]) -> None:
    for field in attrs.fields(Figures):
        ratios = [
            getattr(one, field.name) / getattr(other, field.name)
            for one, other in zip(upper, lower, strict=True)
        ]
        median = statistics.median(ratios)
        click.echo(f"{name}: {field.name} {median:.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


def post(port: int, body: bytes) -> tuple[int, float]:
    """The status of the answer and how many seconds it took."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        data=body,
        headers={"content-type": "application/json"},
    )
    started = time.perf_counter()
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()
            status = answer.status
    except urllib.error.HTTPError as error:
        error.read()
        status = error.code
    return status, time.perf_counter() - started


def disturbed(port: int, calm: Callable[[], Figures]) -> Figures:
    """What ``calm`` measures while hostile requests come one after the other."""
    answers: list[list[tuple[int, float]]] = []
    is_over = threading.Event()

    def disturb() -> None:
        while not is_over.is_set():
            number = next(_NUMBERS)
            answers.append([post(port, body) for body in hostile_bodies(number)])

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        figures = calm()
    finally:
        is_over.set()
        thread.join()
    for same in zip(*answers, strict=True):
        statuses = sorted({status for status, _ in same})
        longest = max(seconds for _, seconds in same)
        click.echo(f"hostile: {len(same)} times {statuses}, at most {longest:.2f} s")
    return figures


@click.command(help=__doc__)
@click.argument("model", type=click.Path(exists=True, dir_okay=False))
@click.argument("llama_server", type=click.Path(exists=True, dir_okay=False))
@click.option("--rounds", type=int, default=4, show_default=True)
@click.option("--clients", type=int, default=8, show_default=True)
@click.option("--turns", type=int, default=2, show_default=True)
@click.option("--threads", type=int, default=2, show_default=True)
def main(
    *, model: str, llama_server: str, rounds: int, clients: int, turns: int, threads: int
) -> None:
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    # A slot more, so that those who disturb wait for nobody.
    setting = Setting(model=model, slots=clients + 1, context=1024, threads=threads)
    ours, theirs = free_port(), free_port()

    def chats(port: int, number: int, *, schema: bool) -> Figures:
        return measure(
            port, clients=clients, turns=turns, schema=schema, seed=f"{port} {number} {schema}"
        )

    columns: dict[str, list[Figures]] = {
        name: [] for name in ("free", "schema", "peer", "peer free")
    }
    calm, hostile = [], []
    with (
        serving(our_command(setting, ours), ours),
        serving(their_command(setting, theirs, llama_server), theirs),
    ):
        for number in range(rounds):
            columns["free"].append(chats(ours, number, schema=False))
            columns["schema"].append(chats(ours, number, schema=True))
            columns["peer"].append(chats(theirs, number, schema=True))
            columns["peer free"].append(chats(theirs, number, schema=False))
        for number in range(rounds, 2 * rounds):
            calm.append(chats(ours, number, schema=False))
            hostile.append(disturbed(ours, lambda n=number: chats(ours, -n, schema=False)))
    print_ratios("schema to free", columns["schema"], columns["free"])
    print_ratios("schema to llama-server's schema", columns["schema"], columns["peer"])
    print_ratios("free to llama-server's free", columns["free"], columns["peer free"])
    print_ratios("llama-server's schema to free", columns["peer"], columns["peer free"])
    print_ratios("disturbed by hostile grammars to undisturbed", hostile, calm)


if __name__ == "__main__":
    main()
