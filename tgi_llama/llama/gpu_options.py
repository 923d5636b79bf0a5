"""The options on GPUs against the GPUs that there are."""

import logging
from collections.abc import Sequence

from tgi_llama.config import Config
from tgi_llama.errors import ConfigError
from tgi_llama.llama.devices import Device

_log = logging.getLogger(__name__)

_NOT_FOR_GPUS = frozenset({"CPU", "BLAS", "RPC", "ZenDNN"})
"""Backends of llama.cpp that make no build one for GPUs."""


def check_gpu_options(config: Config, gpus: Sequence[Device], backends: Sequence[str]) -> None:
    """Warns of options without effect. Raises ConfigError where GPUs were demanded that there are
    not.

    ``gpus`` as ``usable_gpus`` orders them; ``backends`` are all that llama.cpp was built with.
    Whoever asks for all layers means a GPU; a number may have come with the command line of
    another machine, which should start here too.
    """
    if gpus:
        _check_split(config, gpus)
        _tell_unused(config, gpus)
        return
    reason = _why_none(backends)
    if config.n_gpu_layers == "all":
        raise ConfigError(f"--n-gpu-layers all: {reason}")
    if config.n_gpu_layers == "auto":
        _log.info("--n-gpu-layers auto: no layer, for %s", reason)
    elif config.n_gpu_layers != "0":
        _log.warning("--n-gpu-layers %s has no effect: %s", config.n_gpu_layers, reason)
    beside = _split_options(config) + _margin_option(config)
    if not config.offload_kqv:
        beside.append("--disable-offload-kqv")
    for option in beside:
        _log.warning("%s has no effect: %s", option, reason)


def gpus_in_use(config: Config, gpus: Sequence[Device]) -> tuple[Device, ...]:
    """Those that the model is shared out to. After ``check_gpu_options``."""
    if config.split_mode.isdecimal():
        return tuple(gpus[int(config.split_mode) :][:1])
    return tuple(gpus)


def _check_split(config: Config, gpus: Sequence[Device]) -> None:
    there = f"there are {len(gpus)}: " if len(gpus) > 1 else "there is one: "
    there += ", ".join(f"{each.name} ({each.description})" for each in gpus)
    mode, n_parts = config.split_mode, len(config.split_proportions)
    if mode.isdecimal() and int(mode) >= len(gpus):
        raise ConfigError(f"--split-mode {mode}: GPUs are counted from 0, and {there}")
    if n_parts not in (0, len(gpus)):
        raise ConfigError(
            f"--tensor-split {config.tensor_split}: expected a number for each GPU, and {there}"
        )
    unable = [each.name for each in gpus if not each.splits_rows]
    if mode == "row" and unable:
        raise ConfigError(
            f"--split-mode row: llama.cpp's backend of {', '.join(unable)} cannot split rows; use"
            " layer"
        )


def _tell_unused(config: Config, gpus: Sequence[Device]) -> None:
    if config.n_gpu_layers != "auto":
        for option in _margin_option(config):
            _log.warning("%s has no effect without --n-gpu-layers auto", option)
    if config.n_gpu_layers != "0":
        return
    for option in _split_options(config):
        _log.warning("%s has no effect with --n-gpu-layers 0", option)
    names = ", ".join(f"{each.name} ({each.description})" for each in gpus)
    _log.info("the model stays in host memory; --n-gpu-layers auto would use %s", names)


def _split_options(config: Config) -> list[str]:
    """Those that were given, as they were given."""
    given = [f"--split-mode {config.split_mode}"] if config.split_mode != "layer" else []
    return given + ([f"--tensor-split {config.tensor_split}"] if config.tensor_split else [])


def _margin_option(config: Config) -> list[str]:
    """The same of the margin; in MiB, whatever it was given in."""
    if not config.is_gpu_memory_margin_given or config.gpu_memory_margin is None:
        return []
    return [f"--gpu-memory-margin {config.gpu_memory_margin // 2**20}MiB"]


def _why_none(backends: Sequence[str]) -> str:
    for_gpus = [name for name in backends if name not in _NOT_FOR_GPUS]
    if not for_gpus:
        return "this llama.cpp was built without GPU support (docs/gpu.md)"
    return (
        f"llama.cpp's {' and '.join(for_gpus)} backend finds no GPU (is there a driver? in a"
        " container: --gpus all)"
    )
