"""The composition root: what is built, in which order it starts, and how it stops.

Theory of operation
-------------------
``run_service`` builds everything behind the HTTP server, for both ways of starting: ``run`` (the
command line) and ``asgi.Application`` (an ASGI server's lifespan). It nests what it starts, so that
it stops in reverse: the validation workers, then the decode thread, then the model is freed.
Nothing that uses the native library outlives it.

Shutdown, from the first SIGTERM or SIGINT: new requests are refused and ``/health`` says 503; the
running ones get ``--graceful-termination-timeout``; what is left then ends with an error event and
has a few seconds to be sent; after that connections are cut. A second signal cuts at once.
"""

import contextlib
import gc
import importlib.metadata
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from time import perf_counter

import attrs
import trio
from quart_trio import QuartTrio

from tgi_llama.admission import Admission, ValidationWorkers
from tgi_llama.config import Config
from tgi_llama.engine.assembly import EngineOptions, make_loop
from tgi_llama.engine.decode_loop import CommandQueue, Publish
from tgi_llama.engine.engine import Engine, LoadedCallback
from tgi_llama.engine.kv_cache import KvPlan, plan_kv
from tgi_llama.errors import ShuttingDown
from tgi_llama.generation import ModelDescription
from tgi_llama.host_memory import available_bytes
from tgi_llama.llama.backend import start_backend
from tgi_llama.llama.grammar_vocab import GrammarVocabulary, read_grammar_vocabulary
from tgi_llama.llama.memory_needs import check_memory
from tgi_llama.llama.model import Model
from tgi_llama.llama.runner import LlamaRunner, open_runner
from tgi_llama.llama.vocab import Vocab
from tgi_llama.metrics import MetricLimits, Metrics
from tgi_llama.model_files import ModelFiles, resolve_model
from tgi_llama.server.app import create_app
from tgi_llama.server.listener import HttpServer, bind
from tgi_llama.server.metrics_app import create_metrics_app
from tgi_llama.server.services import Services, Settings
from tgi_llama.structured.limits import GrammarLimits
from tgi_llama.structured.ll_compiler import LlGrammarCompiler
from tgi_llama.structured.trial import Trial
from tgi_llama.text.chat_template import ChatTemplates
from tgi_llama.text.template_files import GgufTemplates, load_chat_template
from tgi_llama.text.tokenizer import Tokenizer, load_tokenizer
from tgi_llama.turns.detection import turn_format
from tgi_llama.validation.constraints import Constraints
from tgi_llama.validation.rules import Limits
from tgi_llama.validation.validator import Validator

_log = logging.getLogger(__name__)

_LAST_WORDS_S = 5.0
"""After the deadline: time to send the error events and to close connections in order."""

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
    plan: KvPlan
    resources: contextlib.ExitStack
    model: Model = attrs.field(init=False)
    vocab: Vocab = attrs.field(init=False)
    description: ModelDescription = attrs.field(init=False)
    cache_ram_bytes: int = attrs.field(init=False)
    """The host cache's limit."""
    grammar_vocabulary: "Future[GrammarVocabulary] | None" = attrs.field(default=None, init=False)
    """Read on a thread of its own while the context is made, which computes without Python."""
    _runner: LlamaRunner | None = attrs.field(default=None, init=False)

    def abort(self) -> None:
        """Cuts the running decode short, for the end. Any thread."""
        runner = self._runner  # the decode thread may set it to None at any moment
        if runner is not None:
            runner.abort()

    def __call__(self, commands: CommandQueue, publish: Publish, loaded: LoadedCallback) -> None:
        log = start_backend(self.config.numa)
        started = perf_counter()
        self.cache_ram_bytes = check_memory(self.files.gguf, self.config, self.plan, log)
        self.model = Model(self.files.gguf, self.config, log, _Progress(commands))
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


@attrs.frozen(kw_only=True)
class Service:
    """A running engine with its HTTP application."""

    app: QuartTrio
    admission: Admission
    engine: Engine
    metrics: Metrics
    model: ModelDescription
    abort_decode: Callable[[], None]
    """Cuts the running decode short; only while stopping."""


async def run_service(
    config: Config,
    files: ModelFiles,
    *,
    task_status: trio.TaskStatus[Service] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Keeps a service until cancelled; has started when it can answer requests.

    Raises ConfigError and StartError at the start, EngineDead later (in exception groups).
    """
    # What is wrong with these is known before the model is loaded.
    _load_templates(config, files, GgufTemplates())
    turn_format((), (), name=config.tool_format)
    plan = plan_kv(
        layout=config.kv_layout,
        n_slots=config.max_batch_size,
        cells_per_sequence=config.max_total_tokens,
        n_cells=config.max_batch_total_tokens,
    )
    metrics = Metrics(
        MetricLimits(
            max_input_tokens=config.max_input_tokens,
            max_total_tokens=config.max_total_tokens,
            n_cells=plan.n_cells,
            n_slots=plan.n_slots,
        )
    )
    with contextlib.ExitStack() as resources:
        thread = ModelThread(config, files, plan, resources)
        engine = Engine(
            thread, observe_step=metrics.record_step, observe_delivery=metrics.record_delivery
        )
        async with trio.open_nursery() as engine_nursery:
            await engine_nursery.start(engine.run)
            metrics.set_host_cache_limit(thread.cache_ram_bytes)
            metrics.set_n_slots(thread.description.n_slots)
            text = await _load_text(config, files, thread)
            grammars = await _load_grammars(config, thread, metrics, resources)
            workers = ValidationWorkers(config.validation_workers)
            compilers = ValidationWorkers(config.validation_workers)
            async with trio.open_nursery() as worker_nursery:
                await worker_nursery.start(workers.run)
                await worker_nursery.start(compilers.run)
                admission = Admission(engine, workers, config.max_concurrent_requests, compilers)
                constraints = _constraints(config, text, grammars)
                app = create_app(
                    Services(
                        settings=_settings(config, files, thread.description, constraints),
                        admission=admission,
                        validator=Validator(
                            _limits(config),
                            text.tokenizer,
                            text.templates,
                            vocabulary=thread.vocab,
                            constraints=constraints,
                        ),
                        tokenizer=text.tokenizer,
                        metrics=metrics,
                        model=thread.description,
                        is_healthy=lambda: engine.is_healthy and not admission.is_draining,
                    )
                )
                _log_start(files, thread.description)
                # What is alive now stays alive. Without this a full collection looks at all of it
                # and holds up a step for tens of milliseconds.
                gc.collect()
                gc.freeze()
                task_status.started(
                    Service(
                        app=app,
                        admission=admission,
                        engine=engine,
                        metrics=metrics,
                        model=thread.description,
                        abort_decode=thread.abort,
                    )
                )
                await trio.sleep_forever()


@attrs.frozen(kw_only=True)
class _Text:
    """How the model's texts are made and read."""

    tokenizer: Tokenizer
    templates: ChatTemplates | None
    control_spellings: Mapping[str, int]


async def _load_text(config: Config, files: ModelFiles, thread: ModelThread) -> _Text:
    """On a worker thread: a large tokenizer.json takes a second."""

    def load() -> _Text:
        vocab = thread.vocab
        tokenizer = load_tokenizer(files.tokenizer_folder, vocab, gguf=files.gguf)
        gguf = GgufTemplates(
            templates=thread.model.chat_templates(),
            bos_token=vocab.bos_text,
            eos_token=vocab.eos_text,
        )
        return _Text(
            tokenizer=tokenizer,
            templates=_load_templates(config, files, gguf),
            control_spellings=vocab.control_spellings(),
        )

    return await trio.to_thread.run_sync(load)


async def _load_grammars(
    config: Config, thread: ModelThread, metrics: Metrics, resources: contextlib.ExitStack
) -> LlGrammarCompiler | None:
    """None where grammars are off or the vocabulary cannot be used for them."""
    future = thread.grammar_vocabulary
    if future is None:
        return None
    try:
        vocabulary = await trio.to_thread.run_sync(future.result)
    except ValueError as error:
        _log.warning("requests with a grammar will be refused: %s", error)
        return None
    limits = GrammarLimits(max_bytes=config.max_grammar_bytes)
    trial = resources.enter_context(Trial(limits))
    trial.warm_up()
    return LlGrammarCompiler(
        vocabulary,
        trial,
        relaxed=config.relax_json_schemas,
        cache_size=config.grammar_cache_size,
        observe=metrics.record_grammar,
    )


def _constraints(config: Config, text: _Text, grammars: LlGrammarCompiler | None) -> Constraints:
    """Raises ConfigError for a tool format that there is not."""
    sources = () if text.templates is None else text.templates.sources
    turns = turn_format(sources, text.control_spellings, name=config.tool_format)
    _log.info("tool calls are written and read as %s", turns.name)
    return Constraints(
        compiler=grammars,
        turn_format=turns,
        control_spellings=text.control_spellings,
        splits_reasoning=config.reasoning_format != "none",
    )


def _load_templates(config: Config, files: ModelFiles, gguf: GgufTemplates) -> ChatTemplates | None:
    return load_chat_template(
        files.tokenizer_folder,
        gguf,
        override=config.chat_template,
        tokenizer_config_path=config.tokenizer_config_path,
    )


def _engine_options(config: Config, *, cache_ram_bytes: int) -> EngineOptions:
    target_ms = config.target_inter_token_latency
    return EngineOptions(
        max_prefill_tokens=config.max_batch_prefill_tokens,
        target_s=target_ms / 1e3 if target_ms > 0 else None,
        cache_ram_bytes=cache_ram_bytes,
        prefix_cache=config.prefix_cache,
        free_bytes=available_bytes,
    )


def _limits(config: Config) -> Limits:
    return Limits(
        max_input_tokens=config.max_input_tokens,
        max_total_tokens=config.max_total_tokens,
        max_best_of=config.max_best_of,
        max_stop_sequences=config.max_stop_sequences,
        max_top_n_tokens=config.max_top_n_tokens,
        max_client_batch_size=config.max_client_batch_size,
        grammar_support=not config.disable_grammar_support,
    )


def _settings(
    config: Config, files: ModelFiles, model: ModelDescription, constraints: Constraints
) -> Settings:
    return Settings(
        model_id=files.model_id,
        version=importlib.metadata.version("tgi_llama"),
        limits=_limits(config),
        max_concurrent_requests=config.max_concurrent_requests,
        validation_workers=config.validation_workers,
        payload_limit_bytes=config.payload_limit,
        api_keys=config.api_key,
        cors_allow_origins=config.cors_allow_origin,
        tool_format=constraints.tool_format,
        docker_label=os.environ.get("DOCKER_LABEL") or None,
        compute_type=os.environ.get("COMPUTE_TYPE") or model.backend,
    )


def _log_start(files: ModelFiles, model: ModelDescription) -> None:
    """The one line that says what runs and how; every value was read back from llama.cpp."""
    facts = attrs.asdict(model)
    _log.info(
        "serving %s: %s", files.model_id, ", ".join(f"{name}={facts[name]}" for name in facts)
    )


# The command line's way of serving


def run(config: Config) -> None:
    """Serves until a signal. Blocks; for the main thread.

    Raises ConfigError or StartError when it cannot start and EngineDead when the decode thread
    dies; the latter, and what happens in a task, inside exception groups.
    """
    files = resolve_model(config)
    sockets = bind(config.hostname, config.port)
    metrics_sockets = []
    if config.prometheus_port is not None:
        metrics_sockets = bind(config.hostname, config.prometheus_port, option="--prometheus-port")
    trio.run(_serve, config, files, sockets, metrics_sockets)


async def _serve(
    config: Config,
    files: ModelFiles,
    sockets: list[socket.socket],
    metrics_sockets: list[socket.socket],
) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            shutdown = Shutdown(config.graceful_termination_timeout, nursery.cancel_scope)
            nursery.start_soon(shutdown.watch, signals)
            service = await nursery.start(run_service, config, files)
            if metrics_sockets:
                metrics_server = HttpServer(create_metrics_app(service.metrics), metrics_sockets)
                await nursery.start(metrics_server.run)
            server = HttpServer(service.app, sockets)
            addresses = await nursery.start(server.run)
            _log.info("listening on %s", ", ".join(addresses))
            await shutdown.run(service, server)
            nursery.cancel_scope.cancel()


@attrs.define(eq=False)
class Shutdown:
    """The way down, step by step. See the top of this module."""

    timeout_s: float
    _everything: trio.CancelScope
    """Around the whole server."""
    _serving: bool = attrs.field(default=False, init=False)
    _requested: trio.Event = attrs.field(factory=trio.Event, init=False)
    _insisted: trio.CancelScope = attrs.field(factory=trio.CancelScope, init=False)
    """Cancelled by the second signal: ends all waiting."""

    async def watch(self, signals: AsyncIterator[int]) -> None:
        """The first signal asks, the second insists. While the model still loads there is nothing
        to drain, so the first one ends everything."""
        async for number in signals:
            name = signal.Signals(number).name
            if self._requested.is_set():
                _log.warning("%s again: ending at once", name)
                self._insisted.cancel()
                continue
            _log.info("%s received, starting graceful shutdown", name)
            self._requested.set()
            if not self._serving:
                self._everything.cancel()

    async def run(self, service: Service, server: HttpServer) -> None:
        """Waits for the first signal, then drains."""
        self._serving = True
        await self._requested.wait()
        await self.drain(service, server)

    async def drain(self, service: Service, server: HttpServer) -> None:
        """Lets running requests finish, then ends them, then cuts their connections."""
        service.admission.start_draining()
        server.stop_accepting()
        with self._insisted:
            with trio.move_on_after(self.timeout_s) as patience:
                await service.admission.wait_idle()
            if patience.cancelled_caught:
                n_running = service.admission.n_running
                service.engine.stop(ShuttingDown("the server is shutting down"))
                service.abort_decode()
                _log.warning("%d requests were ended at the deadline", n_running)
            await server.close_idle()
            with trio.move_on_after(_LAST_WORDS_S):
                await server.wait_closed()
        service.engine.stop(ShuttingDown("the server is shutting down"))
        service.abort_decode()
        n_cut = server.cut_off()
        if n_cut:
            _log.warning("%d connections were cut", n_cut)
