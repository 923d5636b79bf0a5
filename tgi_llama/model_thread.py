"""The body of the decode thread: the model is opened, used and reported there."""

import contextlib
import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

import attrs

from tgi_llama.config import Config
from tgi_llama.engine.assembly import EngineOptions, make_loop
from tgi_llama.engine.commands import CommandQueue, Publish
from tgi_llama.engine.engine import LoadedCallback
from tgi_llama.engine.kv_cache import KvPlan
from tgi_llama.generation import ModelDescription
from tgi_llama.host_memory import available_bytes
from tgi_llama.llama.backend import start_backend
from tgi_llama.llama.context_params import kv_plan
from tgi_llama.llama.grammar_vocab import GrammarVocabulary, read_grammar_vocabulary
from tgi_llama.llama.model import Model
from tgi_llama.llama.runner import LlamaRunner, open_runner
from tgi_llama.llama.start_plan import plan_start
from tgi_llama.llama.vocab import Vocab
from tgi_llama.models.files import ModelFiles

_log = logging.getLogger(__name__)

_PROGRESS_S = 1.0
"""Seconds between two words about a load that takes longer."""


@attrs.define(eq=False)
class ModelThread:
    """The decode thread's body: opens the model, reports it, then runs the decode loop.

    The model is left to ``resources``, which its owner closes after everything that uses the
    vocabulary has ended; the context is closed here, by the thread that made it.
    """

    config: Config
    files: ModelFiles
    resources: contextlib.ExitStack
    adapters: Sequence[Path] = ()
    """Files of LoRA adapters that are to be loaded, which need memory as well."""
    plan: KvPlan = attrs.field(init=False)
    """The one that the options ask for."""
    model: Model = attrs.field(init=False)
    vocab: Vocab = attrs.field(init=False)
    description: ModelDescription = attrs.field(init=False)
    cache_ram_bytes: int = attrs.field(init=False)
    """The host cache's limit."""
    grammar_vocabulary: "Future[GrammarVocabulary] | None" = attrs.field(default=None, init=False)
    """Read on a thread of its own while the context is made, which computes without Python."""
    _runner: LlamaRunner | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.plan = kv_plan(self.config)

    def abort(self) -> None:
        """Cuts the running decode short, for the end. Any thread."""
        runner = self._runner  # the decode thread may set it to None at any moment
        if runner is not None:
            runner.abort()

    def __call__(self, commands: CommandQueue, publish: Publish, loaded: LoadedCallback) -> None:
        log = start_backend(self.config.numa)
        started = perf_counter()
        start = plan_start(self.files.gguf, self.config, self.plan, log, adapters=self.adapters)
        self.cache_ram_bytes = start.cache_ram_bytes
        progress = _Progress(commands)
        self.model = Model(self.files.gguf, self.config, log, progress, offload=start.offload)
        self.resources.enter_context(self.model)
        self.vocab = Vocab(self.model.vocab_pointer)
        if not self.config.disable_grammar_support:
            # Left before the model is: the thread has read the vocabulary when it is freed.
            reader = self.resources.enter_context(ThreadPoolExecutor(1, "grammar-vocabulary"))
            self.grammar_vocabulary = reader.submit(read_grammar_vocabulary, self.vocab)
        with open_runner(self.model, self.config, plan=self.plan, log=log) as runner:
            self.description = runner.description
            self._runner = runner
            _log.info("loaded in %.1f s", perf_counter() - started)
            loop = make_loop(
                runner,
                self.vocab,
                runner.plan,
                _engine_options(self.config, cache_ram_bytes=self.cache_ram_bytes),
                commands=commands,
                publish=publish,
            )
            loaded()
            try:
                loop.run()
            finally:
                self._runner = None


@attrs.define(eq=False)
class _Progress:
    """Logs how much of a large file is loaded, and gives up when a command (a stop) waits."""

    commands: CommandQueue
    _next: float = attrs.field(factory=lambda: perf_counter() + _PROGRESS_S, init=False)

    def __call__(self, fraction: float) -> bool:
        now = perf_counter()
        if now >= self._next:
            _log.info("loading the model: %d %%", fraction * 100)
            self._next = now + _PROGRESS_S
        return self.commands.empty()


def _engine_options(config: Config, *, cache_ram_bytes: int) -> EngineOptions:
    target_ms = config.target_inter_token_latency
    return EngineOptions(
        max_prefill_tokens=config.max_batch_prefill_tokens,
        target_s=target_ms / 1e3 if target_ms > 0 else None,
        cache_ram_bytes=cache_ram_bytes,
        prefix_cache=config.prefix_cache,
        free_bytes=available_bytes,
    )
