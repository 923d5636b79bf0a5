"""The real server, each of whose decodes first reads a character from standard input.

``.`` decodes, ``x`` breaks the model runner, ``2`` and ``3`` are llama.cpp's failures -2 and -3. At
the end of the input decodes run freely. Warm-up is not gated. With ``hypercorn`` as its first
argument it is that command instead of ours, with the same gate.
"""

import sys

from hypercorn.__main__ import main as hypercorn_main

from tgi_llama.cli import main
from tgi_llama.engine.model_runner import Batch
from tgi_llama.errors import DecodeFailed
from tgi_llama.llama.runner import LlamaRunner

decode = LlamaRunner.decode


def gated_decode(self: LlamaRunner, batch: Batch) -> None:
    character = sys.stdin.buffer.read(1)
    if character == b"x":
        raise MemoryError("injected by the test")
    if character in (b"2", b"3"):
        raise DecodeFailed(f"injected failure -{character.decode()}")
    decode(self, batch)


LlamaRunner.decode = gated_decode  # type: ignore[method-assign]
if sys.argv[1:2] == ["hypercorn"]:
    sys.exit(hypercorn_main(sys.argv[2:]))
main()
