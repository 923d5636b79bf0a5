"""A model as it is trained and published: config.json, a tokenizer, weights in safetensors."""

import hashlib
import json
import math
import struct
from pathlib import Path

import attrs

from tgi_llama.errors import ConfigError

ADAPTER_CONFIG = "adapter_config.json"
"""Only a LoRA adapter's folder, as PEFT writes it, has this file."""

_CONFIG = "config.json"
_INDEX = "model.safetensors.index.json"
"""Which tensor is in which of several files."""
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
"""In the order in which llama.cpp's converter looks for them."""
_LENGTH = struct.Struct("<Q")  # of the JSON that a safetensors file begins with
_MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit


@attrs.frozen(kw_only=True)
class Checkpoint:
    """What can be known of the weights without reading them."""

    folder: Path
    n_parameters: int
    """An estimate where the weights are not in safetensors files."""
    is_float32: bool
    """Whether most of the weights are single precision numbers."""


def open_checkpoint(folder: Path) -> Checkpoint:
    """Raises ConfigError where the folder holds no model that could be converted."""
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {str(folder)!r}")
    if not (folder / _CONFIG).is_file():
        raise ConfigError(f"there is no {_CONFIG} in the folder {str(folder)!r}")
    files = next((found for each in _WEIGHTS if (found := sorted(folder.glob(each)))), [])
    if not files:
        raise ConfigError(f"there is no *.safetensors file in the folder {str(folder)!r}")
    _check_complete(folder)
    counts: dict[str, int] = {}
    for path in files:
        for kind, n in _counts(path).items():
            counts[kind] = counts.get(kind, 0) + n
    n_parameters = sum(counts.values())
    return Checkpoint(
        folder=folder,
        n_parameters=n_parameters,
        is_float32=2 * counts.get("F32", 0) > n_parameters,
    )


def _check_complete(folder: Path) -> None:
    """Raises ConfigError that names the first part of the weights that is missing."""
    index = folder / _INDEX
    try:
        parts = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    except FileNotFoundError:  # they are in one file
        return
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"cannot read {str(index)!r}: {error}") from error
    missing = sorted(part for part in parts if not (folder / str(part)).is_file())
    if missing:
        raise ConfigError(
            f"the folder {str(folder)!r} lacks {missing[0]!r}, one of the {len(parts)} parts of the"
            " model"
        )


def folder_version(folder: Path) -> str:
    """A short name of what the folder holds: another when a file is added, removed or changed.

    Contents are not read, which would take minutes: names, sizes and times of change stand for
    them. GGUF files in the folder, which are results, do not count.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix == ".gguf" or not path.is_file():
            continue
        facts = path.stat()
        digest.update(f"{path.name}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _counts(path: Path) -> dict[str, int]:
    """Numbers in the file by their type. ConfigError where it cannot be read."""
    try:
        if path.suffix != ".safetensors":
            return {"16 bits, mostly": path.stat().st_size // 2}
        return _safetensors_counts(path)
    except OSError as error:
        raise ConfigError(f"cannot read the file {str(path)!r}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ConfigError(
            f"expected a safetensors file, but {str(path)!r} is none, or is cut off"
        ) from error


def _safetensors_counts(path: Path) -> dict[str, int]:
    size = path.stat().st_size
    with path.open("rb") as file:
        (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
        if length > min(size, _MAX_HEADER_BYTES):
            raise ValueError("the header is longer than the file")
        tensors = json.loads(file.read(length))
    counts: dict[str, int] = {}
    end = 0
    for name, tensor in tensors.items():
        if name != "__metadata__":
            kind = tensor["dtype"]
            counts[kind] = counts.get(kind, 0) + math.prod(tensor["shape"])
            end = max(end, tensor["data_offsets"][1])
    if size < _LENGTH.size + length + end:
        raise ValueError("data are missing")
    return counts
