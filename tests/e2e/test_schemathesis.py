"""Schemathesis makes requests out of the API document and compares the answers with it."""

import os
import re
import sys
from pathlib import Path

import httpx
import trio
from fakes.lora_files import write_adapter
from fakes.server_process import tgi_llama

KEY = "secret"
SMALL = ("--max-input-tokens", "48", "--max-total-tokens", "64", "--max-batch-size", "4")
"""Many generations run to the end of the context."""

CHECKS = ("not_a_server_error", "status_code_conformance", "response_schema_conformance")


async def test_server_keeps_to_its_api_document(
    environment: dict[str, str], tmp_path: Path
) -> None:
    async with tgi_llama("--api-key", KEY, *SMALL, environment=environment) as server:
        output = await asked(server.url, tmp_path, "--max-examples", "5")
        # Otherwise all of it may have been refusals.
        async with httpx.AsyncClient(base_url=server.url) as client:
            metrics = (await client.get("/metrics")).text
        (n_answered,) = re.findall(r"^tgi_request_success (\d+)$", metrics, re.MULTILINE)
        assert int(n_answered) > 200, output
        assert await server.stop() == 0
    assert "Traceback" not in server.output


async def test_routes_for_admins_keep_to_it(environment: dict[str, str], tmp_path: Path) -> None:
    """With an admin key, which opens nothing else."""
    folder = tmp_path / "adapters"
    folder.mkdir()
    write_adapter(folder / "a.gguf")
    options = ("--admin-api-key", KEY, "--lora-adapter-folder", str(folder), *SMALL)
    offline = {**environment, "HF_HUB_OFFLINE": "1"}
    async with tgi_llama(*options, environment=offline) as server:
        only = ("--include-path-regex", "^/v1/(un)?load_lora_adapter$")
        output = await asked(server.url, tmp_path, *only, "--max-examples", "40")
        async with httpx.AsyncClient(base_url=server.url) as client:
            wanted = {"lora_name": "a", "lora_path": "a.gguf", "load_inplace": True}
            loaded = await client.post(
                "/v1/load_lora_adapter", json=wanted, headers={"authorization": f"Bearer {KEY}"}
            )
            assert loaded.status_code == 200, output
        assert await server.stop() == 0
    assert "Traceback" not in server.output


async def asked(url: str, folder: Path, *options: str) -> str:
    """What it says after it found nothing wrong."""
    # A process of its own: it is made for asyncio and brings a pytest plugin along.
    command = [sys.executable, "-m", "schemathesis.cli", "run"]
    command += [f"{url}/api-doc/openapi.json", "--url", url]
    command += ["--header", f"Authorization: Bearer {KEY}", "--checks", ",".join(CHECKS)]
    command += ["--phases", "examples,coverage,fuzzing", "--seed", "1", *options]
    command += ["--generation-database", "none", "--no-color"]
    command += ["--no-shrink", "--continue-on-failure", "--warnings", "off"]
    with trio.fail_after(240):
        done = await trio.run_process(
            command,
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder)},
            check=False,
            capture_stdout=True,
            capture_stderr=True,
        )
    output = done.stdout.decode() + done.stderr.decode()
    assert done.returncode == 0, output
    return output
