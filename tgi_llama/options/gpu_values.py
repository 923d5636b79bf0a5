"""Values of the options on GPUs."""

import re

from tgi_llama.errors import ConfigError

from .values import parse_amount

LAYERS_PATTERN = r"(?i)auto|all|-1|[0-9]{1,9}"
"""What ``--n-gpu-layers`` must match as a whole."""

PROPORTIONS_PATTERN = r"\s*\d+(\.\d+)?(\s*[,/]\s*\d+(\.\d+)?)*\s*"
"""What ``--tensor-split`` must match as a whole; llama.cpp separates by a slash too."""

SIZE_PATTERN = r"(?i)\d+(\.\d+)?\s*([kmgt](i?b)?|b)?"
SIZE = "bytes (1500000, 512MiB, 2G)"
"""The same in words."""

_DEFAULT_MARGIN = 2**30
"""Bytes; as llama.cpp's ``--fit-target``. The driver's own needs are not in anybody's figures."""


def gpu_layers(given: str | int) -> str:
    """``auto``, ``all`` or a number without a sign; -1 is llama-cpp-python's word for all.
    Raises ConfigError."""
    text = str(given).lower()
    if re.fullmatch(LAYERS_PATTERN, text) is None:
        raise ConfigError(
            f"--n-gpu-layers: expected a number of layers, `all` or `auto`, got {text!r}"
        )
    if text.isdecimal():
        return str(int(text))
    return "all" if text == "-1" else text


def proportions(given: str | None) -> tuple[float, ...]:
    """The numbers of ``--tensor-split``; none where nothing was given. Raises ConfigError."""
    if given is None:
        return ()
    if re.fullmatch(PROPORTIONS_PATTERN, given) is None:
        raise ConfigError(f"--tensor-split: expected a number for each GPU, got {given!r}")
    numbers = tuple(float(part) for part in re.split("[,/]", given))
    if not any(numbers):
        raise ConfigError("--tensor-split: at least one of the proportions must be above 0")
    return numbers


def gpu_memory_margin(given: str | int | None) -> int:
    """The bytes of ``--gpu-memory-margin``. Raises ConfigError."""
    if given is None or isinstance(given, int):
        return _DEFAULT_MARGIN if given is None else given
    if "%" in given:
        raise ConfigError(f"--gpu-memory-margin: expected {SIZE}, got {given!r}")
    return parse_amount(given, available=0, flag="--gpu-memory-margin")
