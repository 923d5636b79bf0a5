"""The real server, asked over HTTP, says what transformers says, in numbers.

The models are converted by our own conversion, with llama.cpp's converter; see ``reference.py`` for
what they are. Nothing but computation differs: both files of a model have the same weights.
"""

import contextlib
import os
from collections.abc import AsyncIterator, Sequence

import attrs
import httpx
import pytest
from fakes.server_process import tgi_llama
from truth.comparison import N_STEPS, Comparison, compare, read_expected
from truth.conftest import ARCHITECTURES, Reference

N_PROMPTS = 20

# llama.cpp computes attention in half precision with flash attention, whatever the KV memory is.
EXACT = ("--type-k", "f32", "--type-v", "f32", "--disable-flash-attention")


@attrs.frozen
class Setting:
    type_name: str
    options: Sequence[str]
    tolerance: float
    """Of the logprob of a prompt's token, in nats."""


SETTINGS = {
    "f32": Setting("f32", EXACT, 1e-4),
    # llama.cpp multiplies half precision weights with activations that it rounds to the same.
    "f16": Setting("f16", EXACT, 1e-2),
}


@contextlib.asynccontextmanager
async def _client(
    reference: Reference, architecture: str, setting: Setting
) -> AsyncIterator[httpx.AsyncClient]:
    kept = ("PATH", "HOME", "LANG", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "PYTHONPATH")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    options = ["--model-gguf", str(reference.gguf(architecture, setting.type_name))]
    options += ["--n-threads", "1", "--max-batch-size", "4", *setting.options]
    async with (
        tgi_llama(*options, environment=environment) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        yield client


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
async def test_server_says_what_transformers_says(
    reference: Reference, architecture: str, setting: Setting
) -> None:
    expected = read_expected(reference.checkpoint(architecture))
    assert len(expected) >= N_PROMPTS
    async with _client(reference, architecture, setting) as client:
        found = [await compare(client, each) for each in expected]

    print(_figures(architecture, setting, found))  # noqa: T201  # pytest -s shows them
    assert all(each.same_prompt for each in found)
    assert [each.n_same for each in found] == [N_STEPS] * len(found)
    assert max(each.prompt_error for each in found) < setting.tolerance


def _figures(architecture: str, setting: Setting, found: Sequence[Comparison]) -> str:
    prompt = max(each.prompt_error for each in found)
    answer = max(each.answer_error for each in found)
    return f"{architecture} {setting.type_name}: prompt {prompt:.1e}, answer {answer:.1e}"
