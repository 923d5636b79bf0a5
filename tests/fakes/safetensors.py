"""Files in the format of safetensors taken apart, as published models come in several."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path

_LENGTH = struct.Struct("<Q")


def split_checkpoint(folder: Path) -> dict[str, bytes]:
    """The files of the folder with its ``model.safetensors`` in two parts, and their index."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    tensors = _tensors(files.pop("model.safetensors"))
    names = sorted(tensors)
    half = len(names) // 2
    parts = {
        f"model-0000{number}-of-00002.safetensors": part
        for number, part in ((1, names[:half]), (2, names[half:]))
    }
    weight_map = {name: part for part, members in parts.items() for name in members}
    return {
        **files,
        **{part: _file({name: tensors[name] for name in parts[part]}) for part in parts},
        "model.safetensors.index.json": json.dumps({"weight_map": weight_map}).encode(),
    }


def _tensors(content: bytes) -> dict[str, tuple[dict[str, object], bytes]]:
    (length,) = _LENGTH.unpack_from(content)
    data = content[_LENGTH.size + length :]
    header = json.loads(content[_LENGTH.size : _LENGTH.size + length])
    header.pop("__metadata__", None)
    return {name: (facts, data[slice(*facts["data_offsets"])]) for name, facts in header.items()}


def _file(tensors: Mapping[str, tuple[dict[str, object], bytes]]) -> bytes:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, (facts, numbers) in tensors.items():
        header[name] = facts | {"data_offsets": [len(data), len(data) + len(numbers)]}
        data += numbers
    text = json.dumps(header).encode()
    return _LENGTH.pack(len(text)) + text + data
