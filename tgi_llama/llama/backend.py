"""The native library as a whole: its version, its log, its NUMA strategy.

Process-wide state of llama.cpp, set once before the first model is loaded.
"""

import contextlib
import ctypes
import functools
import importlib.metadata
import logging
from collections.abc import Iterator

import attrs
import llama_cpp.llama_cpp as native

from tgi_llama.errors import StartError

REQUIRED_VERSION = "0.3.36"
"""Of llama-cpp-python. Its ctypes structs follow llama.cpp's, which change between releases, and a
struct that does not match makes the library read other fields than were meant."""

STRUCT_SIZES = {
    "llama_model_params": 80,
    "llama_context_params": 160,
    "llama_batch": 56,
    "llama_model_quantize_params": 64,
}
"""``sizeof`` in bytes on 64-bit systems, of the structs we fill in."""

NUMA_STRATEGIES = {
    "disabled": native.GGML_NUMA_STRATEGY_DISABLED,
    "distribute": native.GGML_NUMA_STRATEGY_DISTRIBUTE,
    "isolate": native.GGML_NUMA_STRATEGY_ISOLATE,
    "numactl": native.GGML_NUMA_STRATEGY_NUMACTL,
    "mirror": native.GGML_NUMA_STRATEGY_MIRROR,
}

_LEVELS = {1: logging.DEBUG, 2: logging.INFO, 3: logging.WARNING, 4: logging.ERROR}
"""ggml's log levels; 5 continues the line before."""
_CONTINUATION = 5

_log = logging.getLogger("llamacpp")


def check_version(version: str, sizes: dict[str, int]) -> None:
    """StartError when the installed llama-cpp-python is not the one these structs were made for."""
    if version != REQUIRED_VERSION:
        raise StartError(
            f"llama-cpp-python {version} is installed, but this release needs {REQUIRED_VERSION}"
        )
    for name, size in STRUCT_SIZES.items():
        if sizes[name] != size:
            raise StartError(f"llama-cpp-python's {name} has {sizes[name]} bytes, {size} expected")


def installed() -> tuple[str, dict[str, int]]:
    """The installed version and the sizes of its structs, for ``check_version``."""
    sizes = {name: ctypes.sizeof(getattr(native, name)) for name in STRUCT_SIZES}
    return importlib.metadata.version("llama-cpp-python"), sizes


@attrs.define(eq=False)
class NativeLog:
    """Passes llama.cpp's log lines to ``logging`` and keeps those of ``captured`` blocks.

    llama.cpp calls it from whichever thread logs. It is not safe to replace the native callback
    while another thread logs, so one callback stays for good.
    """

    _line: str = ""
    _level: int = logging.INFO
    _captured: list[list[str]] = attrs.field(factory=list)
    """Of the open ``captured`` blocks, which may be nested."""
    _quiet_below: int = 0
    """Lines below this level of ``logging`` are not passed on."""

    def install(self) -> None:
        """Replaces the callback that writes to stderr. Before the first model is loaded."""
        callback = native.llama_log_callback(self._receive)
        _keep_alive.append(callback)
        native.llama_log_set(callback, None)

    @contextlib.contextmanager
    def captured(self) -> Iterator[list[str]]:
        """Collects the lines that are logged meanwhile."""
        lines: list[str] = []
        self._captured.append(lines)
        try:
            yield lines
        finally:
            self._captured.pop()

    @contextlib.contextmanager
    def quiet(self, *, below: int = logging.CRITICAL) -> Iterator[None]:
        """Passes nothing on to ``logging`` that is below the level meanwhile; lines are collected
        all the same."""
        self._quiet_below = below
        try:
            yield
        finally:
            self._quiet_below = 0

    def _receive(self, level: int, text: bytes, _user_data: object) -> None:
        if level != _CONTINUATION:
            self._level = _LEVELS.get(level, logging.DEBUG)
        if not self._captured and not _log.isEnabledFor(self._level):
            return  # llama.cpp logs debug lines in every decode
        self._line += text.decode("utf-8", "replace")
        while "\n" in self._line:
            line, self._line = self._line.split("\n", 1)
            for lines in self._captured:
                lines.append(line)
            # dots are its progress bar; ours says more
            if line.strip(". ") and self._level >= self._quiet_below:
                _log.log(self._level, "%s", line.rstrip())


# The native side holds a pointer to the callback until the process ends, so it must never be freed.
_keep_alive: list[object] = []


@functools.cache
def start_backend(numa: str) -> NativeLog:
    """Prepares the library before any model is loaded; the work is done once per process.

    Raises StartError when another release of llama-cpp-python is installed.
    """
    check_version(*installed())
    log = NativeLog()
    log.install()
    native.llama_backend_init()
    if numa != "disabled":
        native.llama_numa_init(NUMA_STRATEGIES[numa])
        if not uses_numa():
            _log.warning("--numa %s has no effect: this machine has one NUMA node", numa)
    return log


def uses_numa() -> bool:
    """Whether llama.cpp runs with a NUMA strategy on more than one node. It does not tell which
    strategy; llama-cpp-python does not declare the function, which libllama links to."""
    return bool(native._lib.ggml_is_numa())
