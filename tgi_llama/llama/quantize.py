"""Quantizes a GGUF file, by llama.cpp, in a process of its own.

llama.cpp cannot be interrupted while it quantizes, and it ends the process where it meets what it
did not expect. ``models.conversion`` therefore starts this module as a program.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import llama_cpp.llama_cpp as native

from tgi_llama.errors import StartError
from tgi_llama.llama.backend import check_version, installed


def file_type(name: str) -> int:
    """llama.cpp's number of a type, for example ``q4_k_m``. KeyError where it has none."""
    try:
        kind = "ALL" if name == "f32" else "MOSTLY"
        return int(getattr(native, f"LLAMA_FTYPE_{kind}_{name.upper()}"))
    except AttributeError:
        raise KeyError(name) from None


def quantize(source: Path, target: Path, *, name: str, n_threads: int) -> None:
    """Writes ``target`` with the weights of ``source`` in the named type. Blocks for seconds to
    minutes; llama.cpp's log says how far it is.

    Raises StartError, having left a part of ``target``.
    """
    params: native.llama_model_quantize_params = native.llama_model_quantize_default_params()
    params.nthread = n_threads
    params.ftype = file_type(name)
    # TGI's choice, and llama-quantize's: the output tensor too. Its type is llama.cpp's usual one
    # for the file's, for example q6_k in a q4_0 file.
    params.quantize_output_tensor = True
    if native.llama_model_quantize(os.fsencode(source), os.fsencode(target), params) != 0:
        raise StartError(f"llama.cpp cannot quantize {source} to {name}")


def main(arguments: Sequence[str]) -> int:
    """``SOURCE TARGET TYPE THREADS``; the exit status. llama.cpp's words go to standard error."""
    source, target, name, n_threads = arguments
    check_version(*installed())
    try:
        quantize(Path(source), Path(target), name=name, n_threads=int(n_threads))
    except StartError:
        return 1  # llama.cpp has said why
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
