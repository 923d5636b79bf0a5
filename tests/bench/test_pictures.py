"""What is drawn, of measurements of a scripted server. Looking right is for people to judge."""

from pathlib import Path

import pytest
from fakes.measuring import measure
from fakes.scripted_server import Answer, Received, ScriptedServer, playing

from tgi_llama.bench.load import Open
from tgi_llama.bench.pictures.ratios import draw_ratios
from tgi_llama.bench.pictures.timeline import draw_timeline, pack
from tgi_llama.bench.pictures.write import write_pictures
from tgi_llama.bench.plan import Measurement
from tgi_llama.bench.sample import Sample
from tgi_llama.errors import ConfigError


def _sample(due: float, ended: float | None, group: str = "all") -> Sample:
    return Sample(group=group, n_asked=1, due=due, ended=ended)


def test_streams_that_overlap_get_rows_of_their_own() -> None:
    samples = [_sample(0, 2), _sample(1, 3), _sample(2, 4), _sample(3.5, None), _sample(5, 6)]

    rows = [[sample.due for sample in row] for row in pack(samples)]

    assert rows == [[0, 2, 5], [1, 3.5]]


def test_groups_do_not_share_rows() -> None:
    samples = [_sample(0, 1, "steady"), _sample(2, 3, "long"), _sample(4, 5, "steady")]

    rows = [[sample.group for sample in row] for row in pack(samples)]

    assert rows == [["steady", "steady"], ["long"]]


@pytest.mark.parametrize("ending", ["png", "svg"])
async def test_pictures_of_every_kind_of_request_are_written(tmp_path: Path, ending: str) -> None:
    """Failed ones, and those of several groups, included."""

    def decide(received: Received) -> Answer:
        if len(server.received) == 3:
            return Answer(cut_after=2)
        return Answer(status=429) if len(received.prompt) > 5000 else Answer()

    server = ScriptedServer(decide)
    async with playing(server):
        measurement = await measure(
            server, workload="long-arrivals", n_tokens=10, n_undisturbed=2, n_long_words=100
        )
    (file,) = write_pictures(measurement, tmp_path / f"x.{ending}")

    assert file.name == f"x-timeline.{ending}"
    content = _content(file)
    assert len(content) > 5000
    assert content.startswith(b"\x89PNG" if ending == "png" else b"<?xml")


async def test_timeline_names_server_load_and_groups() -> None:
    async with playing(ScriptedServer()) as server:
        measurement = await measure(server, load=Open(500, "fixed"), n_requests=3)
    one = measurement.current
    assert one is not None

    figure = draw_timeline(measurement, [one])

    (axes,) = figure.axes
    assert axes.get_title(loc="left") == f"A: {server.url}, 500 requests/s, fixed"
    assert axes.get_xlabel() == "seconds since the start of the round"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()][:2] == [
        "until the first token",
        "tokens",
    ]


async def test_ratios_need_a_round_of_both() -> None:
    async with playing(ScriptedServer()) as first, playing(ScriptedServer()) as second:
        measurement = await measure(first, second, n_requests=1)

    figure = draw_ratios(measurement)
    assert figure is not None
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert any(label.startswith("time to first token p99\n") for label in labels)
    assert draw_ratios(Measurement(measurement.plan)) is None


async def test_picture_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    async with playing(ScriptedServer()) as server:
        measurement = await measure(server, n_requests=1)

    with pytest.raises(ConfigError, match=r"absent/x-timeline\.png: No such file"):
        list(write_pictures(measurement, tmp_path / "absent" / "x.png"))


def _content(file: Path) -> bytes:
    return file.read_bytes()
