"""A graphics card for llama.cpp that is none: it has memory of its own and computes on the CPU.

It stands behind ggml's real interface for devices (``ggml-backend-impl.h``, whose structs are
repeated here for the version that is pinned), so llama.cpp loads, splits, measures and decodes as
it does with a card: only the kernels are the CPU's. Its memory is host memory that llama.cpp may
not touch except through it.
"""

import contextlib
import ctypes
from collections.abc import Callable, Iterator, Sequence
from ctypes import POINTER, Structure, c_bool, c_char_p, c_int, c_size_t, c_void_p
from typing import Any

import attrs
import llama_cpp.llama_cpp as native

_API_VERSION = 2
_GPU, _INTEGRATED = 1, 2


def _pointers(*names: str) -> list[tuple[str, Any]]:
    return [(name, c_void_p) for name in names]


class _BufferType(Structure):
    _fields_ = _pointers(
        *("get_name", "alloc_buffer", "get_alignment", "get_max_size", "get_alloc_size"),
        *("is_host", "device", "context"),
    )


class _Buffer(Structure):
    """The beginning of one."""

    _fields_ = [("free_buffer", c_void_p), ("iface", c_void_p * 10), ("buffer_type", c_void_p)]


class _Backend(Structure):
    _fields_ = _pointers(
        *("guid", "get_name", "free", "set_tensor_async", "get_tensor_async"),
        *("set_tensor_2d_async", "get_tensor_2d_async", "cpy_tensor_async", "synchronize"),
        *("graph_plan_create", "graph_plan_free", "graph_plan_update", "graph_plan_compute"),
        *("graph_compute", "event_record", "event_wait", "graph_optimize", "device", "context"),
    )


class _Device(Structure):
    _fields_ = _pointers(
        *("get_name", "get_description", "get_memory", "get_type", "get_props", "init_backend"),
        *("get_buffer_type", "get_host_buffer_type", "buffer_from_host_ptr", "supports_op"),
        *("supports_buft", "offload_op", "event_new", "event_free", "event_synchronize"),
        *("reg", "context"),
    )


class _Properties(Structure):
    _fields_ = [
        ("name", c_void_p),
        ("description", c_void_p),
        ("memory_free", c_size_t),
        ("memory_total", c_size_t),
        ("type", c_int),
        ("device_id", c_void_p),
        ("capabilities", c_bool * 5),
    ]


class _Registry(Structure):
    _fields_ = [
        ("api_version", c_int),
        *_pointers("get_name", "get_device_count", "get_device", "get_proc_address", "context"),
    ]


_keep_alive: list[object] = []
"""What llama.cpp has pointers to: until the process ends, since it tells nobody when it forgets."""


def _function(result: Any, *arguments: Any) -> Callable[[Callable[..., Any]], int]:
    """A decorator: the address of a function that C can call."""

    def make(function: Callable[..., Any]) -> int:
        callback = ctypes.CFUNCTYPE(result, *arguments)(function)
        _keep_alive.append(callback)
        address = ctypes.cast(callback, c_void_p).value
        assert address is not None
        return address

    return make


_ggml = native._lib
"""Finds the functions of the libraries that libllama is linked to. A library of the same name that
is opened by its path can be another copy, with a registry of its own."""

for _declared in (
    _ggml.ggml_backend_buft_alloc_buffer,
    _ggml.ggml_backend_cpu_buffer_type,
    _ggml.ggml_backend_cpu_init,
    _ggml.ggml_backend_dev_by_type,
):
    _declared.restype = c_void_p
_ggml.ggml_backend_buft_alloc_buffer.argtypes = [c_void_p, c_size_t]
_ggml.ggml_backend_graph_compute.argtypes = [c_void_p, c_void_p]
_ggml.ggml_backend_dev_supports_op.argtypes = [c_void_p, c_void_p]
_ggml.ggml_backend_dev_supports_op.restype = c_bool
for _declared in (
    _ggml.ggml_backend_free,
    _ggml.ggml_backend_register,
    _ggml.ggml_backend_unload,
):
    _declared.argtypes = [c_void_p]
    _declared.restype = None


def _text(value: str) -> int:
    """The address of a C string."""
    buffer = ctypes.create_string_buffer(value.encode())
    _keep_alive.append(buffer)
    return ctypes.addressof(buffer)


@attrs.define(eq=False)
class FakeGpu:
    """One card. ``free_bytes`` is what it tells; more than that it does not give."""

    name: str
    free_bytes: int
    total_bytes: int = 0
    is_integrated: bool = False
    device_id: str | None = None
    _buffers: dict[int, int] = attrs.field(factory=dict, init=False)
    """Size by address of those that are not freed yet."""
    n_graphs: int = attrs.field(default=0, init=False)
    """That it has computed."""

    @property
    def taken_bytes(self) -> int:
        return sum(self._buffers.values())

    def allocate(self, n_bytes: int) -> int | None:
        """A buffer, or None where its memory does not suffice."""
        if self.taken_bytes + n_bytes > self.free_bytes:
            return None
        memory_type = _ggml.ggml_backend_cpu_buffer_type()
        address = _ggml.ggml_backend_buft_alloc_buffer(memory_type, n_bytes)
        assert isinstance(address, int)
        self._buffers[address] = n_bytes
        return address

    def forget(self, address: int) -> None:
        """The buffer is freed."""
        del self._buffers[address]


@contextlib.contextmanager
def fake_gpus(cards: Sequence[FakeGpu], *, backend: str = "Fake") -> Iterator[None]:
    """llama.cpp has these cards meanwhile. All models must be freed before it ends."""
    registry = _Registry(api_version=_API_VERSION)
    address = ctypes.addressof(registry)
    devices = [_device(card, address) for card in cards]
    addresses = [ctypes.addressof(device) for device in devices]
    name = _text(backend)
    registry.get_name = _function(c_void_p, c_void_p)(lambda _: name)
    registry.get_device_count = _function(c_size_t, c_void_p)(lambda _: len(cards))
    registry.get_device = _function(c_void_p, c_void_p, c_size_t)(lambda _, index: addresses[index])
    registry.get_proc_address = _function(c_void_p, c_void_p, c_char_p)(lambda *_: None)
    _keep_alive.extend((registry, devices))
    _ggml.ggml_backend_register(address)
    try:
        yield
    finally:
        _ggml.ggml_backend_unload(address)


def _device(card: FakeGpu, registry: int) -> _Device:
    device = _Device(reg=registry)
    address = ctypes.addressof(device)
    buffer_type = _buffer_type(card, address)
    buffer_address = ctypes.addressof(buffer_type)
    name, description = _text(card.name), _text(f"{card.name} of the tests")
    kind = _INTEGRATED if card.is_integrated else _GPU
    total = card.total_bytes or card.free_bytes
    device_id = _text(card.device_id) if card.device_id else None
    cpu = _ggml.ggml_backend_dev_by_type(0)

    def get_memory(_: int, free: Any, of: Any) -> None:
        free[0], of[0] = card.free_bytes, total

    def get_props(_: int, props: Any) -> None:
        props[0] = _Properties(
            name, description, card.free_bytes, total, kind, device_id, (c_bool * 5)()
        )

    device.get_name = _function(c_void_p, c_void_p)(lambda _: name)
    device.get_description = _function(c_void_p, c_void_p)(lambda _: description)
    device.get_memory = _function(None, c_void_p, *[POINTER(c_size_t)] * 2)(get_memory)
    device.get_type = _function(c_int, c_void_p)(lambda _: kind)
    device.get_props = _function(None, c_void_p, POINTER(_Properties))(get_props)
    device.init_backend = _function(c_void_p, c_void_p, c_char_p)(
        lambda *_: _backend(card, address)
    )
    device.get_buffer_type = _function(c_void_p, c_void_p)(lambda _: buffer_address)
    device.supports_op = _function(c_bool, c_void_p, c_void_p)(
        lambda _, op: _ggml.ggml_backend_dev_supports_op(cpu, op)
    )
    device.supports_buft = _function(c_bool, c_void_p, c_void_p)(
        lambda _, given: given == buffer_address
    )
    _keep_alive.append(buffer_type)
    return device


def _buffer_type(card: FakeGpu, device: int) -> _BufferType:
    found = _BufferType(device=device)
    name = _text(card.name)

    def allocate(_: int, n_bytes: int) -> int | None:
        address = card.allocate(n_bytes)
        if address is not None:
            buffer = _Buffer.from_address(address)
            buffer.buffer_type = ctypes.addressof(found)
            free_on_host.append(buffer.free_buffer)  # the same for all
            buffer.free_buffer = free_address
        return address

    def free(address: int) -> None:
        card.forget(address)
        ctypes.CFUNCTYPE(None, c_void_p)(free_on_host[0])(address)

    free_on_host: list[int] = []
    free_address = _function(None, c_void_p)(free)

    found.get_name = _function(c_void_p, c_void_p)(lambda _: name)
    found.alloc_buffer = _function(c_void_p, c_void_p, c_size_t)(allocate)
    found.get_alignment = _function(c_size_t, c_void_p)(lambda _: 64)
    found.is_host = _function(c_bool, c_void_p)(lambda _: False)
    return found


def _backend(card: FakeGpu, device: int) -> int:
    cpu = _ggml.ggml_backend_cpu_init()
    guid, name = (ctypes.c_uint8 * 16)(*b"a card of tests!"), _text(card.name)

    def compute(_: int, graph: int) -> int:
        card.n_graphs += 1
        return int(_ggml.ggml_backend_graph_compute(cpu, graph))

    backend = _Backend(guid=ctypes.addressof(guid), device=device)
    backend.get_name = _function(c_void_p, c_void_p)(lambda _: name)
    backend.free = _function(None, c_void_p)(lambda _: _ggml.ggml_backend_free(cpu))
    backend.graph_compute = _function(c_int, c_void_p, c_void_p)(compute)
    _keep_alive.extend((guid, backend))
    return ctypes.addressof(backend)
