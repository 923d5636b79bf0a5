"""The walk-through of docs/models.md, each command as it is printed there, against a local hub. The
names are those of a real model; the files are the built-in one's."""

import contextlib
import json
import re
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio
from clients.snippets import ROOT, Block, blocks
from fakes.hub import TOKEN, FakeHub, running_hub
from fakes.server_process import ServerProcess, running

from tgi_llama import builtin

MODEL = Path(builtin.__file__).parent / "model"
DOCUMENT = "docs/models.md"
GGUF_NAME = "qwen2.5-3b-instruct-q4_0.gguf"
SIDE_FILES = ("tokenizer.json", "tokenizer_config.json", "config.json")

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")


def steps() -> dict[str, list[Block]]:
    """The commands of the walk-through by what they stand under."""
    text = (ROOT / DOCUMENT).read_text(encoding="utf-8")
    start = text[: text.index("## A walk-through")].count("\n")
    found: dict[str, list[Block]] = {}
    for block in blocks(DOCUMENT):
        if block.line > start:
            assert block.language == "sh", block.name
            found.setdefault(block.heading, []).append(block)
    return found


STEPS = steps()
GET = "2. Get a GGUF file"
RUN = "3. Run it"
ASK = "4. Ask it"
SHORT = "With fewer steps"


def test_walkthrough_has_the_steps_that_are_run_here() -> None:
    assert list(STEPS) == ["1. Build the image", GET, RUN, ASK, SHORT]
    assert all("docker build " in block.text for block in STEPS["1. Build the image"])


@pytest.fixture
def fake_hub() -> Iterator[FakeHub]:
    with running_hub() as hub:
        gguf = (MODEL / "model.gguf").read_bytes()
        others = {"qwen2.5-3b-instruct-q8_0.gguf": b"GGUF", "README.md": b"words"}
        hub.add("Qwen/Qwen2.5-3B-Instruct-GGUF", {GGUF_NAME: gguf} | others)
        side_files = {name: (MODEL / name).read_bytes() for name in SIDE_FILES}
        weights = {"model.safetensors": b"3 billion weights"}
        hub.add("Qwen/Qwen2.5-3B-Instruct", side_files | weights, is_gated=True)
        yield hub


@pytest.fixture
def user(environment: dict[str, str], fake_hub: FakeHub, tmp_path: Path) -> dict[str, str]:
    """The environment of somebody with an empty home, a token, and our ``docker``."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "docker").symlink_to(ROOT / "tests" / "fakes" / "docker_command.py")
    script = f'#!/bin/sh\nexec {sys.executable} -m tgi_llama --hostname 127.0.0.1 "$@"\n'
    (programs / "tgi-llama").write_text(script)
    (programs / "tgi-llama").chmod(0o755)
    here = {"HF_ENDPOINT": fake_hub.url, "PORT": "0"}  # any that is free
    image = {"HF_HOME": "/models/.huggingface", "MODEL_CACHE": "/models/.converted"}
    kept = {name: value for name, value in environment.items() if name != "HOME"}
    return (
        kept
        | here
        | {
            "PATH": f"{programs}:{environment['PATH']}",
            "HOME": str(tmp_path / "home"),
            "HF_TOKEN": TOKEN,
            "IMAGE_COMMAND": str(programs / "tgi-llama"),
            "IMAGE_ENVIRONMENT": json.dumps(kept | here | image),
        }
    )


async def run(command: str, user: dict[str, str]) -> str:
    with trio.fail_after(60):
        done = await trio.run_process(
            ["bash", "-euc", command], env=user, capture_stdout=True, capture_stderr=True
        )
    return done.stdout.decode()


@contextlib.asynccontextmanager
async def serving(block: Block, user: dict[str, str]) -> AsyncIterator[ServerProcess]:
    async with running(
        ["bash", "-euc", block.text],
        environment=user,
        listening=r"listening on 127\.0\.0\.1:(\d+)",
    ) as server:
        yield server


async def get_the_file(user: dict[str, str], fake_hub: FakeHub) -> None:
    (block,) = STEPS[GET]
    await run(block.text.replace("https://huggingface.co", fake_hub.url), user)


async def ask(server: ServerProcess, user: dict[str, str], model_id: str) -> None:
    """All the questions of the walk-through."""
    questions = [re.sub(r"localhost:3000\b", server.url, block.text) for block in STEPS[ASK]]
    chat, generate, info = [json.loads(await run(question, user)) for question in questions]
    assert "19" in chat["choices"][0]["message"]["content"]
    assert generate["generated_text"].startswith(" 5, 6, 7")
    assert info["model_id"] == model_id


@pytest.mark.parametrize("block", STEPS[RUN], ids=["cpu", "gpu"])
async def test_downloaded_file_is_served_with_the_tokenizer_of_the_hub(
    block: Block, user: dict[str, str], fake_hub: FakeHub
) -> None:
    await get_the_file(user, fake_hub)

    async with serving(block, user) as server:
        await ask(server, user, "Qwen/Qwen2.5-3B-Instruct")
        assert not [line for line in server.lines if " WARN " in line]

    models = Path(user["HOME"]) / "models"
    assert (models / GGUF_NAME).read_bytes() == (MODEL / "model.gguf").read_bytes()
    names = {path.name for path in models.glob(".huggingface/hub/*/snapshots/*/*")}
    assert names == set(SIDE_FILES)  # no weights: they are in the file
    assert f"Bearer {TOKEN}" in {seen.token for seen in fake_hub.requests("head")}


async def test_fewer_steps_end_at_the_same_answers(user: dict[str, str], fake_hub: FakeHub) -> None:
    with_docker, without = STEPS[SHORT]
    (Path(user["HOME"]) / "models").mkdir(parents=True)

    async with serving(with_docker, user) as server:
        await ask(server, user, "Qwen/Qwen2.5-3B-Instruct-GGUF")
    fake_hub.seen.clear()
    async with serving(with_docker, user) as server:
        await ask(server, user, "Qwen/Qwen2.5-3B-Instruct-GGUF")
    assert [seen.place for seen in fake_hub.seen] == ["api"]

    async with serving(without, user) as server:
        await ask(server, user, "Qwen/Qwen2.5-3B-Instruct-GGUF")
    assert list((Path(user["HOME"]) / ".cache/huggingface/hub").rglob(GGUF_NAME))
