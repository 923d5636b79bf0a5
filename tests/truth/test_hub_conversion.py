"""A model of the hub in safetensors, without a GGUF file: the real client fetches it, the real
converter and llama.cpp make the file, and the real server says what transformers says."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest
from fakes.hub import TOKEN, FakeHub, running_hub
from fakes.safetensors import split_checkpoint
from fakes.server_process import tgi_llama
from truth.comparison import N_STEPS, compare, read_expected
from truth.conftest import Reference

NAME = "o.wner/Tiny-Llama-0.5B.v2"
N_PROMPTS = 5


@pytest.fixture
def fake_hub(maker: Reference) -> Iterator[FakeHub]:
    folder = maker.make_checkpoint("llama")
    with running_hub() as hub:
        hub.add(NAME, {**split_checkpoint(folder), "README.md": b"words"}, is_gated=True)
        yield hub


@pytest.fixture
def variables(maker: Reference, fake_hub: FakeHub, tmp_path: Path) -> dict[str, str]:
    kept = ("PATH", "HOME", "LANG", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "PYTHONPATH")
    return {name: os.environ[name] for name in kept if name in os.environ} | {
        "HF_ENDPOINT": fake_hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_TOKEN": TOKEN,
        "MODEL_CACHE": str(tmp_path / "models"),
        "CONVERTER": str(maker.converter),
        "CONVERTER_PYTHON": str(maker.python),
        "N_THREADS": "1",
    }


async def check(maker: Reference, variables: dict[str, str], options: Sequence[str]) -> str:
    """Compares a server's answers; returns the log."""
    async with (
        tgi_llama("--model-id", NAME, *options, environment=variables) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        for each in read_expected(maker.checkpoint("llama"))[:N_PROMPTS]:
            found = await compare(client, each)
            assert (found.same_prompt, found.n_same) == (True, N_STEPS)
            assert found.prompt_error < 1e-4
        assert (await client.get("/info")).json()["model_id"] == NAME
        return server.output


def made(tmp_path: Path) -> list[str]:
    """All that is in the model cache, hidden files too."""
    cache = tmp_path / "models"
    return sorted(path.relative_to(cache).as_posix() for path in cache.rglob("*.*"))


async def test_model_of_the_hub_is_converted_once_and_served(
    maker: Reference, fake_hub: FakeHub, variables: dict[str, str], tmp_path: Path
) -> None:
    exact = ["--type-k", "f32", "--type-v", "f32", "--disable-flash-attention"]
    options = ["--quantize", "f32", *exact]
    commit = fake_hub.repositories[NAME].references["main"]

    assert "converting" in await check(maker, variables, options)
    assert f"{NAME}/{commit}/f32.gguf" in made(tmp_path)
    assert not fake_hub.requests("head", "README.md")

    fake_hub.seen.clear()
    log = await check(maker, variables | {"HF_HUB_OFFLINE": "1", "CONVERTER": "/gone"}, options)
    assert "converting" not in log
    assert fake_hub.seen == []


def _download(*options: str) -> list[str]:
    return [sys.executable, "-m", "tgi_llama", "download", NAME, *options]


def test_two_downloads_at_once_convert_once(
    fake_hub: FakeHub, variables: dict[str, str], tmp_path: Path
) -> None:
    both = [
        subprocess.Popen(
            _download(), env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    ends = [process.communicate(timeout=240) for process in both]

    assert [process.returncode for process in both] == [0, 0]
    assert len({output for output, _ in ends}) == 1
    assert sum("models.conversion: made " in errors for _, errors in ends) == 1
    large = [seen.path for seen in fake_hub.requests("cdn")]
    assert len(large) == len(set(large))
    (file,) = [name for name in made(tmp_path) if name.endswith(".gguf")]
    assert not [name for name in made(tmp_path) if "/." in name]
    assert ends[0][0] == f"{tmp_path}/models/{file}\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_conversion_leaves_nothing(
    variables: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    command = _download()
    with subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        assert any("models.conversion: converting" in line for line in lines)
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)

    assert (process.returncode, output) == (128 + number, "")
    assert "Traceback" not in errors
    assert not [path for path in (tmp_path / "models").rglob("*") if path.is_file()]
