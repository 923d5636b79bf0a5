"""While a grammar is being compiled: a client that leaves, and those who do not need it."""

import hashlib
import os
import sys
from functools import partial
from pathlib import Path

import trio
import trio.testing
from fakes.engine import FakeEngine
from fakes.grammars import Bench

from tgi_llama.admission import Admission, ValidationWorkers
from tgi_llama.structured.grammar import RegexGrammar
from tgi_llama.structured.limits import GrammarLimits
from tgi_llama.structured.ll_compiler import LlGrammarCompiler, _content
from tgi_llama.structured.trial import Trial

# Says through one pipe that a job has begun, and waits at another until it may answer.
STUB = """
import sys
print("{}", flush=True)
while header := sys.stdin.buffer.read(8):
    sys.stdin.buffer.read(int.from_bytes(header, "big"))
    open(sys.argv[1], "w").close()
    open(sys.argv[2]).close()
    print('{"error": "", "compiled": true, "compile_s": 0.0}', flush=True)
"""


KNOWN = RegexGrammar(pattern="[0-9]+", field="f")


def _key(grammar: RegexGrammar) -> bytes:
    return hashlib.sha256(_content(grammar)).digest()


def waiting_stub(tmp_path: Path) -> tuple[tuple[str, ...], Path, Path]:
    """A command, and the two pipes."""
    begun, answer = tmp_path / "begun", tmp_path / "answer"
    os.mkfifo(begun)
    os.mkfifo(answer)
    return (sys.executable, "-c", STUB, str(begun), str(answer)), begun, answer


async def test_nobody_else_waits_for_a_grammar_that_is_compiled(
    bench: Bench, tmp_path: Path
) -> None:
    command, begun, answer = waiting_stub(tmp_path)
    known = bench.compiler.compile(KNOWN)
    workers, compilers = ValidationWorkers(1), ValidationWorkers(1)
    door = Admission(FakeEngine(), workers, 9, compilers)  # type: ignore[arg-type]
    with Trial(GrammarLimits(), timeout_s=30.0, command=command) as trial:
        compiler = LlGrammarCompiler(bench.grammar_vocabulary, trial)
        compiler._cache.get(_key(KNOWN), lambda: known, n_bytes=1)  # type: ignore[arg-type]
        async with trio.open_nursery() as nursery:
            await nursery.start(workers.run)
            await nursery.start(compilers.run)
            async with trio.open_nursery() as clients:
                # The second one wants the same, and the third another one.
                for pattern in ("[a-z]+", "[a-z]+", "[a-y]+"):
                    grammar = RegexGrammar(pattern=pattern, field="f")
                    clients.start_soon(door.prepare, partial(compiler.compile, grammar))
                with trio.fail_after(10):
                    await trio.to_thread.run_sync(begun.read_bytes, abandon_on_cancel=True)
                await trio.testing.wait_all_tasks_blocked(0.01)
                with trio.fail_after(10):
                    assert await door.prepare(lambda: "plain") == "plain"
                    assert await door.prepare(lambda: compiler.compile(KNOWN)) is known
                await trio.to_thread.run_sync(answer.write_bytes, b"")
                with trio.fail_after(10):
                    await trio.to_thread.run_sync(begun.read_bytes, abandon_on_cancel=True)
                await trio.to_thread.run_sync(answer.write_bytes, b"")
            nursery.cancel_scope.cancel()
        assert len(compiler._cache) == 3


async def test_client_that_leaves_during_compilation_leaves_nothing_behind(
    bench: Bench, tmp_path: Path
) -> None:
    command, begun, answer = waiting_stub(tmp_path)
    grammar = RegexGrammar(pattern="[a-z]+", field="f")
    workers = ValidationWorkers(1)
    with Trial(GrammarLimits(), timeout_s=30.0, command=command) as trial:
        compiler = LlGrammarCompiler(bench.grammar_vocabulary, trial)
        async with trio.open_nursery() as nursery:
            await nursery.start(workers.run)
            async with trio.open_nursery() as client:
                client.start_soon(workers.validate, lambda: compiler.compile(grammar))
                with trio.fail_after(10):
                    await trio.to_thread.run_sync(begun.read_bytes, abandon_on_cancel=True)
                client.cancel_scope.cancel()
            # The client is gone and holds no permit; its compilation goes on and will be of use.
            await trio.to_thread.run_sync(answer.write_bytes, b"")
            with trio.fail_after(10):
                await workers.validate(lambda: compiler.compile(grammar))
            nursery.cancel_scope.cancel()
        assert not trial._busy
        assert len(trial._idle) == 1
