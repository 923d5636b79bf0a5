"""The devices that llama.cpp can compute on, read from its backend registry.

llama-cpp-python does not declare these functions, so they are declared here.
"""

import ctypes
import enum
from collections.abc import Sequence
from typing import Any

import attrs
import llama_cpp.llama_cpp as native


class DeviceKind(enum.Enum):
    """``ggml_backend_dev_type`` (ggml/include/ggml-backend.h)."""

    CPU = 0
    GPU = 1
    INTEGRATED_GPU = 2
    """One that uses host memory."""
    ACCELERATOR = 3
    """A library for CPUs such as BLAS."""
    META = 4


@attrs.frozen(kw_only=True)
class Device:
    name: str
    """llama.cpp's, for example ``CUDA0``; its log names the memory so."""
    description: str
    """The backend's own, for example the card's name."""
    kind: DeviceKind
    backend: str
    """For example ``CUDA`` or ``Vulkan``."""
    device_id: str | None = None
    """PCI address: a card that two backends know has the same one in both."""
    splits_rows: bool = False
    """Whether its backend can share out single matrices (``--split-mode row``)."""
    free_bytes: int
    """0, like the total, where the backend does not tell."""
    total_bytes: int


class _Properties(ctypes.Structure):
    """``ggml_backend_dev_props``."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("description", ctypes.c_char_p),
        ("memory_free", ctypes.c_size_t),
        ("memory_total", ctypes.c_size_t),
        ("type", ctypes.c_int),
        ("device_id", ctypes.c_char_p),
        ("capabilities", ctypes.c_bool * 5),
    ]


def devices() -> tuple[Device, ...]:
    """All registered devices. After ``start_backend``."""
    library = _library()
    n_devices = library.ggml_backend_dev_count()
    return tuple(_describe(library.ggml_backend_dev_get(index)) for index in range(n_devices))


def backends() -> tuple[str, ...]:
    """What llama.cpp was built with, also where no device is there. After ``start_backend``."""
    library = _library()
    return tuple(
        library.ggml_backend_reg_name(library.ggml_backend_reg_get(index)).decode()
        for index in range(library.ggml_backend_reg_count())
    )


def _library() -> ctypes.CDLL:
    # libllama finds the functions of the libraries it is linked to. A library of the same name that
    # is opened by its path can be another copy, with a registry of its own.
    library: ctypes.CDLL = native._lib
    pointer = ctypes.c_void_p
    functions: tuple[tuple[Any, Any, list[Any]], ...] = (
        (library.ggml_backend_dev_count, ctypes.c_size_t, []),
        (library.ggml_backend_dev_get, pointer, [ctypes.c_size_t]),
        (library.ggml_backend_dev_get_props, None, [pointer, ctypes.POINTER(_Properties)]),
        (library.ggml_backend_dev_backend_reg, pointer, [pointer]),
        (library.ggml_backend_reg_count, ctypes.c_size_t, []),
        (library.ggml_backend_reg_get, pointer, [ctypes.c_size_t]),
        (library.ggml_backend_reg_name, ctypes.c_char_p, [pointer]),
        (library.ggml_backend_reg_get_proc_address, pointer, [pointer, ctypes.c_char_p]),
    )
    for function, result, arguments in functions:
        function.restype = result
        function.argtypes = arguments
    return library


def _describe(device: int) -> Device:
    library = _library()
    found = _Properties()
    library.ggml_backend_dev_get_props(device, ctypes.byref(found))
    registry = library.ggml_backend_dev_backend_reg(device)
    split = library.ggml_backend_reg_get_proc_address(registry, b"ggml_backend_split_buffer_type")
    return Device(
        name=found.name.decode("utf-8", "replace"),
        description=found.description.decode("utf-8", "replace"),
        kind=DeviceKind(found.type),
        backend=library.ggml_backend_reg_name(registry).decode("utf-8", "replace"),
        device_id=found.device_id.decode("utf-8", "replace") if found.device_id else None,
        splits_rows=split is not None,
        free_bytes=found.memory_free,
        total_bytes=found.memory_total,
    )


def usable_gpus(found: Sequence[Device]) -> tuple[Device, ...]:
    """Those that llama.cpp shares a model out to, in its order (``llama_prepare_model_devices``):
    the order in which ``--split-mode N`` and ``--tensor-split`` count them.

    Remote ones come first; a card that two backends know counts once; integrated ones count only
    where there are no others, and only those of one backend.
    """
    gpus: list[Device] = []
    remote = [each for each in found if each.kind is DeviceKind.GPU and each.backend == "RPC"]
    integrated = [each for each in found if each.kind is DeviceKind.INTEGRATED_GPU]
    for each in found:
        known = {gpu.device_id for gpu in gpus} - {None}
        if each.kind is DeviceKind.GPU and each not in remote and each.device_id not in known:
            gpus.append(each)
    own = gpus or [each for each in integrated if each.backend == integrated[0].backend]
    return (*remote, *own)
