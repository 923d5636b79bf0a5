"""The other way to start: an ASGI server with a command line of its own."""

import contextlib
import sys
from collections.abc import Mapping

import httpx
import trio
from fakes.raw_client import post
from fakes.server_process import ServerProcess, running

LISTENING = r"Running on http://127\.0\.0\.1:(\d+)"

COMMAND = [sys.executable, "-m", "hypercorn", "-k", "trio", "-b", "127.0.0.1:0"]


def hypercorn(
    environment: Mapping[str, str], **variables: str
) -> "contextlib.AbstractAsyncContextManager[ServerProcess]":
    return running(
        [*COMMAND, "tgi_llama.asgi:app"],
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
    command = [*COMMAND, "tgi_llama.asgi:app"]
    with trio.fail_after(60):
        done = await trio.run_process(
            command,
            env={**environment, "MODEL_GGUF": "no-such-file.gguf"},
            check=False,
            capture_stdout=True,
            capture_stderr=True,
        )
    # It ends, though with status 0: Hypercorn 0.18 forgets the status of its worker process.
    assert b"MODEL_GGUF" in done.stdout + done.stderr
