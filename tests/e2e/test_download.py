"""``tgi-llama download`` and the variables of huggingface_hub, in processes of their own against a
local hub."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from fakes.hub import TOKEN, FakeHub, running_hub

import tgi_llama.builtin

CONFIG = b"{}"


@pytest.fixture
def fake_hub() -> Iterator[FakeHub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture
def gguf() -> bytes:
    return (Path(tgi_llama.builtin.__file__).parent / "model" / "model.gguf").read_bytes()


@pytest.fixture
def hub_environment(
    environment: dict[str, str], fake_hub: FakeHub, tmp_path: Path
) -> dict[str, str]:
    return environment | {"HF_ENDPOINT": fake_hub.url, "HF_HOME": str(tmp_path / "hf")}


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tgi_llama", "download", *arguments]


def _download(
    *arguments: str, environment: Mapping[str, str]
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        _command(*arguments), env=environment, capture_output=True, text=True, timeout=60
    )


def test_download_prints_the_path_that_serves_it(
    hub_environment: dict[str, str], fake_hub: FakeHub, gguf: bytes, tmp_path: Path
) -> None:
    commit = fake_hub.add(
        "org/name", {"a-Q4_0.gguf": gguf, "a-Q8_0.gguf": b"", "config.json": CONFIG}
    )

    done = _download("org/name:q4_0", environment=hub_environment)

    folder = tmp_path / "hf" / "hub" / "models--org--name" / "snapshots" / commit
    assert (done.returncode, done.stdout) == (0, f"{folder / 'a-Q4_0.gguf'}\n")
    assert (folder / "a-Q4_0.gguf").read_bytes() == gguf
    assert sorted(path.name for path in folder.iterdir()) == ["a-Q4_0.gguf", "config.json"]
    assert "a-Q4_0.gguf: complete, " in done.stderr


def test_download_of_a_pattern_and_revision(
    hub_environment: dict[str, str], fake_hub: FakeHub, gguf: bytes
) -> None:
    fake_hub.add("org/name", {"b-Q4_0.gguf": gguf, "b-Q8_0.gguf": gguf}, revision="v1")
    fake_hub.add("org/name", {"a-Q4_0.gguf": gguf})

    done = _download("org/name", "--gguf", "*q8*", "--revision", "v1", environment=hub_environment)

    assert done.stdout.endswith("/b-Q8_0.gguf\n")


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["org/several"], 2, "--model-id: 'org/several' has several GGUF files: a-Q4_0.gguf (1"),
        (["org/absent"], 2, "has no model 'org/absent', or it is private"),
        (["org/gated"], 2, "'org/gated' is gated: accept its conditions at http"),
        (["org/several", "--revision", "v9"], 2, "--revision: 'org/several' has no revision 'v9'"),
        (["org/several", "--gguf", "*q9*"], 2, "has no GGUF file that it matches: a-Q4_0.gguf (1"),
        (["org/wrong"], 1, "the bytes of 'a.gguf' from http"),
        (["org/several", "--quantize", "q99"], 2, "--quantize"),
        ([], 2, "Missing argument 'MODEL'"),
    ],
)
def test_failed_download_is_one_line(
    hub_environment: dict[str, str],
    fake_hub: FakeHub,
    arguments: list[str],
    status: int,
    text: str,
) -> None:
    fake_hub.add("org/several", {"a-Q4_0.gguf": b"1", "a-Q8_0.gguf": b"2"})
    fake_hub.add("org/gated", {"a.gguf": b"3"}, is_gated=True)
    wrong = fake_hub.add("org/wrong", {"a.gguf": b"4"})
    etag = fake_hub.repositories["org/wrong"].commits[wrong]["a.gguf"].etag
    fake_hub.fail("cdn", path=etag, is_corrupt=True, times=None)

    done = _download(*arguments, environment=hub_environment)

    assert (done.returncode, done.stdout) == (status, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("tgi-llama: error: ")
    assert text in last
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("HF_ENDPOINT", "hub.example", "HF_ENDPOINT: expected an address, got 'hub.example'"),
        ("HF_HUB_ETAG_TIMEOUT", "soon", "one of the variables HF_HUB_* has a wrong value: "),
    ],
)
def test_wrong_variable_is_one_line(
    hub_environment: dict[str, str], name: str, value: str, text: str
) -> None:
    done = _download("org/name", environment=hub_environment | {name: value})

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"tgi-llama: error: {text}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_API_TOKEN"])
def test_token_is_read_from_each_variable(
    hub_environment: dict[str, str], fake_hub: FakeHub, gguf: bytes, name: str
) -> None:
    fake_hub.add("org/gated", {"a.gguf": gguf}, is_gated=True)

    done = _download("org/gated", environment=hub_environment | {name: TOKEN})

    assert done.returncode == 0
    assert TOKEN not in done.stderr


@pytest.mark.parametrize("name", ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"])
def test_cache_is_where_the_variables_say_and_is_used_offline(
    hub_environment: dict[str, str], fake_hub: FakeHub, gguf: bytes, tmp_path: Path, name: str
) -> None:
    fake_hub.add("org/name", {"a.gguf": gguf})
    variables = hub_environment | {name: str(tmp_path / "cache")}
    online = _download("org/name", environment=variables)
    fake_hub.seen.clear()

    offline = _download("org/name", environment=variables | {"HF_HUB_OFFLINE": "1"})

    assert online.stdout.startswith(f"{tmp_path}/cache/models--org--name/")
    assert offline.stdout == online.stdout
    assert fake_hub.seen == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_download_ends_at_once_and_goes_on_later(
    hub_environment: dict[str, str],
    fake_hub: FakeHub,
    tmp_path: Path,
    number: signal.Signals,
    status: int,
    gguf: bytes,
) -> None:
    commit = fake_hub.add("org/name", {"a.gguf": gguf})
    blobs = tmp_path / "hf/hub/models--org--name/blobs"
    blobs.mkdir(parents=True)
    etag = fake_hub.repositories["org/name"].commits[commit]["a.gguf"].etag
    (blobs / f"{etag}.incomplete").write_bytes(gguf[: 2 << 20])
    fake_hub.fail("cdn", stall_after=0)  # asked for the rest
    process = subprocess.Popen(
        _command("org/name"), env=hub_environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        assert fake_hub.stalled.wait(60)
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)

    assert (process.returncode, output) == (status, b"")
    assert b"Traceback" not in errors
    (partial,) = blobs.iterdir()
    assert (partial.suffix, partial.stat().st_size) == (".incomplete", 2 << 20)
    assert _download("org/name", environment=hub_environment).returncode == 0
    assert [seen.range for seen in fake_hub.requests("cdn")] == [f"bytes={2 << 20}-"] * 2


def test_download_is_listed_in_the_help(environment: dict[str, str]) -> None:
    for arguments in (["--help"], ["download", "--help"]):
        done = subprocess.run(
            [sys.executable, "-m", "tgi_llama", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0
        assert "Hugging Face hub" in " ".join(done.stdout.split())
