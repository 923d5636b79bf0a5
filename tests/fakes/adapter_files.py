"""Not fakes: LoRA adapters with random weights, and models into which they were merged by numpy."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs
import gguf
import numpy as np
from gguf.quants import dequantize
from numpy.typing import NDArray

Matrix = NDArray[np.float32]

_CHANGED = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down", "ssm_in")
"""Parts of the names of weights that adapters change here."""


@attrs.frozen(eq=False)
class Pair:
    """W becomes W + scale * alpha / rank * b @ a; shapes (rank, columns) and (rows, rank)."""

    a: Matrix
    b: Matrix


def read_matrices(path: Path) -> dict[str, Matrix]:
    """The weights of a model in float32, by name."""
    tensors = gguf.GGUFReader(path).tensors
    return {each.name: dequantize(each.data, each.tensor_type) for each in tensors}


def random_pairs(
    model: Path, *, rank: int = 8, seed: int = 1, size: float = 0.5, names: Iterable[str] = ()
) -> dict[str, Pair]:
    """For the weights of those names, or for many that every architecture has. ``size``: of the
    change relative to the weight."""
    rng = np.random.default_rng(seed)
    pairs = {}
    for name, weight in read_matrices(model).items():
        is_changed = name in names or (
            not names and name.split(".")[-2] in _CHANGED and name.endswith(".weight")
        )
        if is_changed:
            n_rows, n_columns = weight.shape
            a = rng.normal(size=(rank, n_columns)) * weight.std()
            b = rng.normal(size=(n_rows, rank)) * size / np.sqrt(rank)
            pairs[name] = Pair(a.astype(np.float32), b.astype(np.float32))
    return pairs


def write_adapter(
    path: Path,
    pairs: Mapping[str, Pair],
    *,
    alpha: float = 8.0,
    architecture: str = "llama",
    metadata: Mapping[str, object] | None = None,
    replaced: Mapping[str, "NDArray[np.generic] | None"] | None = None,
) -> Path:
    """A float32 adapter. ``metadata`` says otherwise, or more, than what belongs there; as do
    ``replaced`` of the tensors, None leaving one out."""
    writer = gguf.GGUFWriter(path, architecture)
    values: dict[str, object] = {
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": np.float32(alpha),
    }
    for key, value in (values | dict(metadata or {})).items():
        _add(writer, key, value)
    tensors: dict[str, NDArray[np.generic] | None] = {}
    for name, pair in pairs.items():
        flipped = name == "token_embd.weight"  # its rows are looked up: llama.cpp wants A's inverse
        tensors[f"{name}.lora_a"] = pair.b if flipped else pair.a
        tensors[f"{name}.lora_b"] = np.ascontiguousarray(pair.a.T) if flipped else pair.b
    for name, data in (tensors | dict(replaced or {})).items():
        if data is not None:
            writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, key: str, value: object) -> None:
    if isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, np.float32):
        writer.add_float32(key, float(value))
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    else:
        assert isinstance(value, list)
        writer.add_array(key, value)


def write_merged(
    model: Path,
    path: Path,
    pairs: Mapping[str, Pair],
    *,
    scale: float = 1.0,
    alpha: float = 8.0,
    untied: bool = False,
) -> Path:
    """A copy of the model in float32 with the pairs merged into its weights. ``untied``: with an
    output matrix of its own, equal to the token embeddings before."""
    reader = gguf.GGUFReader(model)
    writer = gguf.GGUFWriter(path, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            kind, *of = field.types
            writer.add_key_value(name, field.contents(), kind, of[0] if of else None)
    matrices = read_matrices(model)
    if untied:
        matrices["output.weight"] = matrices["token_embd.weight"].copy()
    for name, weight in matrices.items():
        merged = weight.astype(np.float64)
        if name in pairs:
            a, b = pairs[name].a.astype(np.float64), pairs[name].b.astype(np.float64)
            merged = merged + scale * alpha / a.shape[0] * (b @ a)
        writer.add_tensor(name, merged.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
