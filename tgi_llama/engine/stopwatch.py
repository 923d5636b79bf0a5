"""What one step of the decode loop did, while it does it."""

import attrs


@attrs.define
class Stopwatch:
    """Where the time of one step went, in seconds."""

    started: float
    decode: float = 0.0
    sampling: float = 0.0
    text: float = 0.0
    placement: float = 0.0
    masks: float = 0.0
    """Waiting for those that were late."""
    switch: float = 0.0
    """Of ``decode``, what changing the adapter took."""
    n_switches: int = 0
    n_tokens: int = 0
    """Tokens chosen or forced."""
    n_forced: int = 0
    failed: bool = False
    device_failed: bool = False
