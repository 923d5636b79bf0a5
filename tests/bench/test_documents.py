"""What docs/bench.md promises."""

from pathlib import Path

from tgi_llama.bench.workloads import WORKLOADS

_DOCS = Path(__file__).parents[2] / "docs"


def test_every_workload_is_described() -> None:
    text = (_DOCS / "bench.md").read_text()
    described = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]

    assert described == list(WORKLOADS)


def test_example_picture_is_small() -> None:
    assert 10_000 < (_DOCS / "pictures/bench-timeline.svg").stat().st_size < 100_000
