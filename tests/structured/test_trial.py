"""The process that grammars are tried in: what it finds, and what becomes of it."""

import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tgi_llama.structured.limits import GrammarLimits
from tgi_llama.structured.trial import _PROGRAM, SPECIAL, TooCostly, Trial


def lark(text: str) -> str:
    return json.dumps({"grammars": [{"lark_grammar": text}]})


def schema(value: object) -> str:
    return json.dumps({"grammars": [{"json_schema": value}]})


SLOW = schema({"allOf": [{"type": "string", "pattern": f"x{i}"} for i in range(100)]})
GREEDY = schema({"type": "integer", "multipleOf": 10_000_019})

STUB = """
import sys
print("{}", flush=True)
while header := sys.stdin.buffer.read(8):
    sys.stdin.buffer.read(int.from_bytes(header, "big"))
    %s
"""


@pytest.fixture
def trial() -> Iterator[Trial]:
    with Trial(GrammarLimits()) as trial:
        yield trial


def stub(body: str, **options: float) -> Trial:
    """With a child that reads jobs and does as told."""
    return Trial(GrammarLimits(), command=(sys.executable, "-c", STUB % body), **options)


def pids(trial: Trial) -> list[int]:
    return [child.process.pid for child in trial._idle]


def test_good_grammar_is_judged_with_its_cost(trial: Trial) -> None:
    verdict = trial.judge(lark('start: "a"'))
    assert verdict is not None
    assert verdict.error == ""
    assert verdict.compiled
    assert 0 <= verdict.compile_s < 0.1


def test_wrong_grammar_is_judged_with_the_error(trial: Trial) -> None:
    verdict = trial.judge(lark("start: nothing"))
    assert verdict is not None
    assert "unknown name" in verdict.error
    assert not verdict.compiled


def test_grammar_whose_first_steps_cost_too_much_is_found_out(trial: Trial) -> None:
    verdict = trial.judge(
        schema({"type": "object", "properties": {f"p{i}": {} for i in range(1_000)}})
    )
    assert verdict is not None
    assert verdict.compiled
    assert "items" in verdict.error


def test_special_token_is_known(trial: Trial) -> None:
    verdict = trial.judge(lark(f'start: "a" {SPECIAL} "b" ({SPECIAL} | "c")'))
    assert verdict is not None
    assert verdict.error == ""


def test_process_is_used_again(trial: Trial) -> None:
    trial.judge(lark('start: "a"'))
    first = pids(trial)
    trial.judge(lark('start: "b"'))
    assert pids(trial) == first


def test_what_takes_too_long_is_stopped_and_the_next_one_is_judged() -> None:
    with Trial(GrammarLimits(), timeout_s=0.3) as trial:
        trial.warm_up()
        first = pids(trial)
        with pytest.raises(TooCostly, match="too long"):
            trial.judge(SLOW)
        assert not exists(first[0])
        trial.timeout_s = 10.0
        assert trial.judge(lark('start: "a"')) is not None
        assert pids(trial) != first


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_what_takes_too_much_memory_does_not_take_it_here(trial: Trial) -> None:
    with pytest.raises(TooCostly):
        trial.judge(GREEDY)


def test_process_that_somebody_killed_is_replaced_unnoticed(trial: Trial) -> None:
    trial.judge(lark('start: "a"'))
    (pid,) = pids(trial)
    os.kill(pid, signal.SIGKILL)
    verdict = trial.judge(lark('start: "b"'))
    assert verdict is not None
    assert verdict.error == ""
    assert pid not in pids(trial)


def test_process_that_dies_of_a_grammar_is_started_twice_and_no_more() -> None:
    with stub("sys.exit(1)") as trial, pytest.raises(TooCostly, match="memory or time"):
        trial.judge(lark('start: "a"'))


def test_process_that_takes_long_is_slowed_down_and_not_used_again() -> None:
    # It answers when it has been slowed down, and not before.
    waiting = (
        "import os, time; usual = os.getpriority(os.PRIO_PROCESS, 0)\n"
        "    while os.getpriority(os.PRIO_PROCESS, 0) == usual: time.sleep(0.001)\n"
        "    print('{bad', flush=True)"
    )
    with stub(waiting, timeout_s=30.0) as trial:
        trial.warm_up()
        (child,) = trial._idle
        with pytest.raises(ValueError, match="property name"):
            trial.judge(lark('start: "a"'))
        assert child.is_slowed
        assert child not in trial._idle


def test_threads_have_a_process_each(trial: Trial) -> None:
    with ThreadPoolExecutor(2) as pool:
        verdicts = list(pool.map(trial.judge, [lark(f'start: "{i}"') for i in range(8)]))
    assert all(verdict is not None and not verdict.error for verdict in verdicts)
    assert 1 <= len(pids(trial)) <= 2


def test_closing_ends_every_process_and_who_waits_for_it(tmp_path: Path) -> None:
    reached = tmp_path / "reached"
    os.mkfifo(reached)
    # Opening it waits for the other side. Then nothing comes.
    trial = stub(f"open({str(reached)!r}, 'w').close(); sys.stdin.buffer.read()", timeout_s=60.0)
    trial.warm_up()
    (pid,) = pids(trial)
    with ThreadPoolExecutor(1) as pool:
        judged = pool.submit(trial.judge, lark('start: "a"'))
        reached.read_bytes()
        trial.close()
        with pytest.raises(TooCostly):
            judged.result(10)
    assert not exists(pid)


def test_where_no_process_can_be_started_there_is_no_verdict() -> None:
    with Trial(GrammarLimits(), command=("/nonexistent/python",)) as trial:
        trial.warm_up()
        assert trial.judge(lark('start: "a"')) is None


def test_all_idle_processes_that_somebody_killed_are_replaced(trial: Trial) -> None:
    children = [trial._take() for _ in range(3)]
    for child in children:
        assert child is not None
        child.wait_ready()
        trial._give_back(child)
    killed = pids(trial)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # it is dead, and still to be reaped
    verdict = trial.judge(lark('start: "a"'))
    assert verdict is not None
    assert verdict.error == ""
    assert not any(map(exists, killed))


def test_process_that_never_starts_is_no_fault_of_the_grammar(
    caplog: pytest.LogCaptureFixture,
) -> None:
    command = (sys.executable, "-c", "import nothing_of_the_kind")
    with Trial(GrammarLimits(), command=command) as trial, caplog.at_level(logging.WARNING):
        assert trial.judge(lark('start: "a"')) is None
    assert "without a trial" in caplog.text


def test_system_that_forbids_priorities_lets_grammars_be_tried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = tmp_path / "asked"

    def forbidden(_which: int, _who: int, _priority: int) -> None:
        asked.touch()
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", forbidden)
    answer = '{"error": "", "compiled": true, "compile_s": 0.2}'
    waiting = (
        f"import os, time\n    while not os.path.exists({str(asked)!r}): time.sleep(0.001)\n"
        f"    print({answer!r}, flush=True)"
    )
    with stub(waiting, timeout_s=30.0) as trial:
        verdict = trial.judge(lark('start: "a"'))
    assert verdict is not None
    assert verdict.compile_s == 0.2


def test_process_stays_within_the_limits_of_the_system() -> None:
    """An administrator's hard limits may not be raised, and without /proc there is no size."""
    without_proc = (
        "import builtins, runpy, sys; plain = open\n"
        "def refusing(path, *rest, **options):\n"
        "    if str(path).startswith('/proc'): raise FileNotFoundError(path)\n"
        "    return plain(path, *rest, **options)\n"
        "builtins.open = refusing; runpy.run_path(sys.argv[1], run_name='__main__')"
    )
    limits = 'ulimit -v 4000000 -t 1000; exec "$@"'
    command = ("sh", "-c", limits, "sh", sys.executable, "-P", "-c", without_proc, str(_PROGRAM))
    with Trial(GrammarLimits(), command=command) as trial:
        for text in ('start: "a"', 'start: "b"'):
            verdict = trial.judge(lark(text))
            assert verdict is not None
            assert verdict.error == ""


def test_process_ends_with_the_server_in_the_middle_of_a_job(trial: Trial) -> None:
    child = trial._take()
    assert child is not None
    try:
        child.wait_ready()
        limits = trial.limits.for_parser_dict()
        job = json.dumps({"grammar": SLOW, "limits": limits}).encode()
        assert child.process.stdin is not None
        child.process.stdin.write(len(job).to_bytes(8, "big") + job)
        child.process.stdin.close()  # as when the server is killed
        assert child.process.wait(10) == 1, "its own end, before that of its time"
    finally:
        trial._discard(child)
