"""Values of options that are worked out from what was given."""

import re
from fractions import Fraction

from tgi_llama.errors import ConfigError
from tgi_llama.host_memory import available_at_start

MAX_THREADS = 512
"""ggml's GGML_MAX_N_THREADS."""

_KV_TYPES = (
    "f32 f16 bf16 f64 q4_0 q4_1 q5_0 q5_1 q8_0 q8_1 q2_k q3_k q4_k q5_k q6_k q8_k iq1_s iq1_m"
    " iq2_xxs iq2_xs iq2_s iq3_xxs iq3_s iq4_nl iq4_xs tq1_0 tq2_0 i8 i16 i32 i64"
)
KV_TYPES = tuple(_KV_TYPES.split())
"""TGI's list."""
KV_TYPE_HELP = (
    "llama.cpp can use f32, f16, bf16, q8_0, q4_0, q4_1, iq4_nl, q5_0 and q5_1; the start fails on"
    " the rest of TGI's list. q8-0 is another spelling of q8_0."
)

AMOUNT_PATTERN = r"(?i)\d+(\.\d+)?\s*(%|[kmgt](i?b)?|b)?"
"""What an amount of memory must match as a whole: ``512MiB``, ``2G``, ``25%``."""

AMOUNT = "bytes (1500000, 512MiB, 2G) or a share of the available memory (25%)"
"""The same in words."""

_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def or_default(given: int | None, default: int) -> int:
    return default if given is None else given


def cache_ram(given: str | int | None) -> int | None:
    """The bytes of ``--cache-ram``, which a number gives as they are; None where nothing was given.
    Raises ConfigError."""
    if given is None or isinstance(given, int):
        return given
    return parse_amount(given, available=available_at_start(), flag="--cache-ram")


def parse_amount(text: str, *, available: int, flag: str) -> int:
    """The amount in bytes; a percentage is one of ``available``. Raises ConfigError that names
    ``flag``.

    Units as GNU's coreutils read them: ``2G`` and ``2GiB`` are 2 * 1024**3, ``2GB`` 2 * 1000**3.
    """
    text = text.strip()
    if re.fullmatch(AMOUNT_PATTERN, text) is None:
        raise ConfigError(f"{flag}: expected {AMOUNT}, got {text!r}.")
    number = re.match(r"[\d.]+", text)
    assert number is not None
    value, unit = Fraction(number[0]), text[number.end() :].strip().lower()
    if unit == "%":
        if value > 100:
            raise ConfigError(f"{flag} must be at most 100%. Given: {text}")
        return int(available * value / 100)
    base = 1000 if unit.endswith("b") and not unit.endswith("ib") else 1024
    return int(value * base ** _POWERS[unit.rstrip("ib")])
