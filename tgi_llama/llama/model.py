"""A loaded model: weights, metadata, vocabulary."""

import ctypes
import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import llama_cpp.llama_cpp as native

from tgi_llama.config import Config
from tgi_llama.errors import ConfigError, StartError
from tgi_llama.llama.backend import NativeLog
from tgi_llama.llama.memory_log import is_host, read_figures
from tgi_llama.llama.offload import Offload, asked_offload

_log = logging.getLogger(__name__)

_SPLIT_MODES = {
    "layer": native.LLAMA_SPLIT_MODE_LAYER,
    "row": native.LLAMA_SPLIT_MODE_ROW,
}

_LOAD_MODES = {  # (mmap, mlock)
    (False, False): native.LLAMA_LOAD_MODE_NONE,
    (True, False): native.LLAMA_LOAD_MODE_MMAP,
    (False, True): native.LLAMA_LOAD_MODE_MLOCK,
    (True, True): native.LLAMA_LOAD_MODE_MMAP_MLOCK,
}

Progress = Callable[[float], bool]
"""Told the fraction that is loaded; returns False to give up."""


class Model:
    """Owns a native ``llama_model``; a context manager that frees it.

    Loaded on the decode thread and freed when nothing uses it any more, by whichever thread owns
    it. Metadata and vocabulary are immutable.
    """

    def __init__(
        self,
        path: Path,
        config: Config,
        log: NativeLog,
        progress: Progress,
        *,
        offload: Offload | None = None,
    ) -> None:
        """Loads the file, with the layers of ``offload`` on GPUs; None: as the options say, where
        ``auto`` is no layer.

        Raises ConfigError with llama.cpp's own words when the file is damaged or not supported,
        StartError when there is not enough memory for it.
        """
        offload = asked_offload(config) if offload is None else offload
        params = model_params(config, offload)
        callback = native.llama_progress_callback(lambda fraction, _data: progress(fraction))
        params.progress_callback = callback
        with log.captured() as lines:
            pointer = native.llama_model_load_from_file(os.fsencode(path), params)
        if not pointer:
            raise load_error(path, lines)
        try:
            check_generates(
                has_encoder=native.llama_model_has_encoder(pointer),
                has_vocabulary=native.llama_vocab_type(native.llama_model_get_vocab(pointer))
                != native.LLAMA_VOCAB_TYPE_NONE,
            )
        except ConfigError as error:
            native.llama_model_free(pointer)
            raise ConfigError(f"{path}: {error}") from None
        self.pointer = pointer
        self.path = path
        self.load_mode = _value(lines, "load_mode = ", ")") or "unknown"
        """As llama.cpp's log names it, for example ``mmap+mlock``."""
        self.locked = "mlock" in self.load_mode and not any("failed to mlock" in s for s in lines)
        """The system may refuse to lock so much memory (``ulimit -l``); llama.cpp then goes on."""
        layers = read_figures(lines).layers
        self.n_layers = len(layers)
        """The output counts as one."""
        self.gpu_layers = Counter(name for name in layers if not is_host(name))
        """By GPU, as llama.cpp placed them."""
        _tell_placement(self.gpu_layers, n_layers=self.n_layers, n_asked=offload.n_asked)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        native.llama_model_free(self.pointer)

    @property
    def vocab_pointer(self) -> native.llama_vocab_p:
        """Valid as long as the model."""
        pointer: native.llama_vocab_p | None = native.llama_model_get_vocab(self.pointer)
        assert pointer is not None
        return pointer

    @property
    def n_vocab(self) -> int:
        return int(native.llama_vocab_n_tokens(self.vocab_pointer))

    @property
    def n_context_train(self) -> int:
        return int(native.llama_model_n_ctx_train(self.pointer))

    @property
    def n_parameters(self) -> int:
        return int(native.llama_model_n_params(self.pointer))

    @property
    def size_bytes(self) -> int:
        return int(native.llama_model_size(self.pointer))

    @property
    def description(self) -> str:
        buffer = ctypes.create_string_buffer(256)
        native.llama_model_desc(self.pointer, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")

    def metadata(self, key: str) -> str | None:
        """A GGUF metadata value as text."""
        buffer = ctypes.create_string_buffer(1024)
        length = native.llama_model_meta_val_str(self.pointer, key.encode(), buffer, len(buffer))
        return None if length < 0 else buffer.value.decode("utf-8", "replace")

    def chat_templates(self) -> dict[str, str]:
        """The chat templates in the GGUF by name; the unnamed one is ``default``."""
        found = {}
        for name in (None, "tool_use", "rag"):
            source = native.llama_model_chat_template(self.pointer, name and name.encode())
            if source is not None:
                found[name or "default"] = source.decode("utf-8", "replace")
        return found


def load_error(path: Path, lines: list[str]) -> ConfigError | StartError:
    """What to raise for a failed load, from its log."""
    reason = failure_reason(lines)
    if any("unable to allocate" in line for line in lines):
        return StartError(
            f"not enough memory for the model {path}: {reason}. Lower --n-gpu-layers where it is a"
            " GPU's, or map the file (--use-mmap)"
        )
    return ConfigError(
        f"--model-gguf: expected a complete GGUF file, but llama.cpp cannot load {path}: {reason}"
    )


def check_generates(*, has_encoder: bool, has_vocabulary: bool) -> None:
    """ConfigError for models whose first decode or token llama.cpp ends the process on."""
    if has_encoder:
        raise ConfigError("the model has an encoder, and only decoders are served")
    if not has_vocabulary:
        raise ConfigError("the file has no vocabulary")


def model_params(config: Config, offload: Offload) -> native.llama_model_params:
    """llama.cpp's model parameters for our options. The value owns the array of proportions that it
    points to, and llama.cpp takes a copy of that when it loads."""
    params: native.llama_model_params = native.llama_model_default_params()
    params.load_mode = _LOAD_MODES[config.use_mmap, config.use_mlock]
    params.n_gpu_layers = offload.n_asked
    if offload.split:
        params.tensor_split = _proportions(offload.split)
    if config.split_mode in _SPLIT_MODES:
        params.split_mode = _SPLIT_MODES[config.split_mode]
    else:  # a GPU's number: no split
        params.split_mode = native.LLAMA_SPLIT_MODE_NONE
        params.main_gpu = int(config.split_mode)
    return params


def _tell_placement(gpu_layers: "Counter[str]", *, n_layers: int, n_asked: int) -> None:
    n_placed, n_wanted = gpu_layers.total(), min(n_asked, n_layers)
    if n_placed:
        shares = ", ".join(f"{name} {count}" for name, count in gpu_layers.items())
        _log.info("%d of %d layers are on GPUs: %s", n_placed, n_layers, shares)
    if n_placed < n_wanted:
        _log.warning(
            "llama.cpp has put %d layers on GPUs, where %d were asked for", n_placed, n_wanted
        )


def _proportions(split: Sequence[float]) -> "ctypes.Array[ctypes.c_float]":
    """llama.cpp reads as many as it can have devices. Raises ConfigError for more of them."""
    n_most = native.llama_max_devices()
    if len(split) > n_most:
        raise ConfigError(f"--tensor-split: at most {n_most} proportions, got {len(split)}")
    array: ctypes.Array[ctypes.c_float] = (ctypes.c_float * n_most)(*split)
    return array


def failure_reason(lines: Sequence[str]) -> str:
    """llama.cpp's last words on a failed load or context, without the name of the C++ function."""
    errors = [line for line in lines if "error" in line.lower() or "failed" in line.lower()]
    if not errors:
        return "llama.cpp could not load the model"
    return errors[0].split(": ", 1)[-1].strip().removeprefix("error loading model: ")


def _value(lines: list[str], after: str, before: str) -> str | None:
    """The text between two markers in the first line that has them."""
    for line in lines:
        _, found, rest = line.partition(after)
        if found and before in rest:
            return rest.split(before, 1)[0].strip()
    return None
