"""The real server, asked over HTTP, says what transformers says, in numbers.

The models are converted by our own conversion, with llama.cpp's converter; see ``reference.py`` for
what they are. Nothing but computation differs: both files of a model have the same weights.
"""

import contextlib
import os
from collections.abc import AsyncIterator, Sequence

import httpx
import pytest
from fakes.server_process import tgi_llama
from truth.comparison import N_STEPS, Comparison, compare, read_expected
from truth.conftest import ARCHITECTURES, Reference

N_PROMPTS = 20

# With flash attention llama.cpp computes in half precision whatever the KV memory is.
EXACT = ("--type-k", "f32", "--type-v", "f32", "--disable-flash-attention")

F32_TOLERANCE = 1e-4
# llama.cpp multiplies weights in half precision with activations that it rounds to the same.
F16_TOLERANCE = 1e-2

# ggml looks GELU up in a table of half precision numbers, whatever the file's type. Without the
# feed-forward part, which is where it is used, these architectures are as exact as the others.
GELU = ("gemma2", "gemma3")
GELU_TOLERANCE = 5e-3
"""In nats, as all of these: of the logprob of a prompt's token."""


def _tolerance(architecture: str, type_name: str) -> float:
    if type_name == "f16":
        return F16_TOLERANCE
    return GELU_TOLERANCE if architecture in GELU else F32_TOLERANCE


@contextlib.asynccontextmanager
async def _client(
    reference: Reference, architecture: str, type_name: str
) -> AsyncIterator[httpx.AsyncClient]:
    kept = ("PATH", "HOME", "LANG", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "PYTHONPATH")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    options = ["--model-gguf", str(reference.gguf(architecture, type_name))]
    options += ["--n-threads", "1", "--max-batch-size", "4", *EXACT]
    async with (
        tgi_llama(*options, environment=environment) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        yield client


@pytest.mark.parametrize("type_name", ["f32", "f16"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
async def test_server_says_what_transformers_says(
    reference: Reference, architecture: str, type_name: str
) -> None:
    expected = read_expected(reference.checkpoint(architecture))
    assert len(expected) >= N_PROMPTS
    async with _client(reference, architecture, type_name) as client:
        found = [await compare(client, each) for each in expected]

    print(_figures(f"{architecture} {type_name}", found))  # noqa: T201  # pytest -s shows them
    assert all(each.same_prompt for each in found)
    assert [each.n_same for each in found] == [N_STEPS] * len(found)
    assert max(each.prompt_error for each in found) < _tolerance(architecture, type_name)


def _figures(name: str, found: Sequence[Comparison]) -> str:
    prompt = max(each.prompt_error for each in found)
    answer = max(each.answer_error for each in found)
    return f"{name}: prompt {prompt:.1e}, answer {answer:.1e}"
