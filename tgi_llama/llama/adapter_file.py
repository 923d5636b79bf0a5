"""What a LoRA adapter's file says of itself, read before llama.cpp loads it.

llama.cpp says clearly what it finds wrong, and lets much pass that ends the process later, in the
middle of a decode: matrices that do not fit each other, metadata of another type, a change of token
embeddings that are the model's output as well. Such files are refused here. What llama.cpp checks
itself is left to it.
"""

from collections.abc import Iterator
from pathlib import Path

import attrs

from tgi_llama.errors import AdapterError
from tgi_llama.generation import AdapterFacts
from tgi_llama.llama.gguf_library import FLOAT32, STRING, gguf_library, open_gguf

_A, _B = ".lora_a", ".lora_b"

_TYPES_OF_KEYS = {
    "general.type": STRING,
    "general.architecture": STRING,
    "adapter.type": STRING,
    "adapter.lora.alpha": FLOAT32,
}
"""llama.cpp reads these, where they are there, as of these types."""

_INVOCATION_TOKENS = "adapter.alora.invocation_tokens"

_MATRIX_TYPES = {0: "F32", 1: "F16", 8: "Q8_0", 30: "BF16"}
"""``enum ggml_type``: what llama.cpp's converter writes. Not all others can be multiplied with."""

_EXPERTS = "_exps."
"""In the names of weights that have a matrix for each expert."""


_Shape = tuple[int, int, int, int]
"""ggml's ``ne``: columns, rows, matrices, 1."""


@attrs.frozen
class _Tensor:
    shape: _Shape
    type: int
    n_bytes: int


@attrs.frozen(kw_only=True)
class AdapterFile:
    """One file's pairs of matrices. A pair A, B changes the weight W to W + scale * B * A."""

    key_types: dict[str, int]
    tensors: dict[str, _Tensor]
    alignment: int

    @property
    def pairs(self) -> dict[str, tuple[_Tensor, _Tensor]]:
        """By the name of the weight; those of which one half is missing are left out."""
        tensors = self.tensors
        names = [name.removesuffix(_A) for name in tensors if name.endswith(_A)]
        return {
            name: (tensors[name + _A], tensors[name + _B]) for name in names if name + _B in tensors
        }

    @property
    def sizes(self) -> dict[str, int]:
        """The bytes that each pair takes in memory, by the name of the weight."""
        return {
            name: sum(-(-part.n_bytes // self.alignment) * self.alignment for part in pair)
            for name, pair in self.pairs.items()
        }

    def facts(self) -> AdapterFacts:
        pairs = self.pairs
        return AdapterFacts(
            n_bytes=sum(self.sizes.values()),
            n_weights=len(pairs),
            rank=max((b.shape[0] for _, b in pairs.values()), default=0),
        )


def read_adapter_file(path: Path) -> AdapterFile:
    """AdapterError where there is no such file or it is not GGUF. The log has llama.cpp's words."""
    if not path.is_file():
        raise AdapterError(f"the adapter {path} is not a file")
    library = gguf_library()
    with open_gguf(path) as context:
        if context is None:
            raise AdapterError(f"the adapter {path} is not a complete GGUF file")
        keys = range(library.gguf_get_n_kv(context))
        return AdapterFile(
            key_types={
                library.gguf_get_key(context, key).decode(): library.gguf_get_kv_type(context, key)
                for key in keys
            },
            tensors=dict(_tensors(context)),
            alignment=library.gguf_get_alignment(context),
        )


def check_adapter_file(file: AdapterFile, *, n_experts: int, is_output_tied: bool) -> None:
    """AdapterError for what would end the process. ``n_experts``: of the model, 0 where it has
    none; ``is_output_tied``: its output matrix is that of its token embeddings."""
    for key, expected in _TYPES_OF_KEYS.items():
        if file.key_types.get(key, expected) != expected:
            raise AdapterError(f"the adapter's metadata {key} has the wrong type")
    if _INVOCATION_TOKENS in file.key_types:
        raise AdapterError(
            "the adapter works only behind its invocation tokens (aLoRA), which is not supported"
        )
    pairs = file.pairs
    if not pairs:
        raise AdapterError("the file has no LoRA matrices: it is not an adapter")
    for name, (a, b) in pairs.items():
        _check_pair(name, a, b, n_experts=n_experts)
        if name == "token_embd.weight" and is_output_tied:
            raise AdapterError(
                "the adapter changes the token embeddings, which are this model's output matrix as"
                " well: llama.cpp cannot apply it"
            )


def _check_pair(name: str, a: _Tensor, b: _Tensor, *, n_experts: int) -> None:
    for tensor in (a, b):
        if tensor.type not in _MATRIX_TYPES:
            known = ", ".join(_MATRIX_TYPES.values())
            raise AdapterError(
                f"the adapter's matrices for {name} are of none of the types {known}"
            )
    # llama.cpp looks rows of the A of token embeddings up, so they have their ranks in one place
    rank = a.shape[0] if name.endswith("token_embd.weight") else a.shape[1]
    n_matrices = n_experts if _EXPERTS in name else 1
    fits = rank == b.shape[0] and {a.shape[2], b.shape[2]} == {n_matrices}
    if not fits or a.shape[3] != 1 or b.shape[3] != 1:
        raise AdapterError(
            f"the adapter's matrices for {name}, {_text(a)} and {_text(b)}, do not fit each other"
            " or the model"
        )


def _text(tensor: _Tensor) -> str:
    return "x".join(str(n) for n in tensor.shape)


def _tensors(context: int) -> Iterator[tuple[str, _Tensor]]:
    library = gguf_library()
    for index in range(library.gguf_get_n_tensors(context)):
        shape = library.gguf_get_tensor_ne(context, index)
        tensor = _Tensor(
            (shape[0], shape[1], shape[2], shape[3]),
            library.gguf_get_tensor_type(context, index),
            library.gguf_get_tensor_size(context, index),
        )
        yield library.gguf_get_tensor_name(context, index).decode("utf-8", "replace"), tensor
