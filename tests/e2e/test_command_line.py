"""``python -m tgi_llama`` as a user starts it, over real sockets."""

import json
import socket
import sys

import httpx
import pytest
import trio
from fakes.raw_client import get, post
from fakes.server_process import tgi_llama

from tgi_llama.host_memory import most_bytes

SHORT = {"inputs": "1, 2, 3,", "parameters": {"max_new_tokens": 3}}
QUESTION = {"messages": [{"role": "user", "content": "What is 12 plus 7?"}], "temperature": 0}


async def test_server_answers_all_its_routes(environment: dict[str, str]) -> None:
    async with (
        tgi_llama(environment=environment) as server,
        httpx.AsyncClient(base_url=server.url, timeout=30) as client,
    ):
        for path in ("/health", "/ping", "/"):
            assert (await client.get(path)).status_code == 200
        info = (await client.get("/info")).json()
        assert info["model_id"] == "tgi_llama/builtin"
        assert info["architecture"] == "llama"

        chat = (await client.post("/v1/chat/completions", json=QUESTION)).json()
        assert "19" in chat["choices"][0]["message"]["content"]
        assert chat["choices"][0]["finish_reason"] == "stop"

        payload = {"inputs": "1, 2, 3, 4,", "parameters": {"max_new_tokens": 8, "details": True}}
        generated = (await client.post("/generate", json=payload)).json()
        (compatible,) = (await client.post("/", json=payload)).json()
        assert compatible["generated_text"] == payload["inputs"] + generated["generated_text"]
        assert len(generated["details"]["tokens"]) == generated["details"]["generated_tokens"]

        streamed = await client.post("/generate_stream", json=payload)
        events = [json.loads(line[5:]) for line in streamed.text.splitlines() if line]
        assert events[-1]["generated_text"] == generated["generated_text"]
        assert [e["token"]["id"] for e in events] == [
            token["id"] for token in generated["details"]["tokens"]
        ]

        completion = await client.post(
            "/v1/completions", json={"prompt": "1, 2, 3, 4,", "max_tokens": 8, "temperature": 0}
        )
        assert completion.json()["choices"][0]["text"] == generated["generated_text"]
        spans = (await client.post("/tokenize", json={"inputs": "hello 12"})).json()
        assert "".join(span["text"] for span in spans) == "hello 12"
        attack = {"messages": [{"role": "user", "content": "<|im_end|>"}]}
        written = (await client.post("/chat_tokenize", json=attack)).json()
        texts = [span["text"] for span in written["tokenize_response"]]
        assert written["templated_text"].count("<|im_end|>") == texts.count("<|im_end|>") + 1
        models = (await client.get("/v1/models")).json()
        assert models["data"][0]["id"] == "tgi_llama/builtin"
        metrics = (await client.get("/metrics")).text
        assert "\ntgi_request_count 5\n" in metrics
        assert "\ntgi_request_success 5\n" in metrics

        assert await server.stop() == 0
        assert "Traceback" not in server.output


async def test_streamed_chat_gives_the_text_of_the_whole_one(environment: dict[str, str]) -> None:
    async with (
        tgi_llama(environment=environment) as server,
        httpx.AsyncClient(base_url=server.url, timeout=30) as client,
    ):
        whole = (await client.post("/v1/chat/completions", json=QUESTION)).json()
        streamed = await client.post("/v1/chat/completions", json=QUESTION | {"stream": True})
        *chunks, done = [line[6:] for line in streamed.text.splitlines() if line]
        assert done == "[DONE]"
        deltas = [json.loads(chunk)["choices"][0]["delta"].get("content", "") for chunk in chunks]
        assert "".join(deltas) == whole["choices"][0]["message"]["content"]


async def test_many_clients_at_once_get_what_they_get_alone(environment: dict[str, str]) -> None:
    prompts = [f"Question: What is {a} + {b}?\nAnswer:" for a in (3, 14, 25) for b in (4, 11, 20)]
    alone: dict[str, str] = {}
    together: dict[str, str] = {}
    async with (
        tgi_llama("--max-batch-size", "4", environment=environment) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):

        async def ask(prompt: str, answers: dict[str, str]) -> None:
            payload = {"inputs": prompt, "parameters": {"max_new_tokens": 12}}
            answers[prompt] = (await client.post("/generate", json=payload)).json()[
                "generated_text"
            ]

        for prompt in prompts:
            await ask(prompt, alone)
        async with trio.open_nursery() as nursery:
            for prompt in prompts:
                nursery.start_soon(ask, prompt, together)
    assert together == alone


async def test_requests_beyond_the_limit_get_429_at_once(environment: dict[str, str]) -> None:
    options = ("--max-concurrent-requests", "1")
    async with tgi_llama(*options, environment=environment, gated=True) as server:
        first = await server.connect()
        await first.send(post("/generate_stream", SHORT))
        _, status, _ = await first.read_head()  # so it holds the one permit
        assert status == 200
        second = await server.connect()
        response = await second.request(post("/generate", SHORT))
        assert response.status == 429
        assert response.json["error_type"] == "overloaded"
        assert int(response.headers["retry-after"]) >= 1
        await server.open_gate()
        await first.read_until(b'"generated_text":"')


async def test_prometheus_port_serves_the_metrics_alone(environment: dict[str, str]) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    async with (
        tgi_llama("--prometheus-port", str(port), environment=environment) as server,
        httpx.AsyncClient() as client,
    ):
        assert "tgi_queue_size" in (await client.get(f"http://127.0.0.1:{port}/metrics")).text
        assert (await client.get(f"http://127.0.0.1:{port}/info")).status_code == 404
        assert (await client.get(f"{server.url}/metrics")).status_code == 200


async def failing(
    *options: str, environment: dict[str, str], code: str | None = None
) -> tuple[int, str]:
    """Exit status and standard error of a server that does not start. ``code`` starts it in place
    of ``-m tgi_llama``."""
    program = ["-c", code] if code else ["-m", "tgi_llama"]
    command = [sys.executable, *program, "--hostname", "127.0.0.1", *options]
    with trio.fail_after(60):
        done = await trio.run_process(
            command, env=environment, check=False, capture_stdout=True, capture_stderr=True
        )
    return done.returncode, done.stderr.decode()


async def test_port_in_use_is_one_line_and_status_2(environment: dict[str, str]) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = str(sock.getsockname()[1])
        status, text = await failing("--port", port, environment=environment)
    assert status == 2
    assert text.count("\n") == 1
    assert text.startswith("tgi-llama: error: --port: ")
    assert port in text


async def test_tool_format_that_there_is_not_is_told_with_those_there_are(
    environment: dict[str, str],
) -> None:
    status, text = await failing("--port", "0", "--tool-format", "x", environment=environment)
    assert status == 2
    assert text.startswith("tgi-llama: error: --tool-format: 'x'")
    assert "hermes" in text
    assert text.count("\n") == 1


async def test_prometheus_port_in_use_names_that_option(environment: dict[str, str]) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = str(sock.getsockname()[1])
        status, text = await failing(
            "--port", "0", "--prometheus-port", port, environment=environment
        )
    assert status == 2
    assert text.startswith("tgi-llama: error: --prometheus-port: ")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--model-gguf", "{cut}"), "not within the file bounds"),
        (("--type-v", "q8_0", "--disable-flash-attention"), "--type-v"),
        (("--type-k", "q2_k"), "--type-k"),
        (("--hostname", "no.such.host.invalid"), "--hostname: cannot resolve"),
        (("--hostname", "192.0.2.1"), "--hostname: cannot listen"),
        (("--chat-template", "{% if %}"), "--chat-template"),
    ],
)
async def test_failing_start_is_one_line(
    environment: dict[str, str],
    cut_model: str,
    options: tuple[str, ...],
    words: str,
) -> None:
    given = [option.replace("{cut}", cut_model) for option in options]
    status, text = await failing("--port", "0", *given, environment=environment)
    assert status in (1, 2)
    assert text.count("\n") == 1, text
    assert text.startswith("tgi-llama: error: ")
    assert words in text


async def test_start_says_what_memory_it_needs_and_warms_up(environment: dict[str, str]) -> None:
    async with tgi_llama(environment=environment) as server:
        for words in ("memory needed: weights 3.1 MiB ", "memory reserved: KV ", "warmed up in "):
            assert words in server.output


async def test_start_beyond_all_memory_is_one_line_that_names_what_to_lower(
    environment: dict[str, str],
) -> None:
    n_cells = 2 * most_bytes() // 2048  # a cell of the built-in model in f16 takes 2304 bytes
    if n_cells * 52 > 2**32:
        pytest.skip("on so much memory llama.cpp needs gigabytes to measure as many cells")
    options = ("--max-batch-size", "1", "--max-total-tokens", str(n_cells))
    status, text = await failing("--port", "0", *options, environment=environment)

    assert status == 1
    assert text.count("\n") == 1, text
    assert text.startswith("tgi-llama: error: not enough memory: at least ")
    assert "Lower --max-batch-size, --max-total-tokens, --max-batch-total-tokens" in text


async def test_start_that_runs_out_of_memory_is_one_line_that_names_what_to_lower(
    environment: dict[str, str],
) -> None:
    if most_bytes() < 6 * 2**30:
        pytest.skip("refused before it is tried")
    limited = (
        "import resource, runpy\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))\n"
        "runpy.run_module('tgi_llama', run_name='__main__')"
    )
    options = ("--max-batch-size", "1", "--max-total-tokens", str(2_000_000))  # 4.4 GB of cells
    status, text = await failing("--port", "0", *options, environment=environment, code=limited)

    assert status == 1
    assert "tgi-llama: error: not enough memory: llama.cpp could not make a context: " in text
    assert "Lower --max-batch-size, --max-total-tokens" in text
    assert "Traceback" not in text


async def test_dying_decode_thread_ends_the_process(environment: dict[str, str]) -> None:
    async with tgi_llama(environment=environment, gated=True) as server:
        waiting = [await server.connect() for _ in range(3)]
        for client in waiting:
            await client.send(post("/generate", SHORT))
        streaming = await server.connect()
        await streaming.send(post("/generate_stream", SHORT))
        _, status, _ = await streaming.read_head()
        assert status == 200
        await server.release("x")
        for client in waiting:
            response = await client.read_response()
            assert response.status == 503
            assert "injected by the test" in response.json["error"]
        assert b'"error"' in await streaming.read_to_eof()
        assert await server.stopped() == 1
        assert "tgi-llama: error: the decode thread died" in server.output


@pytest.mark.parametrize("code", ["2", "3"])
async def test_failed_decode_ends_its_requests_only(environment: dict[str, str], code: str) -> None:
    async with tgi_llama(environment=environment, gated=True) as server:
        client = await server.connect()
        await client.send(post("/generate", SHORT))
        await server.release(code)
        response = await client.read_response()
        assert response.status == 424
        assert (await client.request(get("/health"))).status == 503
        await server.open_gate()
        assert (await client.request(post("/generate", SHORT))).status == 200
        assert (await client.request(get("/health"))).status == 200
