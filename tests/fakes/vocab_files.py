"""Not fakes: vocabularies without a model, and the native log kept quiet while they are loaded."""

import contextlib
import ctypes
from collections.abc import Iterator
from pathlib import Path

import llama_cpp.llama_cpp as native


@native.llama_log_callback
def _ignore_log(_level: int, _text: bytes, _user_data: ctypes.c_void_p) -> None:
    """Stays alive as long as this module, since llama.cpp keeps a pointer to it."""


@contextlib.contextmanager
def quiet_native_log() -> Iterator[None]:
    """Drops llama.cpp's log lines, then puts the previous callback back."""
    callback, user_data = native.llama_log_callback(), ctypes.c_void_p()
    native.llama_log_get(ctypes.byref(callback), ctypes.byref(user_data))
    native.llama_log_set(_ignore_log, ctypes.c_void_p())
    try:
        yield
    finally:
        native.llama_log_set(callback, user_data)


def load_vocab_only(path: Path) -> native.llama_model_p:
    """A model with nothing but its vocabulary, to be freed with ``llama_model_free``."""
    parameters = native.llama_model_default_params()
    parameters.vocab_only = True
    with quiet_native_log():
        model = native.llama_model_load_from_file(str(path).encode(), parameters)
    assert model is not None
    return model
