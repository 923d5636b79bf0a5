"""A program that works on files for us: its progress in our log, its last words when it fails."""

import collections
import logging
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import attrs

from tgi_llama.errors import StartError

_log = logging.getLogger(__name__)

_TIED_PROCESS = Path(__file__).with_name("tied_process.py")
_LINE_END = re.compile(rb"[\r\n]")
_PERCENT = re.compile(r"(\d{1,3})%\|")  # tqdm's bar
_COUNT = re.compile(r"\[ *(\d+)/ *(\d+)\]")  # llama.cpp's tensors
_STEP = 10
"""Percent between two lines in the log."""
_N_LAST_WORDS = 40


class ChildFailed(StartError):
    """The program ended with a status that is not 0. ``last_words`` are its last lines."""

    def __init__(self, what: str, status: int, last_words: Sequence[str]) -> None:
        self.last_words = tuple(last_words)
        end = f"signal {-status}" if status < 0 else f"status {status}"
        words = self.reason
        super().__init__(f"{what} failed: {words}" if words else f"{what} failed with {end}")

    @property
    def reason(self) -> str:
        """The last line that says something, empty where none does."""
        return next((line for line in reversed(self.last_words) if line), "")


@attrs.frozen(kw_only=True)
class Child:
    """A Python program, which ends when we do."""

    what: str
    """For the log and the error, for example ``converting``."""
    python: Path
    program: Sequence[str | Path]
    """A script or ``-m`` and a module, and its arguments."""
    environment: Mapping[str, str] = attrs.field(factory=dict)
    """Beside our own."""

    def run(self) -> None:
        """Returns when it has ended well. Blocks, on any thread; whatever interrupts us ends it.

        Raises ChildFailed, and StartError where it cannot be started.
        """
        try:
            process = subprocess.Popen(
                [self.python, _TIED_PROCESS, *self.program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
            )
        except OSError as error:
            raise StartError(f"{self.what}: cannot run {self.python}: {error.strerror}") from error
        with process:
            try:
                assert process.stdout is not None
                words = self._follow(process.stdout)
                status = process.wait()
            except BaseException:
                process.kill()
                raise
        if status:
            raise ChildFailed(self.what, status, words)

    def _follow(self, output: IO[bytes]) -> Sequence[str]:
        """Logs the progress until the output ends; returns the last lines that are not progress."""
        words: collections.deque[str] = collections.deque(maxlen=_N_LAST_WORDS)
        told = 0
        for line in _lines(output):
            percent = _percent(line)
            if percent is None:
                words.append(line)
                _log.debug("%s: %s", self.what, line)
            elif percent >= told + _STEP or (percent == 100 and told < 100):
                told = percent
                _log.info("%s: %d %%", self.what, percent)
        return words


def _percent(line: str) -> int | None:
    """None for a line with something else; llama.cpp breaks off a line of progress to complain."""
    if "failed to" in line:
        return None
    if bar := _PERCENT.search(line):
        return int(bar[1])
    if count := _COUNT.search(line):
        return 100 * int(count[1]) // max(1, int(count[2]))
    return None


def _lines(output: IO[bytes]) -> Iterator[str]:
    """Each as soon as it is there; a progress bar ends its lines with a carriage return."""
    rest = b""
    while data := os.read(output.fileno(), 65536):
        *lines, rest = _LINE_END.split(rest + data)
        yield from (line.decode("utf-8", "replace").strip() for line in lines)
    yield rest.decode("utf-8", "replace").strip()
