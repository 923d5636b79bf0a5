"""What a step costs in each KV layout: llama.cpp alone, through our context, without scheduling.

    python tests/benchmarks/kv_layouts.py MODEL.gguf

For each number of sequences and cells a sequence: one token for every sequence; and chunks of a
prompt beside six of them, at the prompt's start and behind 700 tokens. Medians, the layouts in
turn. ``shared`` sequences have all their cells but 64 in common.
"""

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import click
import numpy as np

from tgi_llama.config import Config
from tgi_llama.engine.kv_cache import plan_kv
from tgi_llama.engine.model_runner import Batch, Run, SlotId
from tgi_llama.llama.backend import start_backend
from tgi_llama.llama.model import Model
from tgi_llama.llama.runner import LlamaRunner, open_runner

LAYOUTS = ("streams", "unified")
N_OWN = 64
N_RUNNING = 6


@attrs.define
class Bench:
    """Slots that grow by random tokens."""

    runner: LlamaRunner
    rng: np.random.Generator = attrs.field(factory=lambda: np.random.default_rng(0))

    def decode(self, *parts: tuple[int, int]) -> float:
        """Computes so many tokens in each slot; seconds."""
        runs = tuple(
            Run(SlotId(slot), self.runner.length(SlotId(slot)), n, n_outputs=1) for slot, n in parts
        )
        n_tokens = sum(run.n_tokens for run in runs)
        tokens = self.rng.integers(100, 1000, n_tokens).astype(np.int32)
        started = time.perf_counter()
        self.runner.decode(Batch(tokens, runs))
        return time.perf_counter() - started

    def fill(self, slot: int, n_tokens: int) -> None:
        self.runner.clear(SlotId(slot))
        for done in range(0, n_tokens, 256):
            self.decode((slot, min(256, n_tokens - done)))

    def clear(self) -> None:
        for slot in range(self.runner.n_slots):
            self.runner.clear(SlotId(slot))

    def step(self, n_sequences: int, chunk: tuple[int, int] | None = None, *, n: int = 9) -> float:
        """Median of ``n`` steps, the first not counted."""
        parts = [(slot, 1) for slot in range(n_sequences)]
        if chunk is not None:
            parts.append(chunk)
        return statistics.median([self.decode(*parts) for _ in range(n + 1)][1:])


@contextmanager
def opened(model: Path, layout: str, *, slots: int, cells: int, threads: int) -> Iterator[Bench]:
    config = Config(
        n_threads=threads,
        max_batch_size=slots,
        max_total_tokens=cells,
        max_input_tokens=cells - 1,
        kv_layout=layout,
    )
    plan = plan_kv(layout=layout, n_slots=slots, cells_per_sequence=cells, n_cells=slots * cells)
    log = start_backend("disabled")
    with (
        Model(model, config, log, lambda _fraction: True) as loaded,
        open_runner(loaded, config, plan=plan, log=log) as runner,
    ):
        yield Bench(runner)


def decoding(bench: Bench, n_sequences: int, n_cells: int, *, shared: bool) -> float:
    bench.clear()
    if shared:
        bench.fill(0, n_cells - N_OWN)
        for slot in range(1, n_sequences):
            bench.runner.copy(SlotId(0), SlotId(slot), n_cells - N_OWN)
        bench.decode(*((slot, 16) for slot in range(n_sequences)))
    else:
        for slot in range(n_sequences):
            bench.fill(slot, n_cells)
    return bench.step(n_sequences)


def beside(bench: Bench, chunk: int, start: int) -> float:
    bench.clear()
    for slot in range(N_RUNNING):
        bench.fill(slot, 200)
    bench.fill(N_RUNNING, start)
    return bench.step(N_RUNNING, (N_RUNNING, chunk), n=3)


def leaping(bench: Bench, n_sequences: int, n_leapt: int) -> float:
    """A step in which the last sequence computes so many tokens more, the least of several."""
    bench.clear()
    for slot in range(n_sequences):
        bench.fill(slot, 64)
    parts = [(slot, 1) for slot in range(n_sequences - 1)] + [(n_sequences - 1, 1 + n_leapt)]
    return min([bench.decode(*parts) for _ in range(13)][1:])


def print_leaps(benches: tuple[Bench, ...]) -> None:
    for n_sequences in (2, 8):
        bases = [leaping(bench, n_sequences, 0) for bench in benches]
        for n_leapt in (0, 2, 4, 8, 12, 16, 24):
            times = [leaping(bench, n_sequences, n_leapt) for bench in benches]
            more = [time - base for time, base in zip(times, bases, strict=True)]
            name = f"{n_sequences}, one with {n_leapt} tokens more"
            shown = times if n_leapt == 0 else more
            click.echo(f"{name:34}" + "".join(f"{each * 1e3:8.1f}ms" for each in shown))


@click.command(help=__doc__)
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--threads", type=int, default=2, show_default=True)
@click.option("--leaps", is_flag=True, help="What forced tokens add to a step, instead.")
def main(model: Path, threads: int, leaps: bool) -> None:
    with (
        opened(model, "streams", slots=16, cells=1024, threads=threads) as streams,
        opened(model, "unified", slots=16, cells=1024, threads=threads) as unified,
    ):
        benches = (streams, unified)
        click.echo(f"{'':34}{'streams':>10}{'unified':>10}")
        if leaps:
            print_leaps(benches)
            return
        for n_sequences, n_cells in ((1, 128), (8, 128), (16, 128), (8, 900), (16, 900)):
            for shared in (False, True) if n_cells > 128 else (False,):
                times = [decoding(each, n_sequences, n_cells, shared=shared) for each in benches]
                name = f"{n_sequences} x {n_cells} cells{', shared' if shared else ''}"
                click.echo(f"{name:34}" + "".join(f"{each * 1e3:8.1f}ms" for each in times))
        for start in (0, 700):
            for chunk in (16, 32, 64, 128):
                times = [beside(each, chunk, start) for each in benches]
                name = f"{N_RUNNING} + a chunk of {chunk} at {start}"
                click.echo(f"{name:34}" + "".join(f"{each * 1e3:8.1f}ms" for each in times))


if __name__ == "__main__":
    main()
