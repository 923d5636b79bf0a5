"""An adapter of PEFT, converted by ``tgi-llama convert`` and served, says what transformers says of
the model into which it was merged."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from fakes.server_process import tgi_llama
from truth.comparison import N_STEPS, compare, read_expected
from truth.conftest import Reference
from truth.test_truth import EXACT

SCRIPT = Path(__file__).with_name("adapter_reference.py")
FEWEST_PROMPTS = 5
TOLERANCE = 1e-2
"""Nats. The adapter's matrices are in half precision, and what they are multiplied with is rounded
to that."""


def converted(reference: Reference, architecture: str, folder: Path) -> Path:
    """The adapter in its folder, as GGUF."""
    checkpoint, file = reference.checkpoint(architecture), folder / "adapter.gguf"
    command = [reference.python, SCRIPT, checkpoint, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-m", "tgi_llama", "convert", folder, "--base", checkpoint]
    command += ["--output", file, "--converter", reference.converter]
    command += ["--converter-python", reference.python]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{file}\n"), done.stderr
    return file


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3"])
async def test_adapter_of_peft_says_what_the_merged_model_says(
    reference: Reference, tmp_path: Path, architecture: str
) -> None:
    file = converted(reference, architecture, tmp_path)
    with_adapter = read_expected(tmp_path)
    alone = read_expected(reference.checkpoint(architecture))[: len(with_adapter)]
    assert len(with_adapter) >= FEWEST_PROMPTS
    kept = ("PATH", "HOME", "LANG", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "PYTHONPATH")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    options = ["--model-gguf", str(reference.gguf(architecture, "f32")), "--n-threads", "1"]
    options += ["--max-batch-size", "4", "--lora-adapters", f"tuned={file}", *EXACT]
    async with (
        tgi_llama(*options, environment=environment) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        for expected, adapter in ((with_adapter, "tuned"), (alone, None)):
            found = [await compare(client, each, adapter=adapter) for each in expected]
            assert all(each.same_prompt for each in found)
            assert [each.n_same for each in found] == [N_STEPS] * len(found)
            assert max(each.prompt_error for each in found) < TOLERANCE
