"""A client that leaves while its grammar is being compiled."""

import os
import sys
from pathlib import Path

import trio
from fakes.grammars import Bench

from tgi_llama.admission import ValidationWorkers
from tgi_llama.structured.engine import LlGrammarCompiler
from tgi_llama.structured.grammar import RegexGrammar
from tgi_llama.structured.limits import GrammarLimits
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


async def test_client_that_leaves_during_compilation_leaves_nothing_behind(
    bench: Bench, tmp_path: Path
) -> None:
    begun, answer = tmp_path / "begun", tmp_path / "answer"
    os.mkfifo(begun)
    os.mkfifo(answer)
    command = (sys.executable, "-c", STUB, str(begun), str(answer))
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
