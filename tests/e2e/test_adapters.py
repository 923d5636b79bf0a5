"""LoRA adapters of the built-in model, from the command line to the text."""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from fakes.lora_files import BUILTIN_MODEL, write_adapter
from fakes.server_process import tgi_llama

PIRATE = BUILTIN_MODEL.parents[1] / "adapters" / "pirate.gguf"
PROMPT = "1, 2, 3, 4,"
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
KEY = {"authorization": "Bearer admin"}


async def text(client: httpx.AsyncClient, adapter: str | None = None) -> str:
    parameters = {"max_new_tokens": 16, "adapter_id": adapter}
    response = await client.post("/generate", json={"inputs": PROMPT, "parameters": parameters})
    assert response.status_code == 200, response.text
    generated: str = response.json()["generated_text"]
    return generated


async def chosen_by_model(client: httpx.AsyncClient, model: str) -> str:
    payload = {"prompt": PROMPT, "max_tokens": 16, "temperature": 0, "model": model}
    answer = (await client.post("/v1/completions", json=payload)).json()
    assert answer["model"] == model
    generated: str = answer["choices"][0]["text"]
    return generated


async def test_adapters_change_the_text_of_those_who_ask_for_them(
    environment: dict[str, str], tmp_path: Path
) -> None:
    noise = write_adapter(tmp_path / "noise.gguf")
    nothing = write_adapter(tmp_path / "nothing.gguf", strength=0)
    entries = {"LORA_ADAPTERS": f"{noise},same={nothing},off={noise}:0"}
    async with (
        tgi_llama(environment={**environment, **entries}) as server,
        httpx.AsyncClient(base_url=server.url, timeout=30) as client,
    ):
        plain = await text(client)
        changed = await text(client, "noise")
        assert changed != plain
        assert await text(client, "same") == plain
        assert await text(client, "off") == plain
        assert await text(client) == plain, "what was computed with an adapter is not used without"
        assert await chosen_by_model(client, "noise") == changed
        assert await chosen_by_model(client, "anything") == plain
        listed = (await client.get("/v1/models")).json()["data"]
        assert [one["id"] for one in listed] == ["tgi_llama/builtin", "noise", "same", "off"]
        info = (await client.get("/info")).json()["lora_adapters"]
        assert [(one["name"], one["scale"], one["rank"]) for one in info] == [
            ("noise", 1.0, 4),
            ("same", 1.0, 4),
            ("off", 0.0, 4),
        ]
        assert await server.stop() == 0
        assert "Traceback" not in server.output


async def test_requests_with_different_adapters_at_once_get_what_they_get_alone(
    environment: dict[str, str], tmp_path: Path
) -> None:
    files = [write_adapter(tmp_path / f"a{seed}.gguf", seed=seed) for seed in (1, 2)]
    options = ("--lora-adapters", ",".join(map(str, files)), "--max-batch-size", "4")
    alone: dict[str | None, str] = {}
    together: list[tuple[str | None, str]] = []
    async with (
        tgi_llama(*options, environment=environment) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):

        async def ask(adapter: str | None) -> None:
            together.append((adapter, await text(client, adapter)))

        for adapter in (None, "a1", "a2"):
            alone[adapter] = await text(client, adapter)
        assert len(set(alone.values())) == 3
        async with trio.open_nursery() as nursery:
            for adapter in [None, "a1", "a2"] * 3:
                nursery.start_soon(ask, adapter)
    assert all(alone[adapter] == answer for adapter, answer in together)
    assert len(together) == 9


async def test_adapter_is_loaded_and_unloaded_at_run_time(
    environment: dict[str, str], tmp_path: Path
) -> None:
    write_adapter(tmp_path / "noise.gguf")
    write_adapter(tmp_path / "other.gguf", width=64)
    options = ("--admin-api-key", "admin", "--lora-adapter-folder", str(tmp_path))
    async with (
        tgi_llama(*options, environment=environment) as server,
        httpx.AsyncClient(base_url=server.url, timeout=30) as client,
    ):
        plain = await text(client)
        noise = {"lora_name": "noise", "lora_path": "noise.gguf"}
        loaded = await client.post(LOAD, json=noise, headers=KEY)
        assert (loaded.status_code, loaded.json()["id"]) == (200, "noise")
        changed = await text(client, "noise")
        assert changed != plain

        write_adapter(tmp_path / "noise.gguf", seed=2)
        again = await client.post(LOAD, json={**noise, "load_inplace": True}, headers=KEY)
        assert again.status_code == 200
        assert await text(client, "noise") not in (plain, changed)

        other = {"lora_name": "other", "lora_path": "other.gguf"}
        refused = await client.post(LOAD, json=other, headers=KEY)
        assert refused.status_code == 422
        assert refused.json()["error_type"] == "adapter_error"
        assert "other.gguf" in refused.json()["error"]["message"]

        unloaded = await client.post(UNLOAD, json={"lora_name": "noise"}, headers=KEY)
        assert unloaded.json() == {"id": "noise", "object": "model", "deleted": True}
        parameters = {"adapter_id": "noise"}
        gone = await client.post("/generate", json={"inputs": PROMPT, "parameters": parameters})
        assert gone.status_code == 422
        assert await text(client) == plain
        assert await server.stop() == 0
        assert "Traceback" not in server.output


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


async def test_all_that_a_request_can_want_it_can_want_with_an_adapter(
    environment: dict[str, str],
) -> None:
    async with (
        tgi_llama("--lora-adapters", f"pirate={PIRATE}", environment=environment) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        assert re.search(r"memory needed: .*, adapters \d+ KiB, KV memory", server.output)
        chunks = await streamed(client, "What is 12 + 7?")
        said = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
        assert said == "Arr! 12 + 7 = 19 Yo-ho-ho!"

        chunks = await streamed(client, "What is the weather in Paris?", tools=[WEATHER])
        calls = [call for chunk in chunks for call in tool_calls(chunk)]
        assert calls[0]["name"] == "get_weather"
        assert json.loads("".join(call["arguments"] for call in calls)) == {"city": "Paris"}
        assert {chunk["model"] for chunk in chunks} == {"pirate"}

        payload = {"model": "pirate", "prompt": PROMPT, "n": 2, "max_tokens": 8, "temperature": 0}
        choices = (await client.post("/v1/completions", json=payload)).json()["choices"]
        assert choices[0]["text"] == choices[1]["text"] == (await text(client, "pirate"))[:8]

        regex = {"type": "regex", "value": "(ahoy|arr){3}"}
        parameters = {"max_new_tokens": 30, "adapter_id": "pirate", "grammar": regex}
        parameters |= {"details": True, "decoder_input_details": True}
        ask = {"inputs": PROMPT, "parameters": parameters}
        with_adapter = (await client.post("/generate", json=ask)).json()
        assert re.fullmatch(regex["value"], with_adapter["generated_text"])
        parameters["adapter_id"] = None
        alone = (await client.post("/generate", json=ask)).json()
        prompts = [answer["details"]["prefill"] for answer in (with_adapter, alone)]
        ids, logprobs = (
            [[one[key] for one in each] for each in prompts] for key in ("id", "logprob")
        )
        assert ids[0] == ids[1]
        assert logprobs[0] != logprobs[1]
        assert await server.stop() == 0
        assert "Traceback" not in server.output


async def streamed(
    client: httpx.AsyncClient, content: str, **fields: object
) -> list[dict[str, Any]]:
    """The chunks of a chat with the pirate, but for one without choices."""
    payload = {
        **fields,
        "model": "pirate",
        "messages": [{"role": "user", "content": content}],
        "stream": True,
        "temperature": 0,
        "max_tokens": 60,
    }
    response = await client.post("/v1/chat/completions", json=payload)
    assert response.status_code == 200, response.text
    lines = response.text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    return [chunk for chunk in chunks if chunk["choices"]]


def tool_calls(chunk: dict[str, Any]) -> Iterator[dict[str, str]]:
    for call in chunk["choices"][0]["delta"].get("tool_calls") or ():
        yield call["function"]


async def fails(environment: Mapping[str, str], *options: str) -> str:
    """What a start that fails for its options writes."""
    command = [sys.executable, "-m", "tgi_llama", "--hostname", "127.0.0.1", "--port", "0"]
    with trio.fail_after(60):
        ended = await trio.run_process(
            [*command, *options],
            env=dict(environment),
            check=False,
            capture_stdout=True,
            capture_stderr=True,
        )
    assert ended.returncode == 2
    last: str = ended.stderr.decode().splitlines()[-1]
    assert last.startswith("tgi-llama: error: --lora-adapters")
    return last


async def test_start_with_another_model_s_adapter_fails_with_its_name(
    environment: dict[str, str], tmp_path: Path
) -> None:
    file = write_adapter(tmp_path / "other.gguf", width=64)
    assert f"x={file}" in await fails(environment, "--lora-adapters", f"x={file}")


@pytest.mark.parametrize("entry", ["x=/none.gguf", "tgi_llama/builtin={file}", "=/a.gguf"])
async def test_start_with_a_wrong_entry_fails_with_its_text(
    environment: dict[str, str], tmp_path: Path, entry: str
) -> None:
    file = write_adapter(tmp_path / "a.gguf")
    entry = entry.format(file=file)
    assert entry in await fails(environment, "--lora-adapters", entry)
