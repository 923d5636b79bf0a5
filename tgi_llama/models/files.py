"""Which files are served, and the checks that need no llama.cpp.

Everything here raises ConfigError with a line that names the option and the file, so that a wrong
path is answered before any library is loaded.
"""

import importlib.resources
import os
import stat
import struct
from pathlib import Path

import attrs

from tgi_llama.config import Config
from tgi_llama.errors import ConfigError

BUILTIN_MODEL_ID = "tgi_llama/builtin"

_MAGIC = b"GGUF"
_HEADER = struct.Struct("<4sIQQ")  # magic, version, number of tensors, number of metadata pairs
_VERSIONS = (2, 3)  # what llama.cpp reads


@attrs.frozen(kw_only=True)
class ModelFiles:
    """The model to serve."""

    gguf: Path
    """Checked by ``check_model_file``."""
    tokenizer_folder: Path | None
    """Where tokenizer.json and the chat template may be; None: the GGUF's own are used."""
    model_id: str
    """The name to report to clients."""


def resolve_model(config: Config) -> ModelFiles:
    """Finds the files of the model that the options name."""
    folder = _local_folder(config.model_id)
    if config.model_gguf is not None:
        check_model_file(config.model_gguf)
        model_id = config.model_id or config.model_gguf.stem
        return ModelFiles(gguf=config.model_gguf, tokenizer_folder=folder, model_id=model_id)
    if config.model_id is None:
        return _builtin_model()
    if folder is None:
        raise ConfigError(
            f"--model-id: {config.model_id!r} is not a local folder; give its GGUF file with"
            " --model-gguf (this version downloads nothing)"
        )
    gguf = _only_gguf(folder)
    check_model_file(gguf, option="--model-id")
    return ModelFiles(gguf=gguf, tokenizer_folder=folder, model_id=config.model_id)


def check_model_file(path: Path, option: str = "--model-gguf") -> None:
    """Raises ConfigError where the file cannot be a GGUF file that llama.cpp reads."""
    expected = "expected a GGUF file"
    header = _read_header(path, option=option)
    if not header:
        raise ConfigError(f"{option}: {expected}, but {str(path)!r} is empty")
    if not header.startswith(_MAGIC):
        raise ConfigError(
            f"{option}: {expected}, but {str(path)!r} does not start with the letters GGUF"
        )
    if len(header) < _HEADER.size:
        raise ConfigError(
            f"{option}: {expected}, but {str(path)!r} is cut off after {len(header)} bytes"
        )
    _check_version(header, path, option=option)


def _check_version(header: bytes, path: Path, *, option: str) -> None:
    (_, version, _, _) = _HEADER.unpack(header)
    if version & 0xFFFF == 0:  # llama.cpp's own test for a file of the other byte order
        raise ConfigError(
            f"{option}: expected a little-endian GGUF file, but {str(path)!r} is big-endian"
        )
    if version not in _VERSIONS:
        raise ConfigError(
            f"{option}: expected a GGUF file of version 2 or 3, but {str(path)!r} has version"
            f" {version}"
        )


def _read_header(path: Path, *, option: str) -> bytes:
    """At most the first bytes of a regular file; opening a pipe or a device could wait forever."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            found = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
            raise ConfigError(f"{option}: expected a GGUF file, but {str(path)!r} is {found}")
        with path.open("rb") as file:
            return file.read(_HEADER.size)
    except OSError as error:
        raise ConfigError(
            f"{option}: cannot read the file {str(path)!r}: {error.strerror}"
        ) from error


def _local_folder(model_id: str | None) -> Path | None:
    """The folder that ``--model-id`` names; None where it is a hub's name or nothing."""
    if model_id is None:
        return None
    if os.path.isdir(model_id):  # these two accept any text, where Path's raise on some
        return Path(model_id)
    if os.path.isfile(model_id):
        raise ConfigError(
            f"--model-id: expected a folder or a name, but {model_id!r} is a file; give it with"
            " --model-gguf"
        )
    if model_id.startswith(("/", "./", "../", "~")):  # no hub has such a name: a mistyped path
        raise ConfigError(f"--model-id: there is no folder {model_id!r}")
    return None


def _only_gguf(folder: Path) -> Path:
    preferred = folder / "model.gguf"
    if preferred.exists():
        return preferred
    found = sorted(folder.glob("*.gguf"))
    if not found:
        raise ConfigError(f"--model-id: there is no *.gguf file in the folder {str(folder)!r}")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ConfigError(
            f"--model-id: several GGUF files in the folder {str(folder)!r} ({names}); choose one"
            " with --model-gguf"
        )
    return found[0]


def _builtin_model() -> ModelFiles:
    folder = Path(str(importlib.resources.files("tgi_llama.builtin") / "model"))
    gguf = folder / "model.gguf"
    check_model_file(gguf, option="built-in model")
    return ModelFiles(gguf=gguf, tokenizer_folder=folder, model_id=BUILTIN_MODEL_ID)
