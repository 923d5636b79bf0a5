"""The results as JSON. ``docs/bench-results.schema.json`` describes them."""

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import orjson

from tgi_llama.errors import ConfigError

from .comparison import Compared, compare
from .load import Closed, Load, Phase, Round
from .plan import Measurement, Point
from .sample import Sample
from .server import Server

SCHEMA = "tgi-llama bench 1"
_DIGITS = 6
"""Microseconds: a reading of the clock is not better."""

Json = Mapping[str, object]


def write_results(measurement: Measurement, path: Path, *, with_samples: bool) -> None:
    """Raises ConfigError where the file cannot be written."""
    content = orjson.dumps(
        results(measurement, with_samples=with_samples), option=orjson.OPT_INDENT_2
    )
    try:
        path.write_bytes(content + b"\n")
    except OSError as error:
        raise ConfigError(f"--json {path}: {error.strerror}") from error


def results(measurement: Measurement, *, with_samples: bool) -> Json:
    plan = measurement.plan
    started = datetime.datetime.fromtimestamp(measurement.started_at, datetime.UTC)
    return {
        "schema": SCHEMA,
        "started": started.isoformat(timespec="seconds"),
        "is_complete": measurement.is_complete,
        "workload": plan.workload.name,
        "n_rounds": plan.n_rounds,
        "seed": plan.seed,
        "servers": [_server(server) for server in plan.servers],
        "points": [
            _point(measurement, index, point, with_samples=with_samples)
            for index, point in enumerate(plan.points)
        ],
    }


def _server(server: Server) -> Json:
    return {
        "name": server.name,
        "url": server.endpoint.url,
        "api": server.dialect.name,
        "model": server.asking.model,
    }


def _point(measurement: Measurement, index: int, point: Point, *, with_samples: bool) -> Json:
    plan = measurement.plan
    pairs = measurement.pairs_of(index) if len(plan.servers) == 2 else []
    summaries = [(server, measurement.summary(index, server)) for server in plan.servers]
    return {
        "load": _load(point.load),
        "shape": {
            name: size for name, size in attrs.asdict(point.shape).items() if size is not None
        },
        "servers": [
            {
                "name": server.name,
                "summary": attrs.asdict(summary) if summary else None,
                "rounds": [
                    _round(one, with_samples=with_samples)
                    for one in measurement.rounds_of(index, server)
                ],
            }
            for server, summary in summaries
        ],
        "comparison": [_compared(one) for one in compare(pairs, plan.workload.rows)]
        if pairs
        else [],
    }


def _load(load: Load) -> Json:
    kind = "closed" if isinstance(load, Closed) else "open"
    return {"kind": kind, **attrs.asdict(load)}


def _round(one: Round, *, with_samples: bool) -> Json:
    result: dict[str, object] = {
        "number": one.number,
        "is_complete": one.is_complete,
        "phases": [_phase(one, phase) for phase in one.phases],
    }
    if with_samples:
        result["requests"] = [_sample(one, sample) for sample in one.samples]
    return result


def _phase(one: Round, phase: Phase) -> Json:
    began, ended = (round(time - one.started, _DIGITS) for time in (phase.started, phase.ended))
    return {"name": phase.name, "started_s": began, "ended_s": ended}


def _sample(one: Round, sample: Sample) -> Json:
    """Times in seconds since the round's start."""

    def relative(times: Sequence[float | None]) -> Sequence[float | None]:
        return [None if time is None else round(time - one.started, _DIGITS) for time in times]

    due, sent, ended = relative([sample.due, sample.sent, sample.ended])
    return {
        "group": sample.group,
        "due_s": due,
        "sent_s": sent,
        "ended_s": ended,
        "event_times_s": relative(list(sample.event_times)),
        "n_shared_reads": sample.n_shared_reads,
        "n_asked_tokens": sample.n_asked,
        "n_generated_tokens": sample.n_generated,
        "n_prompt_tokens": sample.counts.n_prompt,
        "n_cached_tokens": sample.counts.n_cached,
        "finish_reason": sample.finish_reason,
        "failure": attrs.asdict(sample.failure) if sample.failure else None,
    }


def _compared(one: Compared) -> Json:
    """Times in seconds, as everywhere in the file."""
    return {
        "name": one.name,
        "unit": "s" if one.unit == "ms" else one.unit,
        "values_a": one.values_a,
        "values_b": one.values_b,
        "median_a": one.median_a,
        "median_b": one.median_b,
        "median_ratio": one.median_ratio,
        "smallest_ratio": one.ratios[0] if one.ratios else None,
        "largest_ratio": one.ratios[-1] if one.ratios else None,
    }
