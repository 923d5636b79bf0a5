"""The other way to start: an ASGI server with a command line of its own."""

import contextlib
import sys
from collections.abc import Mapping

import httpx
import trio
from fakes.raw_client import post
from fakes.server_process import GATED_SERVER, ServerProcess, running

LISTENING = r"Running on http://127\.0\.0\.1:(\d+)"

OPTIONS = ["-k", "trio", "-b", "127.0.0.1:0", "tgi_llama.asgi:app"]
COMMAND = [sys.executable, "-m", "hypercorn", *OPTIONS]
IN_PROCESS = ("-w", "0")
"""Without a worker process, whose status Hypercorn 0.18 forgets. It then knows no SIGTERM."""


def hypercorn(
    environment: Mapping[str, str], **variables: str
) -> "contextlib.AbstractAsyncContextManager[ServerProcess]":
    return running(
        COMMAND,
        environment={**environment, **variables},
        listening=LISTENING,
    )


async def test_hypercorn_serves_what_the_environment_configures(
    environment: dict[str, str],
) -> None:
    async with (
        hypercorn(environment, MAX_BATCH_SIZE="3", MAX_TOTAL_TOKENS="1500") as server,
        httpx.AsyncClient(base_url=server.url, timeout=30) as client,
    ):
        info = (await client.get("/info")).json()
        assert (info["n_slots"], info["max_total_tokens"]) == (3, 1500)
        payload = {"inputs": "1, 2, 3,", "parameters": {"max_new_tokens": 5}}
        first = (await client.post("/generate", json=payload)).json()["generated_text"]
        streamed = (await client.post("/generate_stream", json=payload)).text
        assert first in streamed
        assert await server.stop() == 0


async def test_hypercorn_closes_a_connection_that_asked_for_it(
    environment: dict[str, str],
) -> None:
    async with hypercorn(environment) as server:
        client = await server.connect()
        payload = {"inputs": "1, 2, 3,", "parameters": {"max_new_tokens": 2}}
        await client.send(post("/generate", payload, headers=("Connection: close",)))
        assert b"generated_text" in await client.read_to_eof()


async def test_hypercorn_with_a_bad_variable_ends_with_its_name(
    environment: dict[str, str],
) -> None:
    command = [*COMMAND, *IN_PROCESS]
    with trio.fail_after(60):
        done = await trio.run_process(
            command,
            env={**environment, "API_KEY_FILE": "no-such-file"},
            check=False,
            capture_stdout=True,
            capture_stderr=True,
        )
    assert b"API_KEY_FILE" in done.stdout + done.stderr
    assert done.returncode == 1


async def test_hypercorn_without_its_model_ends_with_one_line_about_it(
    environment: dict[str, str],
) -> None:
    with trio.fail_after(60):
        done = await trio.run_process(
            [*COMMAND, *IN_PROCESS],
            env={**environment, "MODEL_GGUF": "no-such-file.gguf"},
            check=False,
            capture_stdout=True,
            capture_stderr=True,
        )
    line = b"--model-gguf: cannot read the file 'no-such-file.gguf': No such file or directory"
    assert done.stdout.count(line) == 1
    assert done.returncode == 1


async def test_hypercorn_ends_with_the_decode_thread(environment: dict[str, str]) -> None:
    command = [sys.executable, str(GATED_SERVER), "hypercorn", *OPTIONS, *IN_PROCESS]
    async with running(command, environment=environment, listening=LISTENING) as server:
        client = await server.connect()
        await client.send(post("/generate", {"inputs": "Hello"}))
        await server.release("x")
        response = await client.read_response()
        assert (response.status, "injected by the test" in response.json["error"]) == (503, True)
        assert await server.stopped() == 1
        assert "the decode thread died" in server.output
