"""Statistics to Prometheus: TGI's families under TGI's names, and our own with ``tgi_llama_``.

Every request is counted once at its start and ends in exactly one of ``tgi_request_success`` and
``tgi_request_failure``, so that started = succeeded + failed + running. A request is one HTTP
call, which may run several generations: one per prompt, and several of one prompt for ``n`` and
``best_of``. Each generation is observed when it is validated (``tgi_request_input_length``,
``tgi_request_max_new_tokens``). The other histograms of requests observe each generation that is
part of an answer: every prompt's, every choice of ``n``, and of a ``best_of`` only the winner, as
TGI does.

TGI's batch metrics (names with ``method``) were made for a server that alternates prefill and
decode calls. Here one step may do both: such a step is observed under both methods, each time with
the time of the whole step.

A step is noted when it happens and observed later, many at a time: after ``llama_decode`` the
processor's caches hold the model's weights, and a dozen observations then take several times as
long as in a row. Trio thread only, but for ``record_grammar``.
"""

import enum
from collections.abc import Iterable

import attrs
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tgi_llama.generation import CacheOutcome, Finish, GrammarOutcome, PlacementReport, StepReport
from tgi_llama.metrics_page import page

CONTENT_TYPE = "text/plain; charset=utf-8"

_DURATION_BUCKETS_S = tuple(0.0001 * 1.5**k for k in range(1, 36))
_BATCH_SIZE_BUCKETS = tuple(float(size) for size in range(1, 1025))
_SKIPPED_TOKENS_BUCKETS = tuple(float(count) for count in range(17))
"""TGI writes a summary, in which its own dashboard's query for buckets finds nothing."""
_MAX_UNOBSERVED_STEPS = 128
"""About 2 ms to observe."""
_MAX_UNOBSERVED_DELIVERIES = 256

_STEP_PART_BUCKETS_S = tuple(m * 10.0**e for e in range(-5, 1) for m in (1.0, 2.0, 3.0, 5.0, 7.0))
"""Python's own part of a step is meant to stay under 0.5 ms, where TGI's buckets are coarse."""

_DELIVERY_BUCKETS_S = (*(m * 10.0**e for e in range(-4, 0) for m in (1.0, 2.0, 5.0)), 1.0)


class FailureKind(enum.Enum):
    """The ``err`` label of ``tgi_request_failure``. TGI's words first, then ours."""

    OVERLOADED = "overloaded"
    VALIDATION = "validation"
    TEMPLATE = "template"
    TOOL = "tool"
    INCOMPLETE = "incomplete"
    GENERATION = "generation"
    DROPPED = "dropped"
    """The client went away before its answer was complete."""
    PARSE = "parse"
    """The body could not be read as the route's request: bad JSON, wrong type, too large."""
    AUTH = "auth"
    UNAVAILABLE = "unavailable"
    """The server is stopping or its decode thread is gone."""
    INTERNAL = "internal"


@attrs.frozen(kw_only=True)
class MetricLimits:
    """The server's limits that shape buckets and constant gauges."""

    max_input_tokens: int
    max_total_tokens: int
    n_cells: int
    """Cells of the KV memory over all slots."""
    n_slots: int


@attrs.frozen(kw_only=True)
class GenerationTimes:
    """Where the time of one finished generation went, in seconds. The parts add up to the total."""

    total_s: float
    validation_s: float
    queue_s: float
    inference_s: float
    per_token_s: float

    @classmethod
    def from_finish(cls, finish: Finish, *, received: float) -> "GenerationTimes":
        """``received``: when the request's work began, on ``time.perf_counter``'s clock."""
        timings = finish.timings
        inference_s = timings.finished - timings.started
        return cls(
            total_s=timings.finished - received,
            validation_s=timings.submitted - received,
            queue_s=timings.started - timings.submitted,
            inference_s=inference_s,
            per_token_s=inference_s / finish.n_generated,
        )


class _MethodMetrics:
    """The children for one value of the ``method`` label, looked up once: the look-up costs as
    much as the observation."""

    def __init__(self, families: "_BatchFamilies", method: str) -> None:
        self._count = families.count.labels(method)
        self._success = families.success.labels(method)
        self._failure = families.failure.labels(method)
        self._inference = families.inference.labels(method)
        self._forward = families.forward.labels(method)
        self._decode = families.decode.labels(method)
        self._filter = families.filter.labels(method)

    def record(self, report: StepReport) -> None:
        self._count.inc()
        (self._failure if report.decode_failed else self._success).inc()
        self._inference.observe(report.step_s)
        self._forward.observe(report.decode_s)
        self._decode.observe(report.sampling_s + report.text_s)
        self._filter.observe(max(0.0, report.python_s - report.text_s))


class _BatchFamilies:
    """TGI's families with a ``method`` label."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, documentation: str) -> Counter:
            return Counter(name, documentation, ["method"], registry=registry)

        def duration(name: str, documentation: str) -> Histogram:
            return Histogram(
                name, documentation, ["method"], buckets=_DURATION_BUCKETS_S, registry=registry
            )

        per_method = "per method (prefill or decode)"
        self.count = counter("tgi_batch_inference_count", f"Inference calls {per_method}")
        self.success = counter(
            "tgi_batch_inference_success", f"Number of successful inference calls {per_method}"
        )
        self.failure = counter("tgi_batch_inference_failure", "")
        self.inference = duration("tgi_batch_inference_duration", "Batch inference duration")
        self.forward = duration(
            "tgi_batch_forward_duration", f"Batch forward duration {per_method}"
        )
        self.decode = duration(
            "tgi_batch_decode_duration", f"Time spent decoding a batch {per_method}"
        )
        self.filter = duration(
            "tgi_batch_filter_duration",
            f"Time spent filtering batches and sending generated tokens {per_method}",
        )
        self.concat_duration = duration("tgi_batch_concat_duration", "")


class Metrics:
    """All metrics of one server, in a registry of their own."""

    def __init__(self, limits: MetricLimits) -> None:
        self._registry = CollectorRegistry()
        self._steps: list[StepReport] = []
        self._deliveries: list[float] = []
        self._n_queued = 0
        self._n_queued_since_step = 0
        self._init_request_metrics(limits)
        self._init_batch_metrics(limits)
        self._init_own_metrics(limits)
        self._init_cache_metrics()
        self._init_grammar_metrics()
        self._init_adapter_metrics()

    def _init_request_metrics(self, limits: MetricLimits) -> None:
        input_buckets = _hundredths(limits.max_input_tokens)
        total_buckets = _hundredths(limits.max_total_tokens)
        self._requests = self._counter("tgi_request_count", "Total number of requests")
        self._successes = self._counter("tgi_request_success", "Number of successful requests")
        self._tool_parse_failures = self._counter(
            "tgi_llama_tool_parse_failures",
            "Answers with markup of tool calls that could not be read and was given out as text",
        )
        self._failures = Counter("tgi_request_failure", "", ["err"], registry=self._registry)
        self._duration = self._duration_histogram("tgi_request_duration", "Request duration")
        self._validation_duration = self._duration_histogram(
            "tgi_request_validation_duration", "Request validation duration"
        )
        self._queue_duration = self._duration_histogram(
            "tgi_request_queue_duration", "Request queue duration"
        )
        self._inference_duration = self._duration_histogram(
            "tgi_request_inference_duration", "Request inference duration"
        )
        self._mean_time_per_token = self._duration_histogram(
            "tgi_request_mean_time_per_token_duration", "Mean time per token per request"
        )
        self._generated_tokens = self._histogram(
            "tgi_request_generated_tokens", "Generated tokens per request", total_buckets
        )
        self._input_length = self._histogram(
            "tgi_request_input_length", "Input token length per request", input_buckets
        )
        self._max_new_tokens = self._histogram(
            "tgi_request_max_new_tokens", "Maximum new tokens per request", total_buckets
        )

    def _init_batch_metrics(self, limits: MetricLimits) -> None:
        self._queue_size = self._gauge("tgi_queue_size", "Current queue size")
        self._batch_size = self._gauge("tgi_batch_current_size", "Current batch size")
        self._batch_max_tokens = self._gauge(
            "tgi_batch_current_max_tokens", "Maximum tokens for the current batch"
        )
        self._next_size = self._histogram(
            "tgi_batch_next_size", "Batch size of the next batch", _BATCH_SIZE_BUCKETS
        )
        families = _BatchFamilies(self._registry)
        self._prefill = _MethodMetrics(families, "prefill")
        self._decode = _MethodMetrics(families, "decode")
        concat = Counter("tgi_batch_concat", "", ["reason"], registry=self._registry)
        self._concat = concat.labels("chunking")
        self._concat_duration = families.concat_duration.labels("decode")
        # Tokens per step and sequence beyond the first: zero until there is speculation.
        self._skipped_tokens = self._histogram(
            "tgi_request_skipped_tokens", "Speculated tokens per request", _SKIPPED_TOKENS_BUCKETS
        )
        self._gauge("tgi_batch_max_total_tokens", "").set(limits.n_cells)

    def _init_own_metrics(self, limits: MetricLimits) -> None:
        self._step = self._step_histogram(
            "tgi_llama_step_seconds", "Duration of a step of the decode loop"
        )
        self._step_decode = self._step_histogram(
            "tgi_llama_step_decode_seconds", "Part of a step spent in llama_decode"
        )
        self._step_sampling = self._step_histogram(
            "tgi_llama_step_sampling_seconds", "Part of a step spent choosing tokens"
        )
        self._step_python = self._step_histogram(
            "tgi_llama_step_python_seconds", "Part of a step outside llama_decode and sampling"
        )
        self._step_placement = self._step_histogram(
            "tgi_llama_step_placement_seconds",
            "Part of a step spent giving out slots and moving cells",
        )
        self._delivery = self._histogram(
            "tgi_llama_event_delivery_seconds",
            "From the publication of a step's events to the write of the last of them",
            _DELIVERY_BUCKETS_S,
        )
        self._generated = self._counter("tgi_llama_generated_tokens", "Tokens generated")
        self._forced = self._counter(
            "tgi_llama_grammar_forced_tokens", "Generated tokens that a grammar left no choice for"
        )
        self._masks = self._counter(
            "tgi_llama_grammar_seconds",
            "Time of steps for following grammars and waiting for their masks",
        )
        self._switches = self._counter("tgi_llama_adapter_switches", "Changes of the LoRA adapter")
        self._switching = self._counter(
            "tgi_llama_adapter_switch_seconds", "Time of decodes for changing the LoRA adapter"
        )
        self._prompt = self._counter("tgi_llama_prompt_tokens", "Prompt tokens computed")
        self._slots_busy = self._gauge("tgi_llama_slots_busy", "Slots that hold a sequence")
        self._slots = self._gauge("tgi_llama_slots", "Slots of the KV memory")
        self._slots.set(limits.n_slots)
        self._slots_idle = self._gauge(
            "tgi_llama_slots_idle", "Slots that hold what an ended sequence left"
        )
        self._cells_used = self._gauge("tgi_llama_cells_used", "Cells in use, idle ones included")
        self._gauge("tgi_llama_cells", "Cells of the KV memory").set(limits.n_cells)
        self._preemptions = self._counter(
            "tgi_llama_preemptions", "Sequences that had to give their cells up for a while"
        )
        self._prefill_budget = self._gauge(
            "tgi_llama_prefill_budget_tokens", "Prompt tokens that the last step could compute"
        )

    def _init_cache_metrics(self) -> None:
        lookups = Counter(
            "tgi_llama_prefix_cache_requests",
            "Prompts by where their beginning came from, or why it was computed",
            ["outcome"],
            registry=self._registry,
        )
        self._cache_outcomes = {outcome: lookups.labels(outcome.value) for outcome in CacheOutcome}
        self._cached_tokens = self._counter(
            "tgi_llama_prefix_cache_tokens", "Prompt tokens that were reused, not computed"
        )
        self._host_bytes = self._gauge(
            "tgi_llama_prefix_cache_host_bytes", "Bytes of saved cells in host memory"
        )
        self._host_entries = self._gauge(
            "tgi_llama_prefix_cache_host_entries", "Saved sequences in host memory"
        )
        self._host_limit = self._gauge(
            "tgi_llama_prefix_cache_host_limit_bytes", "Most bytes of saved cells in host memory"
        )
        self._evictions = self._counter(
            "tgi_llama_prefix_cache_evictions",
            "Saved sequences that were dropped from host memory to make room",
        )

    def _init_grammar_metrics(self) -> None:
        requests = Counter(
            "tgi_llama_grammar_requests",
            "Requests with a grammar by what became of it",
            ["outcome"],
            registry=self._registry,
        )
        self._grammar_outcomes = {each: requests.labels(each.value) for each in GrammarOutcome}
        self._grammar_compile = self._duration_histogram(
            "tgi_llama_grammar_compile_seconds",
            "Time to compile a grammar that was not known, or to refuse it",
        )

    def _init_adapter_metrics(self) -> None:
        self._adapters = self._gauge("tgi_llama_adapters", "LoRA adapters that requests can use")
        self._adapter_names: frozenset[str] = frozenset()
        self._adapter_generations = Counter(
            "tgi_llama_adapter_generations",
            "Generations that were submitted with a LoRA adapter",
            ["adapter"],
            registry=self._registry,
        )

    def set_host_cache_limit(self, n_bytes: int) -> None:
        """Call once the limit is known: it may depend on what the model needs."""
        self._host_limit.set(n_bytes)

    def set_n_slots(self, n_slots: int) -> None:
        """Call once the model is known: some get fewer than planned."""
        self._slots.set(n_slots)

    def set_adapters(self, names: Iterable[str]) -> None:
        """Call whenever they have changed. What is counted of those that are gone is dropped, so
        that there are never more series than adapters."""
        names = frozenset(names)
        for name in self._adapter_names - names:
            self._adapter_generations.remove(name)
        for name in names - self._adapter_names:
            self._adapter_generations.labels(name)
        self._adapter_names = names
        self._adapters.set(len(names))

    # --- one request ---

    def request_started(self) -> None:
        """Call once per HTTP request that asks for a generation."""
        self._requests.inc()

    def request_succeeded(self) -> None:
        self._successes.inc()

    def tool_parse_failed(self) -> None:
        self._tool_parse_failures.inc()

    def request_failed(self, kind: FailureKind) -> None:
        self._failures.labels(kind.value).inc()

    def record_grammar(self, outcome: GrammarOutcome, seconds: float) -> None:
        """Call once per request with a grammar. Any thread, unlike the others."""
        self._grammar_outcomes[outcome].inc()
        if outcome is not GrammarOutcome.CACHED:
            self._grammar_compile.observe(seconds)

    # --- one generation ---

    def generation_validated(self, *, n_prompt_tokens: int, max_new_tokens: int) -> None:
        """Call for every generation, those that ``best_of`` will not choose too."""
        self._input_length.observe(n_prompt_tokens)
        self._max_new_tokens.observe(max_new_tokens)

    def adapter_used(self, name: str) -> None:
        """Call once per generation with an adapter, one of those that there are."""
        self._adapter_generations.labels(name).inc()

    def generation_queued(self) -> None:
        """The queue grew by one; the next step reports its true length."""
        self._n_queued_since_step += 1

    def generation_finished(self, times: GenerationTimes, *, n_generated: int) -> None:
        """Call for every generation that is part of an answer."""
        self._duration.observe(times.total_s)
        self._validation_duration.observe(times.validation_s)
        self._queue_duration.observe(times.queue_s)
        self._inference_duration.observe(times.inference_s)
        self._mean_time_per_token.observe(times.per_token_s)
        self._generated_tokens.observe(n_generated)

    # --- one step ---

    def record_step(self, report: StepReport) -> None:
        """Call once per step of the decode loop. Observed when the page is read, or by and by."""
        self._steps.append(report)
        self._n_queued_since_step = 0
        if len(self._steps) == _MAX_UNOBSERVED_STEPS:
            self._observe_steps()

    def record_delivery(self, seconds: float) -> None:
        """Call when events have been written to their sockets, with the time since the oldest of
        them was published: once for all of a step that are written at once, and for each write
        that is not. Observed as steps are."""
        self._deliveries.append(seconds)
        if len(self._deliveries) == _MAX_UNOBSERVED_DELIVERIES:
            self._observe_deliveries()

    def _observe_deliveries(self) -> None:
        for seconds in self._deliveries:
            self._delivery.observe(seconds)
        self._deliveries.clear()

    def _observe_steps(self) -> None:
        for report in self._steps:
            self._observe_step(report)
        if self._steps:
            last = self._steps[-1]
            self._n_queued = last.n_queued
            self._batch_size.set(last.n_running)
            self._slots_busy.set(last.n_running)
            self._batch_max_tokens.set(last.n_reserved_cells)
        self._queue_size.set(self._n_queued + self._n_queued_since_step)
        self._steps.clear()

    def _observe_step(self, report: StepReport) -> None:
        if report.n_prefill_tokens:
            self._prefill.record(report)
            self._prompt.inc(report.n_prefill_tokens)
        if report.n_decode_sequences:
            self._decode.record(report)
            self._skipped_tokens.observe(0)
        if report.n_generated_tokens:
            self._generated.inc(report.n_generated_tokens)
            if report.mask_s or report.n_forced_tokens:
                self._masks.inc(report.mask_s)
                self._forced.inc(report.n_forced_tokens)
        if report.n_switches:
            self._switches.inc(report.n_switches)
            self._switching.inc(report.switch_s)
        if report.n_joined:
            self._record_join(report)
        if report.prefill_budget:
            self._prefill_budget.set(report.prefill_budget)
        if report.placement is not None:
            self._record_placement(report.placement)
        if report.n_computed_tokens:
            self._step_placement.observe(report.placement_s)
            self._step.observe(report.step_s)
            self._step_decode.observe(report.decode_s)
            self._step_sampling.observe(report.sampling_s)
            self._step_python.observe(report.python_s)

    def _record_placement(self, placement: PlacementReport) -> None:
        for outcome, n_tokens in placement.outcomes:
            self._cache_outcomes[outcome].inc()
            self._cached_tokens.inc(n_tokens)
        self._preemptions.inc(placement.n_preempted)
        self._slots_idle.set(placement.n_idle_slots)
        self._cells_used.set(placement.n_cells_used)
        self._host_bytes.set(placement.host_bytes)
        self._host_entries.set(placement.n_host_entries)
        self._evictions.inc(placement.n_evicted)

    def _record_join(self, report: StepReport) -> None:
        self._next_size.observe(report.n_joined)
        if report.n_decode_sequences:
            # Joining takes no time of its own: the newcomer is named in the next batch.
            self._concat.inc()
            self._concat_duration.observe(0.0)

    # --- the page ---

    def render(self) -> bytes:
        """All families in the Prometheus text format 0.0.4, as TGI writes it."""
        self._observe_steps()
        self._observe_deliveries()
        return page(self._registry.collect())

    # --- construction ---

    def _counter(self, name: str, documentation: str) -> Counter:
        return Counter(name, documentation, registry=self._registry)

    def _gauge(self, name: str, documentation: str) -> Gauge:
        return Gauge(name, documentation, registry=self._registry)

    def _histogram(self, name: str, documentation: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, documentation, buckets=buckets, registry=self._registry)

    def _duration_histogram(self, name: str, documentation: str) -> Histogram:
        return self._histogram(name, documentation, _DURATION_BUCKETS_S)

    def _step_histogram(self, name: str, documentation: str) -> Histogram:
        return self._histogram(name, documentation, _STEP_PART_BUCKETS_S)


def _hundredths(limit: int) -> tuple[float, ...]:
    return tuple(limit / 100 * k for k in range(1, 101))
