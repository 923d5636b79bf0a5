"""Files that pass for adapters until llama.cpp reads them."""

import struct
from pathlib import Path

from tgi_llama.errors import ConfigError
from tgi_llama.models.adapters import AdapterFile
from tgi_llama.options.lora import HubSource

EMPTY_GGUF = struct.pack("<4sIQQ", b"GGUF", 3, 0, 0)


def fetch_nothing(source: HubSource, place: str) -> Path:
    """A ``Fetch`` for where there is no hub."""
    raise ConfigError(f"{place}: there is no {source.repo_id!r}, and nothing is downloaded")


def adapter_file(name: str) -> AdapterFile:
    """A file that nobody reads."""
    return AdapterFile(
        name=name, path=Path(f"/adapters/{name}.gguf"), root=f"{name}.gguf", place=name
    )
