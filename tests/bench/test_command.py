"""The command as a process: what it prints, its files, its exit status."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import jsonschema
import pytest
import trio
from fakes.scripted_server import Answer, Received, ScriptedServer, playing

from tgi_llama import cli
from tgi_llama.bench import command

_ROOT = Path(__file__).parents[2]
_SMALL = ("--requests", "4", "--tokens", "5", "--words", "3")
_PATIENCE_S = 60
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
"""What moves the cursor and colours the text on a terminal."""


async def _bench(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
    with trio.fail_after(_PATIENCE_S):
        return await trio.run_process(
            [sys.executable, "-m", "tgi_llama", "bench", *arguments],
            cwd=_ROOT, capture_stdout=True, capture_stderr=True, check=False,
        )  # fmt: skip


def _sizes(folder: Path, pattern: str) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.glob(pattern)}


def _validate(file: Path) -> dict:  # type: ignore[type-arg]
    schema = json.loads((_ROOT / "docs/bench-results.schema.json").read_text())
    results = json.loads(file.read_text())
    jsonschema.validate(results, schema)
    return results  # type: ignore[no-any-return]


async def test_command_prints_percentiles_and_writes_results(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    async with playing(ScriptedServer()) as server:
        done = await _bench(server.url, *_SMALL, "--json", str(file), "--seed", "7")

    printed = done.stdout.decode()
    assert done.returncode == 0, done.stderr.decode()
    assert "own-prompts: every request has a prompt of its own; seed 7" in printed
    assert "4 of 4 requests" in printed
    assert "20 tokens in 20 events with text, 0 lost" in printed
    assert "28 tokens in prompts, 12 of them from the server's cache" in printed
    assert "errors: none" in printed
    for name in ("time to first token", "inter-token latency", "end to end"):
        assert name in printed
    results = _validate(file)
    (round_,) = results["points"][0]["servers"][0]["rounds"]
    assert [len(one["event_times_s"]) for one in round_["requests"]] == [5] * 4
    assert results["is_complete"] is True


async def test_command_compares_two_servers_over_a_sweep_and_draws(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    async with playing(ScriptedServer()) as first, playing(ScriptedServer()) as second:
        done = await _bench(
            first.url, "--compare", second.url, "--clients", "1,2", "--rounds", "2", *_SMALL,
            "--json", str(file), "--no-samples", "--plot", str(tmp_path / "all.png"),
        )  # fmt: skip

    printed = done.stdout.decode()
    assert done.returncode == 0, done.stderr.decode()
    assert "A against B, 1 client, 2 rounds" in printed
    assert "A against B, 2 clients, 2 rounds" in printed
    results = _validate(file)
    assert [point["load"]["n_clients"] for point in results["points"]] == [1, 2]
    names = [one["name"] for one in results["points"][0]["comparison"]]
    assert "time to first token p99" in names
    assert "requests" not in results["points"][0]["servers"][0]["rounds"][0]
    sizes = _sizes(tmp_path, "*.png")
    assert sorted(sizes) == ["all-load.png", "all-ratios.png", "all-timeline.png"]
    assert min(sizes.values()) > 5000


async def test_command_measures_an_open_loop_over_tgis_api() -> None:
    async with playing(ScriptedServer(models=None)) as server:
        done = await _bench(server.url, "--rate", "100,200", "--arrival", "fixed", *_SMALL)

    assert done.returncode == 0, done.stderr.decode()
    assert "100 requests/s, fixed" in done.stdout.decode()
    assert {received.path for received in server.received} == {"/generate_stream"}


async def test_errors_are_printed_with_their_message() -> None:
    def decide(_received: Received) -> Answer:
        return Answer(status=429, error="full") if len(server.received) == 3 else Answer()

    server = ScriptedServer(decide)
    async with playing(server):
        done = await _bench(server.url, *_SMALL)

    assert done.returncode == 0
    assert "errors: 1 http 429 (full)" in done.stdout.decode()


async def test_server_that_answers_nothing_but_errors_is_status_1() -> None:
    async with playing(ScriptedServer(lambda _: Answer(status=500, error="no"))) as server:
        done = await _bench(server.url, "--warm-up", "0", *_SMALL)

    assert done.returncode == 1
    assert "errors: 4 http 500 (no)" in done.stdout.decode()
    last = done.stderr.decode().splitlines()[-1]
    assert last == f"tgi-llama: error: {server.url} answered no request without an error"


async def test_server_that_is_not_there_is_one_line_and_status_1() -> None:
    async with playing(ScriptedServer()) as server:
        url = server.url
    done = await _bench(url)

    assert done.returncode == 1
    assert done.stdout == b""
    assert done.stderr.decode().startswith(f"tgi-llama: error: {url} cannot be reached: ")
    assert done.stderr.count(b"\n") == 1


async def test_interrupt_prints_what_has_been_measured(tmp_path: Path) -> None:
    """Half of the requests get their answers, the others wait when the signal comes."""
    file, all_there = tmp_path / "results.json", trio.Event()

    def decide(_received: Received) -> Answer:
        if len(server.received) == 5:
            all_there.set()
        return Answer(gates={3: trio.Event()}) if len(server.received) > 3 else Answer()

    server = ScriptedServer(decide)
    output = (tmp_path / "out").open("wb")
    async with playing(server), trio.open_nursery() as nursery:
        options = ["--clients", "2", "--requests", "9", "--tokens", "5", "--warm-up", "0"]
        process = await nursery.start(
            partial(
                trio.run_process,
                [sys.executable, "-m", "tgi_llama", "bench", server.url, *options,
                 "--json", str(file)],
                cwd=_ROOT, stdout=output, stderr=output, check=False,
            )
        )  # fmt: skip
        with trio.fail_after(_PATIENCE_S):
            await all_there.wait()
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 130

    output.close()
    printed = (tmp_path / "out").read_text()
    assert "3 of 5 requests" in printed
    assert "interrupted: the figures are of what ran until then" in printed
    results = _validate(file)
    assert results["is_complete"] is False
    ends = [one["ended_s"] for one in results["points"][0]["servers"][0]["rounds"][0]["requests"]]
    assert ends.count(None) == 2


async def test_live_table_is_drawn_on_a_terminal() -> None:
    """The last token waits until the table shows that the others have come."""
    leader, follower = pty.openpty()
    gate = trio.Event()
    server = ScriptedServer(
        lambda received: Answer(gates={4: gate}) if received.n_asked == 5 else Answer()
    )
    drawn = ""
    with trio.fail_after(_PATIENCE_S):
        async with playing(server), trio.open_nursery() as nursery:
            run = partial(
                trio.run_process,
                [sys.executable, "-m", "tgi_llama", "bench", server.url, *_SMALL],
                cwd=_ROOT, stderr=follower, capture_stdout=True,
                env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
            )  # fmt: skip
            nursery.start_soon(run)
            while "4 running, 0 finished, 0 failed; 16 tokens" not in drawn:
                await trio.lowlevel.wait_readable(leader)
                drawn += _CONTROL.sub("", os.read(leader, 100_000).decode())
            gate.set()
    os.close(follower)
    os.close(leader)

    assert "inter-token latency" in drawn
    assert "round 1 of 1" in drawn


# Options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'URL'."),
        (["nonsense"], "expected a URL such as http://localhost:3000, got 'nonsense'"),
        (["http://a", "--compare", "ftp://b"], "expected a URL"),
        (["http://a", "--clients", "0"], "'--clients': expected numbers of clients such as 8"),
        (["http://a", "--clients", "1,x"], "expected numbers of clients such as 8 or 1,2,4,8"),
        (["http://a", "--clients", "1.5"], "expected numbers of clients"),
        (["http://a", "--rate", "nan"], "expected requests a second such as 2 or 0.5,1,2"),
        (["http://a", "--rate", "1", "--clients", "1"], "--clients and --rate exclude each other"),
        (["http://a", "--workload", "none"], "'none' is not one of 'own-prompts'"),
        (["http://a", "--workload", "chat", "--rate", "1"], "chat has a fixed number of clients"),
        (["http://a", "--turns", "3"], "--turns: the workload own-prompts has no such size"),
        (
            ["http://a", "--workload", "chat", "--long-words", "3"],
            "--long-words: the workload chat",
        ),
        (["http://a", "--rounds", "0"], "'--rounds': 0 is not in the range"),
        (["http://a", "--body", "[1]"], "'--body': expected a JSON object, got '[1]'."),
        (["http://a", "--plot", "a.pdf"], "--plot: expected a name that ends with .png or .svg"),
        (["http://a", "--json", "/"], "'--json': File '/' is a directory."),
        (["http://a", "--absent"], "No such option '--absent'."),
    ],
)
def test_bad_option_is_one_line_and_status_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert cli.run(["bench", *arguments], serve=lambda _config: None) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("tgi-llama: error: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1


def test_plot_without_matplotlib_says_how_to_install_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)

    assert cli.run(["bench", "http://a", "--plot", "a.png"], serve=lambda _config: None) == 2
    expected = "tgi-llama: error: --plot needs matplotlib: pip install 'tgi_llama[bench]'\n"
    assert capsys.readouterr().err == expected


def test_help_lists_every_workload(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["bench", "--help"], serve=lambda _config: None) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("Usage: tgi-llama bench [OPTIONS] URL")
    for name in command.WORKLOADS:
        assert f"{name}: " in printed


def test_servers_help_names_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"], serve=lambda _config: None) == 0
    assert "bench URL" in capsys.readouterr().out


def test_server_loads_nothing_of_the_load_generator() -> None:
    code = (
        "import sys\nfrom tgi_llama import cli, lifecycle\ncli.parse([])\n"
        "names = ('tgi_llama.bench', 'rich', 'matplotlib')\n"
        "sys.exit(' '.join(name for name in sys.modules if name.startswith(names)) or 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, check=False
    )

    assert (result.returncode, result.stderr) == (0, "")
