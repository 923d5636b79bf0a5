"""The checks of a GGUF file that need no llama.cpp, made before any library is loaded."""

import stat
import struct
from pathlib import Path

from tgi_llama.errors import ConfigError

_MAGIC = b"GGUF"
_HEADER = struct.Struct("<4sIQQ")  # magic, version, number of tensors, number of metadata pairs
_VERSIONS = (2, 3)  # what llama.cpp reads


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
