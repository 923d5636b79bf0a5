"""Schemathesis makes requests out of the API document and compares the answers with it."""

import os
import re
import sys
from pathlib import Path

import httpx
import trio
from fakes.server_process import tgi_llama

KEY = "secret"
SMALL = ("--max-input-tokens", "48", "--max-total-tokens", "64", "--max-batch-size", "4")
"""Many generations run to the end of the context."""

CHECKS = ("not_a_server_error", "status_code_conformance", "response_schema_conformance")


async def test_server_keeps_to_its_api_document(
    environment: dict[str, str], tmp_path: Path
) -> None:
    async with tgi_llama("--api-key", KEY, *SMALL, environment=environment) as server:
        # A process of its own: it is made for asyncio and brings a pytest plugin along.
        command = [sys.executable, "-m", "schemathesis.cli", "run"]
        command += [f"{server.url}/api-doc/openapi.json", "--url", server.url]
        command += ["--header", f"Authorization: Bearer {KEY}", "--checks", ",".join(CHECKS)]
        command += ["--phases", "examples,coverage,fuzzing", "--max-examples", "5", "--seed", "1"]
        command += ["--generation-database", "none", "--no-color"]
        command += ["--no-shrink", "--continue-on-failure", "--warnings", "off"]
        with trio.fail_after(240):
            done = await trio.run_process(
                command,
                cwd=tmp_path,
                env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
                check=False,
                capture_stdout=True,
                capture_stderr=True,
            )
        output = done.stdout.decode() + done.stderr.decode()
        assert done.returncode == 0, output
        # Otherwise all of it may have been refusals.
        async with httpx.AsyncClient(base_url=server.url) as client:
            metrics = (await client.get("/metrics")).text
        (n_answered,) = re.findall(r"^tgi_request_success (\d+)$", metrics, re.MULTILINE)
        assert int(n_answered) > 200, output
        assert await server.stop() == 0
    assert "Traceback" not in server.output
