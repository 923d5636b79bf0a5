"""What docs/bench.md promises."""

from pathlib import Path

from tgi_llama.bench import command
from tgi_llama.bench.workloads import WORKLOADS

_DOCS = Path(__file__).parents[2] / "docs"


def test_every_workload_is_described() -> None:
    text = (_DOCS / "bench.md").read_text()
    described = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]

    assert described == list(WORKLOADS)


def test_every_command_is_understood() -> None:
    lines = (_DOCS / "bench.md").read_text().splitlines()
    commands = [line.split()[2:] for line in lines if line.startswith("tgi-llama bench http")]

    assert len(commands) >= 5
    for arguments in commands:
        assert command.parse(arguments, program="tgi-llama bench") is not None


def test_example_picture_is_small() -> None:
    assert 10_000 < (_DOCS / "pictures/bench-timeline.svg").stat().st_size < 100_000
