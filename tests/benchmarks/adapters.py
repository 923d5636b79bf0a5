"""What LoRA adapters cost: a change, and a step with one beside a step without.

    python tests/benchmarks/adapters.py MODEL.gguf [--rank 16] [--threads 2]

The adapter has random float16 matrices for all projections of attention and feed-forward. Medians
and least values, with and without it in turn; CPU time where the machine is not idle.
"""

import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import attrs
import click
import gguf
import numpy as np

from tgi_llama.config import Config
from tgi_llama.engine.kv_cache import plan_kv
from tgi_llama.engine.model_runner import Batch, Run, SlotId
from tgi_llama.generation import AdapterId
from tgi_llama.llama.backend import start_backend
from tgi_llama.llama.model import Model
from tgi_llama.llama.runner import LlamaRunner, open_runner

ADAPTER = AdapterId(1)
CHANGED = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
N_TURNS = 5
N_STEPS = 8


def write_random_adapter(model: Path, path: Path, rank: int) -> None:
    reader = gguf.GGUFReader(model)
    writer = gguf.GGUFWriter(path, reader.fields["general.architecture"].contents())
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(rank))
    rng = np.random.default_rng(1)
    for tensor in reader.tensors:
        if tensor.name.split(".")[-2] in CHANGED and tensor.name.endswith(".weight"):
            n_columns, n_rows = (int(n) for n in tensor.shape)
            a = rng.normal(size=(rank, n_columns)) / np.sqrt(n_columns)
            b = rng.normal(size=(n_rows, rank)) / np.sqrt(rank)
            writer.add_tensor(f"{tensor.name}.lora_a", a.astype(np.float16))
            writer.add_tensor(f"{tensor.name}.lora_b", b.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@attrs.define
class Figures:
    wall_ms: list[float] = attrs.field(factory=list)
    cpu_ms: list[float] = attrs.field(factory=list)
    switch_ms: list[float] = attrs.field(factory=list)


def step(runner: LlamaRunner, n: int, adapter: AdapterId | None) -> tuple[float, float]:
    """One token in each of the first slots; milliseconds of wall and CPU time."""
    slots = [SlotId(slot) for slot in range(n)]
    runs = tuple(Run(slot, runner.length(slot), 1, n_outputs=1) for slot in slots)
    wall, cpu = time.perf_counter(), time.process_time()
    runner.decode(Batch(np.full(n, 5, np.int32), runs, adapter))
    return (time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3


def measure(runner: LlamaRunner, n: int) -> dict[AdapterId | None, Figures]:
    figures: dict[AdapterId | None, Figures] = defaultdict(Figures)
    for slot in range(runner.n_slots):
        runner.clear(SlotId(slot))
    for _ in range(N_TURNS):
        for adapter in (None, ADAPTER):
            step(runner, n, adapter)
            figures[adapter].switch_ms.append(runner.switch_s * 1e3)
            for _ in range(N_STEPS):
                wall_ms, cpu_ms = step(runner, n, adapter)
                figures[adapter].wall_ms.append(wall_ms)
                figures[adapter].cpu_ms.append(cpu_ms)
    return figures


@click.command()
@click.argument("model", type=click.Path(path_type=Path, exists=True))
@click.option("--rank", default=16)
@click.option("--threads", default=2)
def main(model: Path, rank: int, threads: int) -> None:
    config = Config(
        n_threads=threads,
        n_threads_batch=threads,
        max_batch_size=16,
        max_total_tokens=512,
        max_input_tokens=256,
    )
    plan = plan_kv(layout="streams", n_slots=16, cells_per_sequence=512, n_cells=0)
    log = start_backend("disabled")
    with (
        tempfile.TemporaryDirectory() as folder,
        Model(model, config, log, lambda _fraction: True) as loaded,
        open_runner(loaded, config, plan=plan, log=log) as runner,
    ):
        path = Path(folder) / "adapter.gguf"
        write_random_adapter(model, path, rank)
        started = time.perf_counter()
        facts = runner.load_adapter(ADAPTER, path, scale=1.0)
        seconds = time.perf_counter() - started
        click.echo(f"loaded {facts.n_bytes / 1e6:.1f} MB in {seconds * 1e3:.0f} ms")
        for n in (1, 8, 16):
            for adapter, each in measure(runner, n).items():
                click.echo(
                    f"{n:3} sequences, {'adapter' if adapter else 'model  '}:"
                    f" step {statistics.median(each.wall_ms):.1f} ms, least"
                    f" {min(each.wall_ms):.1f}, CPU {statistics.median(each.cpu_ms):.1f};"
                    f" change {statistics.median(each.switch_ms):.1f}, least"
                    f" {min(each.switch_ms[1:]):.1f}"
                )


if __name__ == "__main__":
    main()
