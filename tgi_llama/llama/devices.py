"""The devices that llama.cpp can compute on, read from its backend registry.

llama-cpp-python does not bind these functions, so they are bound here on its shared libraries.
"""

import ctypes
from pathlib import Path

import attrs
import llama_cpp.llama_cpp as native

_GPU_TYPES = (1, 2)
"""``GGML_BACKEND_DEVICE_TYPE_GPU`` and ``..._IGPU`` (ggml/include/ggml-backend.h)."""


@attrs.frozen
class Device:
    name: str
    """The backend's own description, for example a card's name."""
    is_gpu: bool
    free_bytes: int
    total_bytes: int


def devices() -> tuple[Device, ...]:
    """All registered devices. After ``start_backend``."""
    folder = Path(native.__file__).parent / "lib"
    registry = ctypes.CDLL(str(folder / "libggml.so"))
    base = ctypes.CDLL(str(folder / "libggml-base.so"))
    registry.ggml_backend_dev_count.restype = ctypes.c_size_t
    registry.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    registry.ggml_backend_dev_get.restype = ctypes.c_void_p
    base.ggml_backend_dev_description.argtypes = [ctypes.c_void_p]
    base.ggml_backend_dev_description.restype = ctypes.c_char_p
    base.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    base.ggml_backend_dev_memory.argtypes = [ctypes.c_void_p] + [
        ctypes.POINTER(ctypes.c_size_t)
    ] * 2
    base.ggml_backend_dev_memory.restype = None
    return tuple(
        _describe(base, registry.ggml_backend_dev_get(index))
        for index in range(registry.ggml_backend_dev_count())
    )


def _describe(base: ctypes.CDLL, device: int) -> Device:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    base.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
    return Device(
        name=base.ggml_backend_dev_description(device).decode("utf-8", "replace"),
        is_gpu=base.ggml_backend_dev_type(device) in _GPU_TYPES,
        free_bytes=free.value,
        total_bytes=total.value,
    )
