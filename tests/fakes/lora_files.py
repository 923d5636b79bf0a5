"""Not fakes: LoRA adapters with random weights, in files as llama.cpp's converter writes them."""

from pathlib import Path

import gguf
import numpy as np

import tgi_llama.builtin

BUILTIN_MODEL = Path(tgi_llama.builtin.__file__).parent / "model" / "model.gguf"

_RANK = 4
_CHANGED = ("attn_q.weight", "ffn_down.weight")


def write_adapter(path: Path, *, seed: int = 1, strength: float = 0.3, width: int = 0) -> Path:
    """An adapter of the built-in model. ``strength`` is the spread of its weights: at 0 it changes
    nothing. ``width``: of the model instead of its own, which makes it another model's adapter."""
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(_RANK))
    for tensor in gguf.GGUFReader(BUILTIN_MODEL).tensors:
        if tensor.name.endswith(_CHANGED):
            n_in, n_out = (width or int(size) for size in tensor.shape)
            a = rng.normal(0, strength, (_RANK, n_in)).astype(np.float32)
            b = rng.normal(0, strength, (n_out, _RANK)).astype(np.float32)
            writer.add_tensor(f"{tensor.name}.lora_a", a)
            writer.add_tensor(f"{tensor.name}.lora_b", b)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
