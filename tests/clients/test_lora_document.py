"""The examples of docs/lora.md, in their order, on a server that has their adapter."""

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.conftest import running_server
from clients.examples import assert_like, at, curl
from clients.snippets import blocks
from fakes.lora_files import write_adapter

import tgi_llama.builtin

DOCUMENT = "docs/lora.md"
SHIPPED = Path(tgi_llama.builtin.__file__).parent / "adapters" / "pirate.gguf"


@pytest.fixture(scope="module")
def lora_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("adapters")
    file = folder / "pirate.gguf"
    if SHIPPED.exists():
        shutil.copy(SHIPPED, file)
    else:
        write_adapter(file)
    options = ("--lora-adapters", f"pirate={file}", "--lora-adapter-folder", str(folder))
    with running_server(*options, ADMIN_API_KEY="secret") as url:
        yield url


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_requests_get_their_answers(lora_url: str) -> None:
    n_requests = 0
    for request, answer in itertools.pairwise(blocks(DOCUMENT)):
        if request.text.startswith("curl "):
            body = curl(at(lora_url, request.text))
            assert_like(json.loads(body), json.loads(answer.text))
            n_requests += 1
    assert n_requests == 5


def test_program_runs(lora_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = (block for block in blocks(DOCUMENT) if block.language == "python")
    exec(compile(at(lora_url, program.text), program.name, "exec"), {"__name__": "__main__"})
    output = capsys.readouterr().out.strip()
    assert output.startswith("pirate ")
    assert output.endswith("['tgi_llama/builtin', 'pirate']")
