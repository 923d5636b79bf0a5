"""The built-in model, and tiny ones of every kind of memory."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.native import Load, Loaded, LoadTiny
from fakes.tiny_models import write_tiny_model

import tgi_llama.builtin
from tgi_llama.config import Config
from tgi_llama.llama.backend import NativeLog, start_backend
from tgi_llama.llama.context_params import kv_plan
from tgi_llama.llama.model import Model
from tgi_llama.llama.runner import open_runner
from tgi_llama.llama.vocab import Vocab

GGUF = Path(tgi_llama.builtin.__file__).parent / "model" / "model.gguf"


@pytest.fixture(scope="session")
def native_log() -> NativeLog:
    return start_backend("disabled")


@pytest.fixture(scope="session")
def gguf() -> Path:
    return GGUF


@pytest.fixture(scope="session")
def load(native_log: NativeLog, gguf: Path) -> Load:
    """Opens the built-in model with some options: ``with load(n_threads=1) as loaded``."""

    @contextlib.contextmanager
    def open_model(path: Path = gguf, **options: object) -> Iterator[Loaded]:
        # One thread: with two, a tiny model spends its time waiting where something else runs too.
        defaults = {"n_threads": 1, "max_batch_size": 4, "max_total_tokens": 512}
        config = Config(**({"max_input_tokens": 256} | defaults | options))  # type: ignore[arg-type]
        plan = kv_plan(config)
        with (
            Model(path, config, native_log, lambda _fraction: True) as model,
            open_runner(model, config, plan=plan, log=native_log) as runner,
        ):
            yield Loaded(runner, Vocab(model.vocab_pointer), runner.plan, model)

    return open_model


@pytest.fixture(scope="session")
def load_tiny(load: Load, tmp_path_factory: pytest.TempPathFactory) -> LoadTiny:
    """Opens one of ``TINY_MODELS``, whose files are made once: ``with load_tiny("mamba") as m``."""
    folder = tmp_path_factory.mktemp("tiny")
    paths: dict[str, Path] = {}

    def open_tiny(name: str, **options: object) -> "contextlib.AbstractContextManager[Loaded]":
        if name not in paths:
            paths[name] = write_tiny_model(name, folder)
        return load(paths[name], **options)

    return open_tiny
