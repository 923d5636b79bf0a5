"""How a command that takes minutes ends before its time."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType

_STATUS_OF_SIGNAL = 128


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends what is inside in order, so that nothing half done is left behind. The first
    process of a container gets signals only where it asks for them. For the main thread."""

    def end(number: int, _: FrameType | None) -> None:
        sys.exit(_STATUS_OF_SIGNAL + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
