"""Everything behind the HTTP server, built and nested so that it stops in reverse: the validation
workers, then the decode thread, then the model is freed.
"""

import contextlib
import gc
import importlib.metadata
import logging
import os
from collections.abc import Callable
from functools import partial

import attrs
import trio
from quart_trio import QuartTrio

from tgi_llama.adapters import Adapters
from tgi_llama.admission import Admission, ValidationWorkers
from tgi_llama.config import Config
from tgi_llama.engine.engine import Engine
from tgi_llama.engine.kv_cache import KvPlan
from tgi_llama.generation import ModelDescription
from tgi_llama.metrics import MetricLimits, Metrics
from tgi_llama.model_text import (
    ModelText,
    load_grammars,
    load_templates,
    load_text,
    make_constraints,
)
from tgi_llama.model_thread import ModelThread
from tgi_llama.models.adapters import AdapterSources, fetch_from_hub
from tgi_llama.models.files import ModelFiles, resolve_model
from tgi_llama.server.app import check_chosen_paths, create_app
from tgi_llama.server.services import Services, Settings
from tgi_llama.text.template_files import GgufTemplates
from tgi_llama.turns.detection import turn_format
from tgi_llama.validation.constraints import Constraints
from tgi_llama.validation.prompts import ParseSpecial, Vocabulary
from tgi_llama.validation.rules import Limits
from tgi_llama.validation.validator import Validator

_log = logging.getLogger(__name__)


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


async def find_model(config: Config) -> ModelFiles:
    """``resolve_model`` on a worker thread, since it may download and convert. When cancelled it
    does not wait for that: the thread gives up at the next piece of a file that arrives, and what
    has arrived is kept for the next time. Options that are wrong whatever the model is are refused
    before it is looked for. Raises ConfigError and StartError."""
    check_chosen_paths(predict=config.aip_predict_route, health=config.aip_health_route)
    turn_format((), (), name=config.tool_format)

    def resolve() -> ModelFiles:
        return resolve_model(config, checkpoint=trio.from_thread.check_cancelled)

    return await trio.to_thread.run_sync(resolve, abandon_on_cancel=True)


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
    load_templates(config, files, GgufTemplates())
    sources = AdapterSources.of(
        config, partial(fetch_from_hub, checkpoint=trio.from_thread.check_cancelled)
    )
    adapter_files = await trio.to_thread.run_sync(sources.first, abandon_on_cancel=True)
    with contextlib.ExitStack() as resources:
        adapter_paths = tuple(file.path for file in adapter_files)
        thread = ModelThread(config, files, resources, adapter_paths)
        metrics = _metrics(config, thread.plan)
        engine = Engine(
            thread, observe_step=metrics.record_step, observe_delivery=metrics.record_delivery
        )
        async with trio.open_nursery() as engine_nursery:
            await engine_nursery.start(engine.run)
            metrics.set_host_cache_limit(thread.cache_ram_bytes)
            metrics.set_n_slots(thread.description.n_slots)
            text = await load_text(config, files, thread)
            grammars = await load_grammars(config, thread, metrics, resources)
            adapters = Adapters(engine, sources, files.model_id, observe=metrics.set_adapters)
            await adapters.load_first(adapter_files)
            workers = ValidationWorkers(config.validation_workers)
            compilers = ValidationWorkers(config.validation_workers)
            async with trio.open_nursery() as worker_nursery:
                await worker_nursery.start(workers.run)
                await worker_nursery.start(compilers.run)
                await worker_nursery.start(adapters.run)
                admission = Admission(engine, workers, config.max_concurrent_requests, compilers)
                constraints = make_constraints(config, text, grammars)
                app = create_app(
                    Services(
                        settings=_settings(config, files, thread.description, constraints),
                        admission=admission,
                        validator=_validator(
                            config, text, thread.vocab, constraints=constraints, adapters=adapters
                        ),
                        adapters=adapters,
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


def _metrics(config: Config, plan: KvPlan) -> Metrics:
    return Metrics(
        MetricLimits(
            max_input_tokens=config.max_input_tokens,
            max_total_tokens=config.max_total_tokens,
            n_cells=plan.n_cells,
            n_slots=plan.n_slots,
        )
    )


def _validator(
    config: Config,
    text: ModelText,
    vocabulary: Vocabulary,
    *,
    constraints: Constraints,
    adapters: Adapters,
) -> Validator:
    return Validator(
        _limits(config),
        text.tokenizer,
        text.templates,
        vocabulary=vocabulary,
        constraints=constraints,
        adapters=lambda: adapters.ids,
        parse_special_tokens=ParseSpecial(config.parse_special_tokens),
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
        model_sha=files.commit,
        version=importlib.metadata.version("tgi_llama"),
        limits=_limits(config),
        max_concurrent_requests=config.max_concurrent_requests,
        validation_workers=config.validation_workers,
        payload_limit_bytes=config.payload_limit,
        api_keys=config.api_key,
        admin_keys=config.admin_api_key,
        cors_allow_origins=config.cors_allow_origin,
        aip_predict_route=config.aip_predict_route,
        aip_health_route=config.aip_health_route,
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
