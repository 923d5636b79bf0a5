"""The log line of a successful generation (contract 8.5)."""

import json
import logging

import attrs
import pytest
from fakes.engine import finish

from tgi_llama.generation import (
    FinishReason,
    GenerationRequest,
    SamplingParameters,
    StoppingParameters,
    TokenId,
)
from tgi_llama.logs import JsonFormatter, LineFormatter
from tgi_llama.metrics import GenerationTimes
from tgi_llama.server.success_log import describe_duration, describe_parameters, log_success
from tgi_llama.validation.prepared import PreparedGeneration

TIMES = GenerationTimes(
    total_s=1.5, validation_s=0.0123, queue_s=0.0, inference_s=1.4877, per_token_s=0.000_25
)

FINISH = attrs.evolve(finish(FinishReason.LENGTH, n_generated=4), n_cached_prompt_tokens=1)


def a_request(**sampling):
    return GenerationRequest(
        prompt_ids=(TokenId(1), TokenId(2)),
        sampling=SamplingParameters(**sampling),
        stopping=StoppingParameters(max_new_tokens=20, stop_strings=("my secret",)),
    )


def prepared(seed=7, **sampling):
    return PreparedGeneration(
        request=a_request(**sampling),
        prompt="my prompt",
        n_prompt_tokens=2,
        reported_seed=seed,
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0ns"),
        (850e-9, "850ns"),
        (1e-6, "1µs"),
        (0.000_012_345, "12.345µs"),
        (0.0123, "12.3ms"),
        (0.012_003_004, "12.003004ms"),
        (0.999_999_999_9, "1s"),
        (1.5, "1.5s"),
        (90.0, "90s"),
        (123.000_000_001, "123.000000001s"),
    ],
)
def test_duration_is_worded_as_rust_does(seconds, text):
    assert describe_duration(seconds) == text


@pytest.mark.parametrize(
    ("sampling", "text"),
    [
        ({}, "{max_new_tokens: 20, n_stop_strings: 1}"),
        ({"greedy": True}, "{greedy: True, max_new_tokens: 20, n_stop_strings: 1}"),
        (
            {"temperature": 0.5, "top_k": 3, "seed": 9, "logit_bias": ((TokenId(4), 1.0),)},
            "{temperature: 0.5, top_k: 3, n_logit_bias: 1, max_new_tokens: 20, n_stop_strings: 1}",
        ),
    ],
)
def test_parameters_are_those_that_were_set(sampling, text):
    assert describe_parameters(a_request(**sampling)) == text


def test_line_has_tgi_s_fields_and_ours_and_nothing_the_client_wrote(caplog):
    caplog.set_level(logging.INFO)
    log_success(prepared(temperature=0.5), FINISH, TIMES)
    (record,) = caplog.records
    entry = json.loads(JsonFormatter().format(record))
    assert (entry["message"], entry["level"]) == ("Success", "INFO")
    assert list(entry)[6:] == [
        "parameters",
        "total_time",
        "validation_time",
        "queue_time",
        "inference_time",
        "time_per_token",
        "seed",
        "cached_tokens",
    ]
    assert (entry["total_time"], entry["validation_time"]) == ("1.5s", "12.3ms")
    assert (entry["queue_time"], entry["inference_time"]) == ("0ns", "1.4877s")
    assert (entry["time_per_token"], entry["seed"]) == ("250µs", 7)
    assert entry["cached_tokens"] == 1
    line = LineFormatter().format(record)
    assert "Success parameters={temperature: 0.5, max_new_tokens: 20" in line
    assert "my" not in line


def test_line_of_a_greedy_generation_has_no_seed(caplog):
    caplog.set_level(logging.INFO)
    log_success(prepared(seed=None, greedy=True), FINISH, TIMES)
    assert json.loads(JsonFormatter().format(caplog.records[0]))["seed"] is None


def test_line_is_not_written_where_only_warnings_are(caplog):
    caplog.set_level(logging.WARNING, logger="tgi_llama")
    log_success(prepared(), FINISH, TIMES)
    assert not caplog.records
