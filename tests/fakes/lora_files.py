"""Not fakes: LoRA adapters of the built-in model with random weights."""

from pathlib import Path

import gguf
import numpy as np
from fakes import adapter_files

import tgi_llama.builtin

BUILTIN_MODEL = Path(tgi_llama.builtin.__file__).parent / "model" / "model.gguf"

_RANK = 4
_CHANGED = ("attn_q.weight", "ffn_down.weight")


def write_adapter(path: Path, *, seed: int = 1, strength: float = 0.3, width: int = 0) -> Path:
    """An adapter of the built-in model. ``strength`` is the spread of its weights: at 0 it changes
    nothing. ``width``: of the model instead of its own, which makes it another model's adapter."""
    rng = np.random.default_rng(seed)
    pairs = {}
    for tensor in gguf.GGUFReader(BUILTIN_MODEL).tensors:
        if tensor.name.endswith(_CHANGED):
            n_in, n_out = (width or int(size) for size in tensor.shape)
            pairs[tensor.name] = adapter_files.Pair(
                a=rng.normal(0, strength, (_RANK, n_in)).astype(np.float32),
                b=rng.normal(0, strength, (n_out, _RANK)).astype(np.float32),
            )
    return adapter_files.write_adapter(path, pairs, alpha=float(_RANK))
