"""The largest steps that traffic can ask for, done once before there is any.

Some memory is allocated by the first decode that needs it: the rows of logits, a GPU's working
memory. If it runs out, it should run out here, where the message can say what to lower. The weights
are read from disk by the way.
"""

import logging
from collections.abc import Callable
from time import perf_counter
from typing import Protocol

import attrs
import numpy as np

from tgi_llama.engine.model_runner import Batch, Run, SlotId
from tgi_llama.errors import DecodeError, OutOfCells, StartError

_log = logging.getLogger(__name__)

_PROBE_TOKENS = 32
"""A prompt from whose duration that of a large one can be told."""

_MAX_PROBES = 2
"""The first one is slower than it should be where it loads code onto a GPU or reads weights."""

_LARGEST_S = 3.0
"""Most that the largest batch may take. On CPUs with a large model it takes longer, and is made
smaller: there nearly all memory is allocated when the context is made, whatever the batch."""

_TOKEN = 0
"""Any token will do: time and memory do not depend on it."""


class Decoder(Protocol):
    """What is warmed up: a context. See ``ModelRunner`` for the contract."""

    def decode(self, batch: Batch) -> None: ...

    def clear(self, slot: SlotId) -> None: ...


@attrs.frozen(kw_only=True)
class Limits:
    """What steps are limited to."""

    n_slots: int
    cells_per_slot: int
    max_batch_tokens: int
    max_outputs: int


def warm_up(decoder: Decoder, limits: Limits, *, clock: Callable[[], float] = perf_counter) -> None:
    """Decodes one token in every slot, then the longest prompts with the most outputs, and frees
    all cells. Decode thread.

    Raises StartError naming the options to lower where a decode fails.
    """
    started = clock()
    _decode(decoder, _one_each(limits), "--max-batch-size, --max-batch-total-tokens")
    n_largest = _largest_affordable(decoder, limits, clock)
    _decode(
        decoder,
        _prompts(n_largest, limits),
        "--max-physical-batch-total-tokens, --max-batch-size",
    )
    _log.info(
        "warmed up in %.1f s: a token in each of %d slots, a batch of %d tokens of %d",
        *(clock() - started, limits.n_slots, n_largest, limits.max_batch_tokens),
    )


def _largest_affordable(decoder: Decoder, limits: Limits, clock: Callable[[], float]) -> int:
    """Tokens of the largest batch that is decoded in ``_LARGEST_S``, but enough of them for the
    most outputs there can be."""
    n_probe = min(_PROBE_TOKENS, limits.max_batch_tokens)
    n_affordable = 0
    for _ in range(_MAX_PROBES):
        before = clock()
        _decode(decoder, _prompts(n_probe, limits), "--max-physical-batch-total-tokens")
        token_s = (clock() - before) / n_probe
        n_affordable = max(n_affordable, int(_LARGEST_S / max(token_s, 1e-9)))
        if n_affordable >= limits.max_batch_tokens:
            break
    return min(limits.max_batch_tokens, max(n_affordable, n_probe, limits.max_outputs))


def _one_each(limits: Limits) -> Batch:
    """One token with its output in every slot."""
    runs = tuple(Run(SlotId(slot), 0, 1, n_outputs=1) for slot in range(limits.n_slots))
    return Batch(np.full(len(runs), _TOKEN, dtype=np.int32), runs)


def _prompts(n_tokens: int, limits: Limits) -> Batch:
    """A prompt of so many tokens, in as few slots as hold it, with the most outputs there can
    be."""
    n_left, n_outputs = n_tokens, limits.max_outputs
    runs: list[Run] = []
    while n_left:
        n_run = min(n_left, limits.cells_per_slot)
        runs.append(Run(SlotId(len(runs)), 0, n_run, n_outputs=min(n_run, n_outputs)))
        n_left -= n_run
        n_outputs -= runs[-1].n_outputs
    return Batch(np.full(n_tokens, _TOKEN, dtype=np.int32), tuple(runs))


def _decode(decoder: Decoder, batch: Batch, options: str) -> None:
    """Decodes and frees the cells. StartError naming the options where that fails."""
    try:
        decoder.decode(batch)
    except DecodeError as error:
        if isinstance(error, OutOfCells):
            options = "--max-physical-batch-total-tokens, or raise --max-batch-total-tokens"
        raise StartError(
            f"decoding a batch of {batch.tokens.shape[0]} tokens, slots in use: {len(batch.runs)},"
            f" failed at start: {error}. Lower {options}"
        ) from error
    for run in batch.runs:
        decoder.clear(run.slot)
