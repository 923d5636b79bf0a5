"""How far a download is: a bar where somebody watches a terminal, now and then a log line where
nobody does."""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import attrs
from huggingface_hub.utils import tqdm

from .sizes import size_text

_log = logging.getLogger(__name__)

_EVERY_S = 30.0
"""Between log lines: few enough for a log that is kept, enough to see that something happens."""


class FileProgress(Protocol):
    """One file's."""

    def at(self, n_bytes: int) -> None:
        """So many bytes of it are there."""
        ...


class Progress(Protocol):
    """A download's; a context manager around all of it."""

    def __enter__(self) -> "Progress": ...
    def __exit__(self, *_: object) -> None: ...

    def file(
        self, name: str, size: int, n_present: int
    ) -> "contextlib.AbstractContextManager[FileProgress]":
        """Around the transfer of one file, of which ``n_present`` bytes are there already."""
        ...


def shown_progress() -> Progress:
    """What fits standard error."""
    return BarProgress() if sys.stderr.isatty() else LogProgress()


class BarProgress:
    """On standard error, with the bar of ``huggingface_hub``, which its variable
    ``HF_HUB_DISABLE_PROGRESS_BARS`` switches off."""

    def __enter__(self) -> "BarProgress":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @contextlib.contextmanager
    def file(self, name: str, size: int, n_present: int) -> Iterator[FileProgress]:
        bar = tqdm(  # type: ignore[no-untyped-call]  # it has no annotations
            desc=name, total=size, initial=n_present, unit="B", unit_scale=True, dynamic_ncols=True
        )
        with contextlib.closing(bar):
            yield _Bar(bar)


class _Counter(Protocol):
    n: int

    def update(self, n: int) -> object: ...


@attrs.define(eq=False)
class _Bar:
    _bar: _Counter

    def at(self, n_bytes: int) -> None:
        self._bar.update(n_bytes - self._bar.n)


@attrs.define(eq=False)
class LogProgress:
    """A log line for each file that takes long, every 30 seconds."""

    clock: Callable[[], float] = time.monotonic
    every_s: float = _EVERY_S

    def __enter__(self) -> "LogProgress":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @contextlib.contextmanager
    def file(self, name: str, size: int, n_present: int) -> Iterator[FileProgress]:
        lines = _Lines(name, size, n_present, self.clock, self.every_s)
        if n_present:
            _log.info("%s: resuming at %s", name, _share(n_present, size))
        yield lines
        _log.info("%s: complete, %s", name, size_text(size))


@attrs.define(eq=False)
class _Lines:
    _name: str
    _size: int
    _n_at_start: int
    _clock: Callable[[], float]
    _every_s: float
    _started: float = attrs.field(init=False)
    _last: float = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._started = self._last = self._clock()

    def at(self, n_bytes: int) -> None:
        now = self._clock()
        if now - self._last < self._every_s:
            return
        self._last = now
        speed = (n_bytes - self._n_at_start) / (now - self._started)
        _log.info("%s: %s, %s/s", self._name, _share(n_bytes, self._size), size_text(speed))


def _share(n_bytes: int, size: int) -> str:
    return f"{100 * n_bytes // max(size, 1)} % of {size_text(size)}"
