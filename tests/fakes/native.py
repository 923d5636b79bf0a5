"""Not a fake: the types of the fixtures that open a real model (``tests/native/conftest.py``)."""

import contextlib
from collections.abc import Callable

import attrs

from tgi_llama.engine.kv_cache import KvPlan
from tgi_llama.llama.model import Model
from tgi_llama.llama.runner import LlamaRunner
from tgi_llama.llama.vocab import Vocab


@attrs.frozen
class Loaded:
    runner: LlamaRunner
    vocab: Vocab
    plan: KvPlan
    model: Model


Load = Callable[..., "contextlib.AbstractContextManager[Loaded]"]
LoadTiny = Callable[..., "contextlib.AbstractContextManager[Loaded]"]
"""With the model's name first."""
