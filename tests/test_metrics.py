"""The metrics page: TGI's families to the letter, each thing counted once."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tgi_llama.generation import Finish, FinishReason, PlacementReport, StepReport, Timings
from tgi_llama.metrics import FailureKind, GenerationTimes, MetricLimits, Metrics

# Contract 5.3 and 5.4; None where TGI describes nothing.
TGI_FAMILIES = {
    "tgi_request_count": ("counter", "Total number of requests"),
    "tgi_request_success": ("counter", "Number of successful requests"),
    "tgi_request_failure": ("counter", None),
    "tgi_request_duration": ("histogram", "Request duration"),
    "tgi_request_validation_duration": ("histogram", "Request validation duration"),
    "tgi_request_queue_duration": ("histogram", "Request queue duration"),
    "tgi_request_inference_duration": ("histogram", "Request inference duration"),
    "tgi_request_mean_time_per_token_duration": ("histogram", "Mean time per token per request"),
    "tgi_request_generated_tokens": ("histogram", "Generated tokens per request"),
    "tgi_request_input_length": ("histogram", "Input token length per request"),
    "tgi_request_max_new_tokens": ("histogram", "Maximum new tokens per request"),
    "tgi_queue_size": ("gauge", "Current queue size"),
    "tgi_batch_current_size": ("gauge", "Current batch size"),
    "tgi_batch_current_max_tokens": ("gauge", "Maximum tokens for the current batch"),
    "tgi_batch_next_size": ("histogram", "Batch size of the next batch"),
    "tgi_batch_inference_count": (
        "counter",
        "Inference calls per method (prefill or decode)",
    ),
    "tgi_batch_inference_success": (
        "counter",
        "Number of successful inference calls per method (prefill or decode)",
    ),
    "tgi_batch_inference_failure": ("counter", None),
    "tgi_batch_inference_duration": ("histogram", "Batch inference duration"),
    "tgi_batch_forward_duration": (
        "histogram",
        "Batch forward duration per method (prefill or decode)",
    ),
    "tgi_batch_decode_duration": (
        "histogram",
        "Time spent decoding a batch per method (prefill or decode)",
    ),
    "tgi_batch_filter_duration": (
        "histogram",
        "Time spent filtering batches and sending generated tokens per method (prefill or decode)",
    ),
    "tgi_batch_concat": ("counter", None),
    "tgi_batch_concat_duration": ("histogram", None),
    # A summary in TGI, whose dashboard asks for the buckets of a histogram.
    "tgi_request_skipped_tokens": ("histogram", "Speculated tokens per request"),
    "tgi_batch_max_total_tokens": ("gauge", None),
}


@pytest.fixture
def metrics():
    return Metrics(
        MetricLimits(max_input_tokens=1000, max_total_tokens=2000, n_cells=8000, n_slots=4)
    )


def samples(metrics):
    page = metrics.render().decode()
    values = (line.rpartition(" ") for line in page.splitlines() if line and line[0] != "#")
    return {name: float(value) for name, _, value in values}


def changes(metrics, act):
    """What ``act`` changes on the page, buckets aside."""
    before = samples(metrics)
    act()
    return {
        name: value - before.get(name, 0.0)
        for name, value in samples(metrics).items()
        if value != before.get(name, 0.0) and "_bucket" not in name
    }


def bounds(metrics, family):
    prefix = f'{family}_bucket{{le="'
    names = [name for name in samples(metrics) if name.startswith(prefix)]
    return [float(name.removeprefix(prefix).removesuffix('"}')) for name in names]


STEP = StepReport(
    n_decode_sequences=3,
    n_prefill_sequences=0,
    n_prefill_tokens=0,
    n_generated_tokens=3,
    n_joined=0,
    n_queued=2,
    n_running=3,
    n_reserved_cells=600,
    decode_failed=False,
    device_failed=False,
    step_s=0.25,
    decode_s=0.125,
    sampling_s=0.0625,
    text_s=0.03125,
)


@pytest.mark.parametrize("family", TGI_FAMILIES)
def test_family_has_tgi_s_name_type_and_help(metrics, family):
    kind, documentation = TGI_FAMILIES[family]
    lines = metrics.render().decode().splitlines()
    assert f"# TYPE {family} {kind}" in lines
    helps = [line for line in lines if line.startswith(f"# HELP {family} ")]
    assert helps == ([f"# HELP {family} {documentation}"] if documentation else [])


def test_page_has_no_suffixes_that_tgi_has_not(metrics):
    page = metrics.render().decode()
    assert "_created" not in page
    assert "_count_total" not in page
    assert "_success_total" not in page


def test_page_is_readable_for_prometheus(metrics):
    metrics.record_step(STEP)
    families = list(text_string_to_metric_families(metrics.render().decode()))
    assert {family.name for family in families} >= set(TGI_FAMILIES)


def test_every_family_is_tgi_s_or_has_our_prefix(metrics):
    lines = metrics.render().decode().splitlines()
    names = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert {name for name in names if not name.startswith("tgi_llama_")} == set(TGI_FAMILIES)


def test_duration_buckets_are_tgi_s(metrics):
    expected = [0.0001 * 1.5**k for k in range(1, 36)]
    assert bounds(metrics, "tgi_request_duration") == pytest.approx([*expected, float("inf")])


def test_token_buckets_are_hundredths_of_the_limits(metrics):
    assert bounds(metrics, "tgi_request_input_length")[:100] == [10.0 * k for k in range(1, 101)]
    for family in ("tgi_request_generated_tokens", "tgi_request_max_new_tokens"):
        assert bounds(metrics, family)[:100] == [20.0 * k for k in range(1, 101)]


def test_batch_size_buckets_are_all_sizes_up_to_1024(metrics):
    assert bounds(metrics, "tgi_batch_next_size")[:-1] == [float(k) for k in range(1, 1025)]


def test_skipped_tokens_buckets_are_all_counts_that_speculation_may_skip(metrics):
    assert bounds(metrics, "tgi_request_skipped_tokens")[:-1] == [float(k) for k in range(17)]


def test_request_is_counted_once_at_each_end(metrics):
    assert changes(metrics, metrics.request_started) == {"tgi_request_count": 1}
    assert changes(metrics, metrics.request_succeeded) == {"tgi_request_success": 1}


@pytest.mark.parametrize("kind", list(FailureKind))
def test_failure_is_counted_by_kind(metrics, kind):
    assert changes(metrics, lambda: metrics.request_failed(kind)) == {
        f'tgi_request_failure{{err="{kind.value}"}}': 1
    }


def test_finished_generation_is_observed_in_its_parts(metrics):
    timings = Timings(submitted=10.5, started=10.75, first_token=11.0, finished=12.75)
    finish = Finish(reason=FinishReason.LENGTH, n_generated=4, timings=timings)
    times = GenerationTimes.from_finish(finish, received=10.0)
    assert changes(metrics, lambda: metrics.generation_finished(times, n_generated=4)) == {
        "tgi_request_duration_sum": 2.75,
        "tgi_request_duration_count": 1,
        "tgi_request_validation_duration_sum": 0.5,
        "tgi_request_validation_duration_count": 1,
        "tgi_request_queue_duration_sum": 0.25,
        "tgi_request_queue_duration_count": 1,
        "tgi_request_inference_duration_sum": 2.0,
        "tgi_request_inference_duration_count": 1,
        "tgi_request_mean_time_per_token_duration_sum": 0.5,
        "tgi_request_mean_time_per_token_duration_count": 1,
        "tgi_request_generated_tokens_sum": 4,
        "tgi_request_generated_tokens_count": 1,
    }


def test_validated_generation_is_observed(metrics):
    def act():
        metrics.generation_validated(n_prompt_tokens=7, max_new_tokens=9)

    assert changes(metrics, act) == {
        "tgi_request_input_length_sum": 7,
        "tgi_request_input_length_count": 1,
        "tgi_request_max_new_tokens_sum": 9,
        "tgi_request_max_new_tokens_count": 1,
    }


def test_decode_step_is_observed_as_decode(metrics):
    changed = changes(metrics, lambda: metrics.record_step(STEP))
    decode = '{method="decode"}'
    assert {name: value for name, value in changed.items() if decode in name} == {
        f"tgi_batch_inference_count{decode}": 1,
        f"tgi_batch_inference_success{decode}": 1,
        f"tgi_batch_inference_duration_sum{decode}": 0.25,
        f"tgi_batch_inference_duration_count{decode}": 1,
        f"tgi_batch_forward_duration_sum{decode}": 0.125,
        f"tgi_batch_forward_duration_count{decode}": 1,
        f"tgi_batch_decode_duration_sum{decode}": 0.09375,
        f"tgi_batch_decode_duration_count{decode}": 1,
        f"tgi_batch_filter_duration_sum{decode}": 0.03125,
        f"tgi_batch_filter_duration_count{decode}": 1,
    }
    assert not [name for name in changed if "prefill" in name or "concat" in name]
    assert changed["tgi_request_skipped_tokens_count"] == 1
    assert "tgi_request_skipped_tokens_sum" not in changed
    assert changed["tgi_queue_size"] == 2
    assert changed["tgi_batch_current_size"] == 3
    assert changed["tgi_batch_current_max_tokens"] == 600
    assert changed["tgi_llama_generated_tokens"] == 3
    assert changed["tgi_llama_slots_busy"] == 3
    assert changed["tgi_llama_step_seconds_sum"] == 0.25
    assert changed["tgi_llama_step_decode_seconds_sum"] == 0.125
    assert changed["tgi_llama_step_sampling_seconds_sum"] == 0.0625
    assert changed["tgi_llama_step_python_seconds_sum"] == 0.0625


def test_step_with_grammars_counts_forced_tokens_and_the_time_grammars_took(metrics):
    report = STEP._replace(n_forced_tokens=2, mask_s=0.25)
    changed = changes(metrics, lambda: metrics.record_step(report))
    assert changed["tgi_llama_generated_tokens"] == 3
    assert changed["tgi_llama_grammar_forced_tokens"] == 2
    assert changed["tgi_llama_grammar_seconds"] == 0.25


def test_step_that_changed_the_adapter_is_counted_with_the_time_it_took(metrics):
    report = STEP._replace(n_switches=1, switch_s=0.25)
    changed = changes(metrics, lambda: metrics.record_step(report))
    assert changed["tgi_llama_adapter_switches"] == 1
    assert changed["tgi_llama_adapter_switch_seconds"] == 0.25


def evolved(**parts):
    return STEP._replace(**parts)


def test_mixed_step_is_observed_under_both_methods_and_as_a_concat(metrics):
    report = evolved(n_prefill_tokens=32, n_prefill_sequences=1, n_joined=1)
    changed = changes(metrics, lambda: metrics.record_step(report))
    for method in ("prefill", "decode"):
        assert changed[f'tgi_batch_inference_count{{method="{method}"}}'] == 1
    assert changed['tgi_batch_concat{reason="chunking"}'] == 1
    assert changed['tgi_batch_concat_duration_count{method="decode"}'] == 1
    assert changed["tgi_batch_next_size_sum"] == 1
    assert changed["tgi_llama_prompt_tokens"] == 32


def test_first_step_of_a_batch_is_no_concat(metrics):
    report = evolved(n_decode_sequences=0, n_prefill_tokens=9, n_prefill_sequences=2, n_joined=2)
    changed = changes(metrics, lambda: metrics.record_step(report))
    assert changed["tgi_batch_next_size_sum"] == 2
    assert not [name for name in changed if "concat" in name or "decode" in name.partition("{")[2]]


def test_step_without_tokens_only_sets_the_gauges(metrics):
    report = evolved(n_decode_sequences=0, n_generated_tokens=0, n_running=1, n_queued=0)
    assert changes(metrics, lambda: metrics.record_step(report)) == {
        "tgi_batch_current_size": 1,
        "tgi_batch_current_max_tokens": 600,
        "tgi_llama_slots_busy": 1,
    }


def test_failed_step_is_a_failure_and_no_success(metrics):
    changed = changes(metrics, lambda: metrics.record_step(evolved(decode_failed=True)))
    assert changed['tgi_batch_inference_failure{method="decode"}'] == 1
    assert 'tgi_batch_inference_success{method="decode"}' not in changed


def test_queued_generation_is_seen_before_the_next_step(metrics):
    assert changes(metrics, metrics.generation_queued) == {"tgi_queue_size": 1}
    metrics.record_step(evolved(n_queued=0))
    assert samples(metrics)["tgi_queue_size"] == 0


def test_deliveries_are_observed_when_the_page_is_read_and_by_and_by(metrics):
    family = "tgi_llama_event_delivery_seconds"
    assert bounds(metrics, family)[:-1] == pytest.approx(
        [1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]
    )
    for _ in range(1000):
        metrics.record_delivery(0.015)
    assert len(metrics._deliveries) < 1000, "they are not kept for ever"
    assert samples(metrics)[f"{family}_count"] == 1000
    assert samples(metrics)[f'{family}_bucket{{le="0.01"}}'] == 0
    assert samples(metrics)[f'{family}_bucket{{le="0.02"}}'] == 1000


def test_slots_are_as_many_as_the_model_has_got(metrics):
    assert samples(metrics)["tgi_llama_slots"] == 4
    metrics.set_n_slots(2)
    assert samples(metrics)["tgi_llama_slots"] == 2


def test_host_cache_tells_its_limit_what_it_holds_and_what_it_drops(metrics):
    metrics.set_host_cache_limit(5000)
    prefix = "tgi_llama_prefix_cache"
    assert samples(metrics)[f"{prefix}_host_limit_bytes"] == 5000
    for n_evicted in (2, 3):
        placement = PlacementReport(host_bytes=400, n_host_entries=2, n_evicted=n_evicted)
        metrics.record_step(evolved(placement=placement))
    assert samples(metrics)[f"{prefix}_host_bytes"] == 400
    assert samples(metrics)[f"{prefix}_host_entries"] == 2
    assert samples(metrics)[f"{prefix}_evictions"] == 5


def test_constants_are_on_the_page_from_the_start(metrics):
    assert samples(metrics)["tgi_batch_max_total_tokens"] == 8000
    assert samples(metrics)["tgi_llama_slots"] == 4


def test_two_servers_share_nothing(metrics):
    other = Metrics(MetricLimits(max_input_tokens=10, max_total_tokens=20, n_cells=80, n_slots=1))
    metrics.request_started()
    assert samples(other)["tgi_request_count"] == 0
