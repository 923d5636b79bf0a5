"""What is in a GGUF file, or in all parts of a split one: metadata and tensors, without their data.

Read by llama.cpp's own reader, so that a file it refuses is refused here with its words.
"""

import contextlib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import attrs

from tgi_llama.errors import ConfigError
from tgi_llama.llama.backend import NativeLog
from tgi_llama.llama.gguf_library import ARRAY, BOOL, NUMBERS, STRING, gguf_library, open_gguf

_LAYER = re.compile(r"blk\.(\d+)\.")
_PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")

Value = str | int | float | bool


@attrs.frozen
class Tensor:
    name: str
    type: str
    """llama.cpp's name, for example ``q4_0``."""
    n_bytes: int
    n_elements: int


@attrs.frozen(kw_only=True)
class GgufFile:
    metadata: dict[str, Value]
    """Single values; of arrays only their lengths, in ``lengths``."""
    lengths: dict[str, int]
    tensors: tuple[Tensor, ...]
    """Of all parts."""
    size_bytes: int
    """Of all parts."""
    paths: tuple[Path, ...]

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", "unknown"))

    def number(self, key: str) -> int | None:
        """A whole number of the architecture's: ``block_count`` is ``qwen2.block_count``."""
        value = self.metadata.get(f"{self.architecture}.{key}")
        return value if isinstance(value, int) else None


@attrs.frozen
class LayerWeights:
    """Bytes of the weights by where llama.cpp puts them."""

    layers: tuple[int, ...]
    """The repeating layers, then the output as the last: llama.cpp's ``--n-gpu-layers`` counts it
    as one, and takes the last ones."""
    host: int
    """The input, which stays in host memory."""
    copied: int = 0
    """Of the output's: what the input has too."""
    adapters: tuple[int, ...] = ()
    """Bytes of LoRA adapters beside the weights of each layer, to which llama.cpp puts them. Empty:
    there are none."""

    @property
    def with_adapters(self) -> tuple[int, ...]:
        """All bytes of each layer."""
        return tuple(map(sum, itertools.zip_longest(self.layers, self.adapters, fillvalue=0)))


def read_gguf(path: Path, log: NativeLog) -> GgufFile:
    """Reads all parts. Raises ConfigError with llama.cpp's words for a damaged file. After
    ``start_backend``."""
    paths = part_paths(path)
    parts = [_read_part(part, log) for part in paths]
    return GgufFile(
        metadata=parts[0].metadata,
        lengths=parts[0].lengths,
        tensors=tuple(tensor for part in parts for tensor in part.tensors),
        size_bytes=sum(part.size_bytes for part in parts),
        paths=paths,
    )


def part_paths(path: Path) -> tuple[Path, ...]:
    """All parts of a split file in their order, by llama.cpp's way to name them; else the file
    itself."""
    found = _PART.fullmatch(path.name)
    if found is None:
        return (path,)
    stem, n_parts = found[1], int(found[3])
    return tuple(
        path.with_name(f"{stem}-{number:05d}-of-{n_parts:05d}.gguf")
        for number in range(1, n_parts + 1)
    )


def layer_weights(file: GgufFile) -> LayerWeights:
    """Which layer each tensor belongs to, by its name.

    A model whose file has no matrix for the output uses the input's, and llama.cpp copies that to
    the GPU.
    """
    n_layers = file.number("block_count") or 0
    layers, host, output, copied = [0] * n_layers, 0, 0, 0
    names = {tensor.name for tensor in file.tensors}
    for tensor in file.tensors:
        found = _LAYER.match(tensor.name)
        if found is not None and int(found[1]) < n_layers:
            layers[int(found[1])] += tensor.n_bytes
        elif tensor.name.startswith("output"):
            output += tensor.n_bytes
        else:
            host += tensor.n_bytes
        if tensor.name == "token_embd.weight" and "output.weight" not in names:
            copied = tensor.n_bytes
    return LayerWeights((*layers, output + copied), host, copied)


def with_adapters(weights: LayerWeights, sizes: Iterable[tuple[str, int]]) -> LayerWeights:
    """With adapters beside them, of which each weight that is changed has so many bytes."""
    adapters = [0] * len(weights.layers)
    for name, n_bytes in sizes:
        found = _LAYER.match(name)
        if found is not None and int(found[1]) < len(adapters) - 1:
            adapters[int(found[1])] += n_bytes
        elif name.startswith("output"):
            adapters[-1] += n_bytes
    return attrs.evolve(weights, adapters=tuple(adapters))


def _read_part(path: Path, log: NativeLog) -> GgufFile:
    library = gguf_library()
    with contextlib.ExitStack() as stack:
        with log.captured() as lines, log.quiet():
            context = stack.enter_context(open_gguf(path))
        if context is None:
            raise ConfigError(f"llama.cpp cannot read {path}: {_reason(path, lines)}")
        n_pairs = library.gguf_get_n_kv(context)
        keys = [_text(library.gguf_get_key(context, index)) for index in range(n_pairs)]
        pairs = dict(zip(keys, range(n_pairs), strict=True))
        arrays = {
            key for key, at in pairs.items() if library.gguf_get_kv_type(context, at) == ARRAY
        }
        return GgufFile(
            metadata={key: _value(context, pairs[key]) for key in keys if key not in arrays},
            lengths={key: int(library.gguf_get_arr_n(context, pairs[key])) for key in arrays},
            tensors=tuple(_tensors(context)),
            size_bytes=path.stat().st_size,
            paths=(path,),
        )


def _value(context: int, at: int) -> Value:
    library = gguf_library()
    kind = library.gguf_get_kv_type(context, at)
    if kind == STRING:
        return _text(library.gguf_get_val_str(context, at))
    if kind == BOOL:
        return bool(library.gguf_get_val_bool(context, at))
    number: int | float = getattr(library, f"gguf_get_val_{NUMBERS[kind]}")(context, at)
    return number


def _tensors(context: int) -> Iterator[Tensor]:
    library = gguf_library()
    for at in range(library.gguf_get_n_tensors(context)):
        kind = library.gguf_get_tensor_type(context, at)
        n_bytes = library.gguf_get_tensor_size(context, at)
        yield Tensor(
            _text(library.gguf_get_tensor_name(context, at)),
            _text(library.ggml_type_name(kind)),
            n_bytes,
            n_bytes // library.ggml_type_size(kind) * library.ggml_blck_size(kind),
        )


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _reason(path: Path, lines: Sequence[str]) -> str:
    """llama.cpp's first words on it without the name of the C++ function."""
    if not path.exists():
        return "there is no such file"
    told = [line.split(": ", 1)[-1].strip() for line in lines if line.strip()]
    return told[0] if told else "it is no GGUF file"
