"""Counts one request: once when it starts, once when it is known how it ended."""

from types import TracebackType
from typing import Self

import attrs

from tgi_llama.metrics import FailureKind, Metrics


@attrs.define(eq=False)
class RequestRecord:
    """One request that asks for a generation.

    The first outcome that is reported counts. A record that is left without one belongs to a
    client that went away.
    """

    _metrics: Metrics
    _is_open: bool = attrs.field(default=True, init=False)

    def __enter__(self) -> Self:
        self._metrics.request_started()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.failed(FailureKind.DROPPED)

    def succeeded(self) -> None:
        if self._is_open:
            self._is_open = False
            self._metrics.request_succeeded()

    def failed(self, kind: FailureKind) -> None:
        if self._is_open:
            self._is_open = False
            self._metrics.request_failed(kind)
