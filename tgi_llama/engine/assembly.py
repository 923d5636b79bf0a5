"""Puts the parts of the decode thread together, for the server and for tests."""

import logging
import sys
from collections.abc import Callable

import attrs

from tgi_llama.engine.commands import CommandQueue, Publish
from tgi_llama.engine.constrained import Grammars
from tgi_llama.engine.decode_loop import DecodeLoop
from tgi_llama.engine.host_cache import HostCache
from tgi_llama.engine.intake import Intake
from tgi_llama.engine.kv_cache import FEWEST_REUSED, KvPlan
from tgi_llama.engine.leaps import FEWEST_IN_STREAMS
from tgi_llama.engine.loaded_adapters import LoadedAdapters
from tgi_llama.engine.model_runner import ModelRunner, Vocabulary
from tgi_llama.engine.placement import Placement
from tgi_llama.engine.prefill_budget import PrefillBudget, StepBudget
from tgi_llama.engine.prefix_cache import PrefixCache
from tgi_llama.engine.scheduler import Scheduler

_log = logging.getLogger(__name__)


def _plenty() -> int:
    return sys.maxsize


@attrs.frozen(kw_only=True)
class EngineOptions:
    """What the configuration says about scheduling and caching."""

    max_prefill_tokens: int
    """Most prompt tokens in a step in which other sequences decode."""
    target_s: float | None = None
    """How long a step with prompts beside running streams may take; None: automatic."""
    cache_ram_bytes: int = 0
    """Host memory for saved cells."""
    prefix_cache: bool = True
    """Whether prompts may use cells that others computed."""
    fast_forward: bool = True
    """Whether tokens that a grammar forces are taken without choosing them."""
    free_bytes: Callable[[], int] = _plenty
    """Host memory that can be had now, for the cells of sequences that must give way."""


def make_loop(
    runner: ModelRunner,
    vocabulary: Vocabulary,
    plan: KvPlan,
    options: EngineOptions,
    *,
    commands: CommandQueue,
    publish: Publish,
    budget: StepBudget | None = None,
) -> DecodeLoop:
    """A decode loop that steps through ``commands``. Decode thread only. ``budget``: another rule
    for how much of prompts a step computes."""
    scheduler = Scheduler(
        budget=budget or PrefillBudget(options.target_s),
        adapters_budget=budget or PrefillBudget(options.target_s),
        max_batch_tokens=runner.max_batch_tokens,
        max_prefill_tokens=options.max_prefill_tokens,
        max_outputs=runner.max_outputs,
        n_beside=0 if plan.unified else 1,
        can_cut=runner.can_cut,
        fewest_leapt=1 if plan.unified else FEWEST_IN_STREAMS,
    )
    if runner.max_batch_tokens < plan.n_sequences:
        raise ValueError("a step must have room for one token of every sequence")
    if runner.max_outputs <= plan.n_sequences:
        raise ValueError("a step must have room for one output of every sequence and one more")
    cache_ram_bytes = options.cache_ram_bytes if options.prefix_cache else 0
    if options.prefix_cache and cache_ram_bytes == 0 and not runner.can_cut:
        _log.warning(
            "no host memory for saved cells (--cache-ram 0): this model's cannot be cut, so of"
            " prompts that begin alike only those are shared that go on where a slot ends"
        )
    cache = PrefixCache(
        can_cut=runner.can_cut,
        shortest_copy=runner.shortest_copy,
        fewest_reused=FEWEST_REUSED,
        host=HostCache(cache_ram_bytes),
        is_enabled=options.prefix_cache,
    )
    placement = Placement(
        runner=runner,
        plan=plan,
        scheduler=scheduler,
        cache=cache,
        ends_turn=vocabulary.is_end_of_generation,
        free_bytes=options.free_bytes,
    )
    grammars = Grammars(vocabulary, scheduler, fast_forward=options.fast_forward)
    adapters = LoadedAdapters(runner, scheduler, placement)
    intake = Intake(
        vocabulary=vocabulary,
        scheduler=scheduler,
        grammars=grammars,
        cells_per_slot=plan.cells_per_slot,
        has_adapter=adapters.has,
    )
    return DecodeLoop(
        runner=runner,
        vocabulary=vocabulary,
        scheduler=scheduler,
        placement=placement,
        grammars=grammars,
        adapters=adapters,
        intake=intake,
        commands=commands,
        publish=publish,
    )
