"""What crosses between the Trio side and the decode thread: commands there, publications back.

All of it frozen values.
"""

import queue
from collections.abc import Callable
from pathlib import Path

import attrs

from tgi_llama.errors import RequestError
from tgi_llama.generation import (
    AdapterFacts,
    AdapterId,
    GenerationRequest,
    RequestId,
    StepReport,
    StreamEvent,
)

Submitted = tuple[RequestId, GenerationRequest]


@attrs.frozen
class Submit:
    """Requests that came together: the branches of one prompt, which share its logprobs."""

    requests: tuple[Submitted, ...]
    submitted: float
    """Seconds on ``time.perf_counter``'s clock."""


@attrs.frozen
class Cancel:
    request_id: RequestId


@attrs.frozen(kw_only=True)
class LoadAdapter:
    """Answered at the next step boundary, with what the adapter is or an AdapterError."""

    ticket: int
    adapter: AdapterId
    path: Path
    scale: float


@attrs.frozen(kw_only=True)
class UnloadAdapter:
    """Answered when no unfinished request uses the adapter and all that was known of it is
    forgotten; from now on no request gets it. Nothing to do for one that is not loaded."""

    ticket: int
    adapter: AdapterId


@attrs.frozen
class Stop:
    """Ends the thread at the next step boundary; unfinished requests fail with ``error``."""

    error: RequestError


Command = Submit | Cancel | LoadAdapter | UnloadAdapter | Stop
CommandQueue = queue.SimpleQueue[Command]


@attrs.frozen
class Answer:
    """To the command with this ticket: done, or why not."""

    ticket: int
    result: AdapterFacts | RequestError | None = None


@attrs.frozen
class Publication:
    """All that one step has to tell the Trio side."""

    events: tuple[tuple[RequestId, StreamEvent], ...]
    report: StepReport
    answers: tuple[Answer, ...] = ()


Publish = Callable[[Publication], None]
"""Hands a publication to the other side. Must not block and must not raise."""
