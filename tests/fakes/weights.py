"""Not fakes: GGUF files with a few weights and no vocabulary, for llama.cpp to quantize."""

from pathlib import Path

import gguf
import numpy as np

_WIDTH = 256
"""The block of llama.cpp's types with a K in their name."""


def write_weights(path: Path) -> Path:
    """Half a megabyte of random numbers, with the names and sizes of a llama model."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(_WIDTH)
    writer.add_feed_forward_length(_WIDTH)
    writer.add_block_count(1)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(_WIDTH)
    rng = np.random.default_rng(0)
    for name in ("token_embd", "output", "blk.0.attn_q", "blk.0.attn_k", "blk.0.ffn_down"):
        weights = rng.normal(size=(_WIDTH, _WIDTH)).astype(np.float32)
        writer.add_tensor(f"{name}.weight", weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def types_of(path: Path) -> dict[str, str]:
    """From the tensors' names to their types."""
    return {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}
