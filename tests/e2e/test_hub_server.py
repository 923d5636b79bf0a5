"""Servers that fetch their model from a local hub when they start."""

import functools
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trio
from fakes.hub import TOKEN, FakeHub, running_hub
from fakes.server_process import running, tgi_llama

from tgi_llama import builtin

MODEL = Path(builtin.__file__).parent / "model"
QUESTION = {"messages": [{"role": "user", "content": "What is 12 plus 7?"}], "temperature": 0}
SIDE_FILES = ("tokenizer.json", "tokenizer_config.json", "config.json")


def files(*names: str) -> dict[str, bytes]:
    return {name: (MODEL / name).read_bytes() for name in names}


@pytest.fixture
def fake_hub() -> Iterator[FakeHub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture
def hub_environment(
    environment: dict[str, str], fake_hub: FakeHub, tmp_path: Path
) -> dict[str, str]:
    return environment | {"HF_ENDPOINT": fake_hub.url, "HF_HOME": str(tmp_path / "hf")}


async def answer(url: str, commit: str | None = None) -> str:
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        response = await client.post("/v1/chat/completions", json=QUESTION)
        info = (await client.get("/info")).json()
    assert info["model_id"] == "org/name"
    assert info["model_sha"] == commit
    return str(response.json()["choices"][0]["message"]["content"])


async def test_server_fetches_its_model_and_serves_it_again_offline(
    hub_environment: dict[str, str], fake_hub: FakeHub
) -> None:
    gguf = (MODEL / "model.gguf").read_bytes()
    repository = {"a-Q8_0.gguf": gguf, "a-F16.gguf": b"not asked for", **files(*SIDE_FILES)}
    commit = fake_hub.add("org/name", repository, is_gated=True)
    variables = hub_environment | {"HF_TOKEN": TOKEN}

    async with tgi_llama("--model-id", "org/name:q8_0", environment=variables) as server:
        assert "19" in await answer(server.url, commit)
        assert TOKEN not in server.output
        assert await server.stop() == 0
    fake_hub.seen.clear()
    offline = hub_environment | {"HF_HUB_OFFLINE": "1"}
    async with tgi_llama("--model-id", "org/name", environment=offline) as server:
        assert "19" in await answer(server.url, commit)
    assert fake_hub.seen == []


async def test_server_takes_the_tokenizer_of_the_hub_for_a_file_here(
    hub_environment: dict[str, str], fake_hub: FakeHub
) -> None:
    commit = fake_hub.add("org/name", files(*SIDE_FILES) | {"model.safetensors": b"not needed"})
    options = ("--model-id", "org/name", "--model-gguf", str(MODEL / "model.gguf"))

    async with tgi_llama(*options, environment=hub_environment) as server:
        assert "19" in await answer(server.url, commit)
    assert len(fake_hub.requests("head")) == len(SIDE_FILES)
    assert not fake_hub.requests("head", "safetensors")


async def test_server_without_hub_uses_what_the_file_here_has(
    hub_environment: dict[str, str], fake_hub: FakeHub
) -> None:
    options = ("--model-id", "org/name", "--model-gguf", str(MODEL / "model.gguf"))

    async with tgi_llama(*options, environment=hub_environment) as server:
        assert "19" in await answer(server.url)
        (warning,) = [line for line in server.lines if "WARN" in line]
        assert f"{fake_hub.url} has no model 'org/name'" in warning


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_server_that_is_told_to_stop_while_it_fetches_ends_at_once(
    hub_environment: dict[str, str], fake_hub: FakeHub, tmp_path: Path, number: signal.Signals
) -> None:
    fake_hub.add("org/name", {"a.gguf": (MODEL / "model.gguf").read_bytes()})
    fake_hub.fail("cdn", stall_after=100)
    command = [sys.executable, "-m", "tgi_llama", "--port", "0", "--model-id", "org/name"]

    start = functools.partial(
        trio.run_process,
        command,
        env=hub_environment,
        check=False,
        capture_stdout=True,
        capture_stderr=True,
    )
    async with trio.open_nursery() as nursery:
        process = await nursery.start(start)
        with trio.fail_after(60):
            await trio.to_thread.run_sync(fake_hub.stalled.wait)
            process.send_signal(number)
            assert await process.wait() == 0

    assert not (tmp_path / "hf/hub/models--org--name/snapshots").exists()


async def test_wrong_model_is_one_line_and_status_2(
    hub_environment: dict[str, str], fake_hub: FakeHub
) -> None:
    command = [sys.executable, "-m", "tgi_llama", "--port", "0", "--model-id", "org/absent"]

    with trio.fail_after(60):
        done = await trio.run_process(
            command, env=hub_environment, check=False, capture_stdout=True, capture_stderr=True
        )

    assert done.returncode == 2
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1
    assert f"{fake_hub.url} has no model 'org/absent', or it is private and needs" in lines[0]


async def test_hypercorn_fetches_the_model_in_its_lifespan(
    hub_environment: dict[str, str], fake_hub: FakeHub
) -> None:
    gguf = (MODEL / "model.gguf").read_bytes()
    commit = fake_hub.add("org/name", {"a.gguf": gguf} | files(*SIDE_FILES))
    variables = hub_environment | {"MODEL_ID": "org/name", "JSON_OUTPUT": "true"}
    command = [sys.executable, "-m", "hypercorn", "-k", "trio", "-w", "0", "-b", "127.0.0.1:0"]

    async with running(
        [*command, "tgi_llama.asgi:app"],
        environment=variables,
        listening=r"Running on http://127\.0\.0\.1:(\d+)",
    ) as server:
        assert "19" in await answer(server.url, commit)
        messages = [json.loads(line)["message"] for line in server.lines if line[:1] == "{"]
        assert any(message.startswith("downloading 4 files (") for message in messages)
