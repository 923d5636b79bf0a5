"""Not real models: folders that look like one, and programs that stand in for the converter.

The stand-ins are run as the real one is, in processes of their own.
"""

import importlib.metadata
import json
import struct
from collections.abc import Mapping
from pathlib import Path

from tgi_llama.models.converter import VERSION_FILE

_SIZES = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1}

Shapes = Mapping[str, tuple[str, tuple[int, ...]]]
"""From tensors' names to types and shapes."""

TWO_MATRICES: Shapes = {"a": ("BF16", (8, 4)), "b": ("BF16", (4,))}


def write_safetensors(path: Path, shapes: Shapes = TWO_MATRICES) -> Path:
    """A file of zeros with these tensors."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (kind, shape) in shapes.items():
        start = end
        size = _SIZES[kind]
        for length in shape:
            size *= length
        end += size
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))
    return path


def write_checkpoint(folder: Path, shapes: Shapes = TWO_MATRICES) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    write_safetensors(folder / "model.safetensors", shapes)
    return folder


def write_converter(
    folder: Path, body: str, *, version: str | None = None, script: str = "convert_hf_to_gguf.py"
) -> Path:
    """A converter that runs ``body``, in which ``outfile``, ``outtype`` and ``source`` are what the
    command line says. Returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    version = version or importlib.metadata.version("llama-cpp-python")
    (folder / VERSION_FILE).write_text(version + "\n")
    (folder / script).write_text(
        "import argparse, os, shutil, sys\n"
        "from pathlib import Path\n"
        "parser = argparse.ArgumentParser()\n"
        "for name in ('--outfile', '--outtype', '--model-name', '--base'):\n"
        "    parser.add_argument(name)\n"
        "parser.add_argument('source')\n"
        "given = parser.parse_args()\n"
        "outfile, outtype, source = Path(given.outfile), given.outtype, Path(given.source)\n" + body
    )
    return folder
