"""The page of metrics: Prometheus' text format 0.0.4, as TGI writes it.

``prometheus_client.generate_latest`` cannot write TGI's page: it appends ``_total`` to the name of
every counter, as OpenMetrics wants, while TGI's dashboards query ``tgi_request_count``; and it adds
a ``_created`` sample per series unless a process-wide switch is thrown. The format itself is
simple, so the page is written here from the same collected families.
"""

from collections.abc import Iterable, Iterator

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample


def page(families: Iterable[Metric]) -> bytes:
    return "".join(_lines(families)).encode()


def _lines(families: Iterable[Metric]) -> Iterator[str]:
    for family in families:
        if family.documentation:
            yield f"# HELP {family.name} {_escape_help(family.documentation)}\n"
        yield f"# TYPE {family.name} {family.type}\n"
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                yield _render_sample(sample, _sample_name(family, sample))
        yield "\n"


def _sample_name(family: Metric, sample: Sample) -> str:
    return family.name if family.type == "counter" else sample.name


def _render_sample(sample: Sample, name: str) -> str:
    value = _number(sample.value)
    if not sample.labels:
        return f"{name} {value}\n"
    labels = ",".join(f'{key}="{_escape_label(text)}"' for key, text in sample.labels.items())
    return f"{name}{{{labels}}} {value}\n"


def _number(value: float) -> str:
    # Python's shortest form is also what TGI writes, but for infinity. It occurs only as the
    # ``le`` label, which prometheus_client words itself.
    return str(int(value)) if value.is_integer() else repr(value)


def _escape_help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _escape_label(text: str) -> str:
    return _escape_help(text).replace('"', r"\"")
