"""What choosing one token costs, by kind of request and kind of row.

Three rows: *peaked*, as trained models give them (from nearly certain to a few dozen tokens that
compete); *spread*, normally distributed logits with a standard deviation of 3, where a nucleus of
0.95 holds 13,000 tokens; *flat*, with one of 0.1, where it holds nearly all. Times are CPU time of
the calling thread, medians; *warm* repeats a kind, *swept* clears the caches before a
step and then writes its rows, as a decode does.

Under a grammar: *all legal* allows all tokens but a twentieth that are never likely, as within a
JSON string; *nine in ten* any nine of ten, so that a choice has to be made again now and then;
*few* twelve tokens, as between two values. All these masks are known already, as they are where
they were computed while llama.cpp worked; one that was not costs its computation as well.

    python tests/benchmarks/sampling.py
    python tests/benchmarks/sampling.py --masks
"""

import ctypes
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import click
import numpy as np
from numpy.typing import NDArray

from tgi_llama.engine.guide import Guide
from tgi_llama.engine.sampler import Sampler, Scratch, likeliest, log_sum_exp
from tgi_llama.generation import SamplingParameters, TokenId

Scores = NDArray[np.float32]

N_ROWS = 8
"""Different rows, in turn: how sure a model is decides how much work top-p is."""

SWEEP_BYTES = 64 * 2**20
"""More than the caches hold."""

PENALISED = 500
"""Distinct tokens in the prompt."""

KINDS = {
    "greedy": SamplingParameters(greedy=True),
    "greedy, repetition penalty": SamplingParameters(greedy=True, repetition_penalty=1.1),
    "temperature": SamplingParameters(temperature=0.8),
    "temperature, top_p 0.95": SamplingParameters(temperature=0.8, top_p=0.95),
    "min_p 0.05": SamplingParameters(min_p=0.05),
    "temperature, top_p, min_p": SamplingParameters(temperature=0.8, top_p=0.95, min_p=0.05),
    "top_k 40": SamplingParameters(top_k=40),
    "top_k 40, top_p, min_p, temperature": SamplingParameters(
        temperature=0.8, top_k=40, top_p=0.95, min_p=0.05
    ),
    "the same, repetition penalty": SamplingParameters(
        temperature=0.8, top_k=40, top_p=0.95, min_p=0.05, repetition_penalty=1.1
    ),
    "typical_p 0.95": SamplingParameters(typical_p=0.95),
    "typical_p 0.5": SamplingParameters(typical_p=0.5),
    "watermark, temperature": SamplingParameters(temperature=0.8, watermark=True),
}


def peaked(n_vocab: int, rng: np.random.Generator) -> list[Scores]:
    """A background, and above it a few hundred tokens that fall off with their rank. From one row
    to the next the likeliest gets less of the mass."""
    rows = []
    for lead in np.linspace(6.0, 0.0, N_ROWS):
        scores = rng.standard_normal(n_vocab) * 1.5 - 2.0
        likely = rng.choice(n_vocab, min(300, n_vocab), replace=False)
        scores[likely] = 14.0 - 1.7 * np.log1p(np.arange(likely.shape[0]))
        scores[likely[0]] += lead
        rows.append(scores.astype(np.float32))
    return rows


def normal(n_vocab: int, rng: np.random.Generator, deviation: float) -> list[Scores]:
    return [(rng.standard_normal(n_vocab) * deviation).astype(np.float32) for _ in range(N_ROWS)]


def warm_ms(work: Callable[[Scores], object], rows: list[Scores], n: int) -> float:
    return median(cpu_ms(work, [rows[i % N_ROWS]]) for i in range(n))


def swept_ms(work: Callable[[Scores], object], rows: list[Scores], n: int, step: int) -> float:
    """Per token, where a step chooses ``step`` of them after the caches were cleared and the rows
    were written."""
    caches = np.zeros(SWEEP_BYTES // 8)
    written = [np.empty_like(scores) for scores in rows[:step]]
    times = []
    for i in range(n):
        caches += 1.0
        for place, scores in enumerate(written):
            scores[:] = rows[(i + place) % N_ROWS]
        times.append(cpu_ms(work, written) / step)
    return median(times)


def cpu_ms(work: Callable[[Scores], object], rows: list[Scores]) -> float:
    started = time.thread_time_ns()
    for scores in rows:
        work(scores)
    return (time.thread_time_ns() - started) / 1e6


class Masks:
    """A grammar's state whose every mask is the same."""

    is_complete = False

    def __init__(self, allowed: NDArray[np.bool_]) -> None:
        self._bits = np.zeros(-(-allowed.shape[0] // 32) * 4, dtype=np.uint8)
        packed = np.packbits(allowed, bitorder="little")
        self._bits[: packed.shape[0]] = packed

    def allows(self, token: TokenId) -> bool:
        return bool(self._bits[token >> 3] >> (token & 7) & 1)

    def fill_mask(self, address: int, n_bytes: int) -> None:
        ctypes.memmove(address, self._bits.tobytes(), n_bytes)

    def forced(self) -> tuple[TokenId, ...]:
        return ()

    def take(self, token: TokenId) -> None:
        pass


def guides(rows: list[Scores], rng: np.random.Generator) -> dict[str, Guide | None]:
    """``rows``: peaked ones."""
    n_vocab = rows[0].shape[0]
    likely = np.zeros(n_vocab, dtype=np.bool_)
    for scores in rows:
        likely[np.argsort(-scores)[:300]] = True
    few = np.zeros(n_vocab, dtype=np.bool_)
    few[rng.choice(n_vocab, 12, replace=False)] = True
    allowed = {
        "all legal": likely | (rng.random(n_vocab) < 0.95),
        "nine in ten": rng.random(n_vocab) < 0.9,
        "few": few,
    }
    found: dict[str, Guide | None] = {"no mask": None}
    for name, marks in allowed.items():
        found[name] = Guide(Masks(marks), n_vocab)
    return found


def print_masked(n_vocab: int, repeats: int) -> None:
    """Peaked rows."""
    rng = np.random.default_rng(1)
    scratch = Scratch()
    prompt = [TokenId(int(i)) for i in rng.choice(n_vocab, min(PENALISED, n_vocab), replace=False)]
    rows = peaked(n_vocab, rng)
    columns = guides(rows, rng)
    measures = ("warm", f"swept, {N_ROWS} a step")
    heads = [f"{column}, {measure}" for column in columns for measure in measures]
    click.echo(f"| ms per token | {' | '.join(heads)} |\n| --- |{' --- |' * len(heads)}")
    for kind, parameters in KINDS.items():
        cells = []
        for guide in columns.values():
            sampler = Sampler.for_prompt(parameters, prompt)
            if guide is not None:
                guide.mask()
            work = partial(sampler.choose, scratch=scratch, guide=guide)
            cells.append(f"{warm_ms(work, rows, repeats):.3f}")
            cells.append(f"{swept_ms(work, rows, repeats // 4, N_ROWS):.3f}")
        click.echo(f"| {kind} | {' | '.join(cells)} |")


@click.command()
@click.option("--n-vocab", default=151_936, show_default=True)
@click.option("--repeats", default=200, show_default=True, help="Choices per figure.")
@click.option("--masks", is_flag=True, help="Under a grammar instead.")
def main(n_vocab: int, repeats: int, masks: bool) -> None:
    """Print a table of milliseconds per token."""
    if masks:
        print_masked(n_vocab, repeats)
        return
    rng = np.random.default_rng(1)
    scratch = Scratch()
    prompt = [TokenId(int(i)) for i in rng.choice(n_vocab, min(PENALISED, n_vocab), replace=False)]
    kinds: dict[str, Callable[[Scores], object]] = {
        name: partial(Sampler.for_prompt(parameters, prompt).choose, scratch=scratch)
        for name, parameters in KINDS.items()
    }
    kinds["log-sum-exp"] = lambda scores: log_sum_exp(scores, scratch)
    kinds["5 likeliest"] = lambda scores: likeliest(scores, 5, scratch)
    rows = {
        "peaked": peaked(n_vocab, rng),
        "spread": normal(n_vocab, rng, 3.0),
        "flat": normal(n_vocab, rng, 0.1),
    }
    measures = {
        f"{name}, warm": partial(warm_ms, rows=of_kind, n=repeats) for name, of_kind in rows.items()
    }
    for step in (1, N_ROWS):
        measures[f"peaked, swept, {step} a step"] = partial(
            swept_ms, rows=rows["peaked"], n=repeats // 4, step=step
        )
    click.echo(f"| ms per token | {' | '.join(measures)} |\n| --- |{' --- |' * len(measures)}")
    for kind, work in kinds.items():
        cells = [f"{measure(work):.3f}" for measure in measures.values()]
        click.echo(f"| {kind} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
