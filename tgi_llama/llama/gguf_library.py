"""llama.cpp's reader of GGUF files. llama-cpp-python does not declare its functions; libllama links
to them."""

import contextlib
import ctypes
import functools
import os
from collections.abc import Iterator
from pathlib import Path

import llama_cpp.llama_cpp as native

NUMBERS = {
    0: "u8",
    1: "i8",
    2: "u16",
    3: "i16",
    4: "u32",
    5: "i32",
    6: "f32",
    10: "u64",
    11: "i64",
    12: "f64",
}
FLOAT32, BOOL, STRING, ARRAY = 6, 7, 8, 9
"""``enum gguf_type`` (ggml/include/gguf.h)."""


class _InitParams(ctypes.Structure):
    """``gguf_init_params``"""

    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


_POINTER, _INDEX = ctypes.c_void_p, ctypes.c_int64
_OF_PAIR = {
    "gguf_get_val_u8": ctypes.c_uint8,
    "gguf_get_val_i8": ctypes.c_int8,
    "gguf_get_val_u16": ctypes.c_uint16,
    "gguf_get_val_i16": ctypes.c_int16,
    "gguf_get_val_u32": ctypes.c_uint32,
    "gguf_get_val_i32": ctypes.c_int32,
    "gguf_get_val_u64": ctypes.c_uint64,
    "gguf_get_val_i64": ctypes.c_int64,
    "gguf_get_val_f32": ctypes.c_float,
    "gguf_get_val_f64": ctypes.c_double,
    "gguf_get_val_bool": ctypes.c_bool,
    "gguf_get_val_str": ctypes.c_char_p,
    "gguf_get_arr_n": ctypes.c_size_t,
    "gguf_get_key": ctypes.c_char_p,
    "gguf_get_kv_type": ctypes.c_int,
}
_OF_TENSOR = {
    "gguf_get_tensor_name": ctypes.c_char_p,
    "gguf_get_tensor_ne": ctypes.POINTER(ctypes.c_int64),
    "gguf_get_tensor_type": ctypes.c_int,
    "gguf_get_tensor_size": ctypes.c_size_t,
}
_OF_FILE = {
    "gguf_free": None,
    "gguf_get_alignment": ctypes.c_size_t,
    "gguf_get_n_kv": _INDEX,
    "gguf_get_n_tensors": _INDEX,
}
_OF_TYPE = {
    "ggml_type_name": ctypes.c_char_p,
    "ggml_blck_size": ctypes.c_int64,
    "ggml_type_size": ctypes.c_size_t,
}


@functools.cache
def gguf_library() -> ctypes.CDLL:
    """The library with these functions declared."""
    library: ctypes.CDLL = native._lib
    for results, arguments in (
        (_OF_PAIR, (_POINTER, _INDEX)),
        (_OF_TENSOR, (_POINTER, _INDEX)),
        (_OF_FILE, (_POINTER,)),
        (_OF_TYPE, (ctypes.c_int,)),
        ({"gguf_init_from_file": _POINTER}, (ctypes.c_char_p, _InitParams)),
    ):
        for name, result in results.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    return library


@contextlib.contextmanager
def open_gguf(path: Path) -> Iterator[int | None]:
    """The file's metadata and list of tensors, as a pointer for the functions above; None where
    llama.cpp cannot read it, which its log explains."""
    library = gguf_library()
    pointer = library.gguf_init_from_file(os.fsencode(path), _InitParams(no_alloc=True, ctx=None))
    try:
        yield pointer
    finally:
        if pointer:
            library.gguf_free(pointer)
