"""When a client that was refused should try again."""

import math

import attrs

_WEIGHT_OF_NEWEST = 0.1
_MAX_S = 60


@attrs.define(eq=False)
class RetryAdvice:
    """Estimates from recent generations how soon one of the running ones will be over."""

    _mean_s: float | None = attrs.field(default=None, init=False)
    """Exponential mean of the time a generation held its permit."""

    def note_finished(self, duration_s: float) -> None:
        if self._mean_s is None:
            self._mean_s = duration_s
        else:
            self._mean_s += _WEIGHT_OF_NEWEST * (duration_s - self._mean_s)

    def seconds(self, n_running: int) -> int:
        """Whole seconds for ``Retry-After``, at least 1. With ``n_running`` generations at work one
        of them ends every mean duration divided by their number."""
        if self._mean_s is None or n_running == 0:
            return 1
        return min(_MAX_S, max(1, math.ceil(self._mean_s / n_running)))
