"""From samples to figures."""

from array import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi_llama.bench.dialects import DIALECTS, Asking, Counts
from tgi_llama.bench.http_client import Endpoint
from tgi_llama.bench.load import Closed, Phase, Round
from tgi_llama.bench.sample import Failure, Sample
from tgi_llama.bench.server import Server
from tgi_llama.bench.summary import Spread, summarise
from tgi_llama.bench.words import PromptSource
from tgi_llama.bench.workloads import WORKLOADS, Row

_ALL = [Row("all")]


def _sample(
    *times: float, due: float = 0, ended: float | None = None, group: str = "all", n_asked: int = 0
) -> Sample:
    sample = Sample(group=group, n_asked=n_asked or len(times), due=due, sent=due)
    sample.event_times = array("d", times)
    sample.n_token_events = len(times)
    sample.ended = ended if ended is not None else (times[-1] if times else due)
    sample.finish_reason = "length"
    return sample


def _round(*samples: Sample, phases: tuple[Phase, ...] = (), is_complete: bool = True) -> Round:
    server = Server(
        "A",
        Endpoint.parse("http://localhost"),
        DIALECTS["openai"],
        Asking(model="m", ignore_eos=True),
    )
    one = Round(
        server=server,
        load=Closed(1),
        shape=WORKLOADS["own-prompts"].shape,
        prompts=PromptSource(""),
        timeout_s=1,
        samples=list(samples),
        phases=list(phases),
        started=0.0,
    )
    one.ended = max((sample.ended or 0 for sample in samples), default=0)
    one.is_complete = is_complete
    return one


@given(st.lists(st.floats(min_value=0, max_value=1e6), min_size=1, max_size=200))
def test_spread_is_numpys(values: list[float]) -> None:
    spread = Spread.of(values)

    assert spread is not None
    expected = np.percentile(values, [50, 90, 99, 100])
    assert [spread.p50, spread.p90, spread.p99, spread.max] == pytest.approx(expected.tolist())
    assert spread.mean == pytest.approx(np.mean(values))
    assert spread.n == len(values)


def test_spread_of_nothing_is_none() -> None:
    assert Spread.of([]) is None


def test_summary_times_and_rates_of_one_round() -> None:
    summary = summarise(
        [_round(_sample(1.0, 1.5, 3.0, due=0.0), _sample(2.0, 2.5, due=1.0, ended=4.0))], _ALL
    )
    (row,) = summary.rows

    assert row.ttft_s is not None
    assert row.ttft_s.p50 == 1.0
    assert row.inter_token_s is not None
    assert (row.inter_token_s.n, row.inter_token_s.max) == (3, 1.5)
    assert row.end_to_end_s is not None
    assert (row.end_to_end_s.n, row.end_to_end_s.max) == (2, 3.0)
    assert summary.generated_per_s == pytest.approx(5 / 4)
    assert summary.requests_per_s == pytest.approx(2 / 4)


def test_summary_of_several_rounds_pools_times_and_takes_the_median_of_rates() -> None:
    rounds = [_round(_sample(0.5, 1.0)), _round(_sample(1.0, 2.0)), _round(_sample(2.0, 4.0))]

    summary = summarise(rounds, _ALL)

    assert summary.generated_per_s == pytest.approx(1.0)
    assert summary.elapsed_s == pytest.approx(7.0)
    assert summary.rows[0].ttft_s is not None
    assert summary.rows[0].ttft_s.n == 3


def test_summary_counts_prompt_tokens_only_where_the_server_tells_all_of_them() -> None:
    told, untold = _sample(1.0), _sample(1.0)
    told.counts = Counts(n_prompt=9, n_generated=1, n_cached=4)

    known = summarise([_round(told)], _ALL)
    unknown = summarise([_round(told, untold)], _ALL)

    assert (known.n_prompt_tokens, known.n_cached_tokens) == (9, 4)
    assert known.tokens_per_s == pytest.approx(10.0)
    assert (unknown.n_prompt_tokens, unknown.tokens_per_s) == (None, None)


def test_summary_gaps_of_a_phase_are_those_that_end_in_it() -> None:
    steady = _sample(1.0, 2.0, 5.0, 6.0, 9.0, group="steady")
    phases = (Phase("undisturbed", 1.0, 3.0), Phase("during", 3.0, 7.0))
    rows = WORKLOADS["long-arrivals"].rows

    before, during, long = summarise([_round(steady, phases=phases)], rows).rows

    assert before.inter_token_s is not None
    assert (before.inter_token_s.n, before.inter_token_s.max) == (1, 1.0)
    assert during.inter_token_s is not None
    assert (during.inter_token_s.n, during.inter_token_s.max) == (2, 3.0)
    assert (before.ttft_s, before.end_to_end_s, long.ttft_s) == (None, None, None)


def test_summary_failures_are_counted_by_kind_and_have_an_example() -> None:
    samples = [_sample(), _sample(), _sample(1.0)]
    samples[0].failure = Failure("http 429", "first")
    samples[1].failure = Failure("http 429", "second")

    summary = summarise([_round(*samples)], _ALL)

    assert summary.failures == {"http 429": 2}
    assert summary.examples == {"http 429": "first"}
    assert (summary.n_requests, summary.n_finished) == (3, 1)


@pytest.mark.parametrize(
    ("reason", "told", "n_lost"),
    [("length", None, 2), ("length", 4, 0), ("length", 3, 1), ("eos_token", None, 0)],
)
def test_lost_tokens_are_those_missing_at_a_full_length(
    reason: str, told: int | None, n_lost: int
) -> None:
    sample = _sample(1.0, 2.0, n_asked=4)
    sample.finish_reason = reason
    sample.counts = Counts(n_generated=told)

    assert summarise([_round(sample)], _ALL).n_lost_tokens == n_lost


def test_summary_of_an_interrupted_round_ends_with_the_interruption() -> None:
    running = _sample(1.0, 2.0)
    running.ended = None
    one = _round(running, is_complete=False)
    one.ended = 10.0

    summary = summarise([one], _ALL)

    assert summary.elapsed_s == 10.0
    assert (summary.n_finished, summary.rows[0].end_to_end_s) == (0, None)
    assert summary.rows[0].ttft_s is not None
