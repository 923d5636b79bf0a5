"""Compiles grammars to find out what they cost, in a process that may be killed for it.

Started as a file by ``trial.Trial``, so it imports nothing of ours. Reads jobs from standard input,
each a length (8 bytes, big endian) and as many bytes of JSON, and writes a line of JSON for each,
after one that says that it is ready. Ends when nobody can write to the input any more.
"""

import json
import os
import resource
import select
import sys
import threading
import time
from typing import Any, BinaryIO, cast

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

_N_STEPS = 16
"""Of the rehearsal. Grammars whose states are too large show it within the first bytes."""

_CPU_S = 3
"""Processor time for one job, after which the system ends the process: if nobody is left to."""

_GROWTH_BYTES = 512 * 2**20
"""Address space beyond what the process starts with; llguidance aborts where it gets no more."""

_USUAL_BYTES = 2**30
"""Of address space at the start, where the system does not tell."""


class _ByteTokens:
    """Bytes instead of the model's tokens: compiling takes the same time and little memory."""

    bos_token_id = None
    eos_token_id = 257
    special_token_ids = (256, 257)
    """The first stands for all that a grammar may name by their ids."""
    tokens = (*(bytes([byte]) for byte in range(256)), b"\xff<|special|>", b"\xff<|end|>")

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


def main() -> None:
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    _limit_memory()
    tokenizer = LLTokenizer(TokenizerWrapper(_ByteTokens()))
    _write({"ready": True})
    while job := _read_job(sys.stdin.buffer):
        _limit(resource.RLIMIT_CPU, int(time.process_time()) + _CPU_S)
        _write(_try(tokenizer, job))


def _end_with_the_server() -> None:
    """Also in the middle of a job: who killed the server wants nothing of it to go on."""
    hang_up = select.poll()
    hang_up.register(sys.stdin, 0)
    hang_up.poll()
    os._exit(1)


def _write(message: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _read_job(stream: BinaryIO) -> dict[str, object] | None:
    header = stream.read(8)
    if len(header) < 8:
        return None
    return cast("dict[str, object]", json.loads(stream.read(int.from_bytes(header))))


def _try(tokenizer: LLTokenizer, job: dict[str, object]) -> dict[str, object]:
    started = time.process_time()
    limits = LLParserLimits(**cast("dict[str, Any]", job["limits"]))
    matcher = LLMatcher(tokenizer, cast(str, job["grammar"]), log_level=0, limits=limits)
    compile_s = time.process_time() - started
    compiled = not matcher.is_error()
    if compiled:
        _rehearse(matcher)
    return {"error": matcher.get_error(), "compiled": compiled, "compile_s": compile_s}


def _rehearse(matcher: LLMatcher) -> None:
    """Goes the first way through the grammar; leaves the matcher in error where it cannot."""
    for _ in range(_N_STEPS):
        if matcher.is_stopped():
            return
        mask = int.from_bytes(matcher.compute_bitmask(), "little")
        if matcher.is_error() or not mask:
            return
        matcher.consume_token((mask & -mask).bit_length() - 1)


def _limit_memory() -> None:
    try:
        with open("/proc/self/statm") as statm:
            size = int(statm.read().split()[0]) * resource.getpagesize()
    except OSError:  # a container may have no /proc
        size = _USUAL_BYTES
    _limit(resource.RLIMIT_AS, size + _GROWTH_BYTES)


def _limit(what: int, most: int) -> None:
    """At most what this process may have anyway: only the administrator raises that."""
    _, hard = resource.getrlimit(what)
    resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


if __name__ == "__main__":
    main()
