"""How downloads show how far they are."""

import io
import sys

import pytest

from tgi_llama.models.progress import BarProgress, LogProgress, shown_progress
from tgi_llama.models.sizes import size_text


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (2_140_000_000, "2.1 GB"),
        (5e15, "5000"),
    ],
)
def test_size_text(n_bytes: float, text: str) -> None:
    assert size_text(n_bytes).startswith(text)


def test_log_progress_writes_a_line_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tgi_llama")
    times = iter([0, 10, 31, 40, 62])
    with (
        LogProgress(clock=lambda: float(next(times)), every_s=30) as progress,
        progress.file("a.gguf", 2_000_000, 500_000) as shown,
    ):
        for n_bytes in (600_000, 1_120_000, 1_300_000, 1_740_000):
            shown.at(n_bytes)

    assert [record.getMessage() for record in caplog.records] == [
        "a.gguf: resuming at 25 % of 2.0 MB",
        "a.gguf: 56 % of 2.0 MB, 20.0 kB/s",
        "a.gguf: 87 % of 2.0 MB, 20.0 kB/s",
        "a.gguf: complete, 2.0 MB",
    ]


def test_log_progress_of_a_failure_says_nothing_of_completion(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "tgi_llama")
    with (
        pytest.raises(OSError, match="cut"),
        LogProgress() as progress,
        progress.file("a.gguf", 10, 0),
    ):
        raise OSError("cut")

    assert caplog.records == []


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bar_shows_name_and_amount_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = _Terminal()
    monkeypatch.setattr(sys, "stderr", screen)

    with shown_progress() as progress, progress.file("a.gguf", 2_000_000, 500_000) as shown:
        shown.at(1_000_000)
        shown.at(2_000_000)

    assert isinstance(progress, BarProgress)
    assert "a.gguf: 100%" in screen.getvalue()
    assert "2.00M/2.00M" in screen.getvalue()


def test_log_lines_where_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())

    assert isinstance(shown_progress(), LogProgress)
