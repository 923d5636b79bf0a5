"""A client that goes away, in every phase: its permit and its stream come back."""

import threading

import pytest
import trio
import trio.testing
from fakes.constraints import RememberingCompiler, constraints
from fakes.engine import FakeEngine, generated, text_events
from fakes.raw_client import post

STREAMED = "/generate_stream"
WHOLE = "/generate"
ROUTES = pytest.mark.parametrize(
    ("path", "payload"),
    [
        (STREAMED, {"inputs": "hi"}),
        (WHOLE, {"inputs": "hi"}),
        ("/v1/completions", {"prompt": ["a", "b"]}),
        ("/v1/completions", {"prompt": ["a", "b"], "stream": True}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
    ],
)


async def assert_everything_is_back(site):
    with trio.fail_after(10):
        await site.admission.wait_idle()
    await trio.testing.wait_all_tasks_blocked()
    assert site.engine.n_open == 0
    assert site.metric("tgi_request_count") == 1
    assert site.metric('tgi_request_failure{err="dropped"}') == 1
    assert site.metric("tgi_request_success") == 0


@ROUTES
async def test_client_leaving_while_validating_never_reaches_the_engine(make_site, path, payload):
    site = await make_site()
    validating, go_on = trio.Event(), threading.Event()

    def hold() -> None:
        trio.from_thread.run_sync(validating.set)
        go_on.wait()

    site.tokenizer.on_encode = hold
    client = await site.connect()
    try:
        await client.send(post(path, payload))
        await validating.wait()
        await client.reset()
        await assert_everything_is_back(site)
    finally:
        go_on.set()
    assert site.engine.n_opened == 0


@ROUTES
async def test_client_leaving_while_its_grammar_compiles_never_reaches_the_engine(
    make_site, path, payload
):
    """What is compiled is kept for the next client."""
    compiling, go_on = trio.Event(), threading.Event()

    def hold() -> None:
        trio.from_thread.run_sync(compiling.set)
        go_on.wait()

    compiler = RememberingCompiler(on_compile=hold)
    site = await make_site(constraints=constraints(compiler=compiler))
    client = await site.connect()
    asked = {"guided_regex": "a"}
    payload = {**payload, **({"parameters": asked} if "inputs" in payload else asked)}
    try:
        await client.send(post(path, payload))
        await compiling.wait()
        await client.reset()
        await assert_everything_is_back(site)
    finally:
        go_on.set()
    assert site.engine.n_opened == 0
    assert await site.admission.validate(lambda: len(compiler.grammars)) == 1


@ROUTES
async def test_client_leaving_while_queued_cancels(make_site, path, payload):
    site = await make_site(FakeEngine(gate=trio.Event()))
    client = await site.connect()
    await client.send(post(path, payload))
    await site.engine.opened.wait()
    await client.reset()
    await assert_everything_is_back(site)
    assert site.engine.n_cancelled == site.engine.n_opened


@ROUTES
async def test_client_leaving_while_generating_cancels(make_site, path, payload):
    site = await make_site(FakeEngine(generated("a", "b"), gate=trio.Event(), gate_at=1))
    client = await site.connect()
    await client.send(post(path, payload))
    await site.engine.opened.wait()
    await trio.testing.wait_all_tasks_blocked()
    await client.reset()
    await assert_everything_is_back(site)
    assert site.engine.n_cancelled == site.engine.n_opened


async def test_client_leaving_in_a_blocked_write_cancels(make_site):
    megabyte = "x" * 2**20
    site = await make_site(FakeEngine(lambda _: text_events(*[megabyte] * 100)))
    client = await site.connect()
    await client.send(post(STREAMED, {"inputs": "hi"}))
    await site.engine.opened.wait()
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert site.engine.n_open == 1
    await client.reset()
    await assert_everything_is_back(site)
    assert site.engine.n_cancelled == 1


async def test_client_gone_before_the_body_is_entered_cancels(make_site):
    site = await make_site()
    messages = [{"type": "http.request", "body": b'{"inputs":"hi"}', "more_body": False}]
    started = trio.Event()

    async def receive():
        if messages:
            return messages.pop()
        await started.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        assert message["type"] == "http.response.start"
        started.set()
        await trio.sleep_forever()

    scope = {
        "type": "http",
        "method": "POST",
        "path": STREAMED,
        "scheme": "http",
        "headers": [(b"content-type", b"application/json")],
        "http_version": "1.1",
        "query_string": b"",
        "asgi": {"version": "3.0"},
    }
    await site.app(scope, receive, send)
    await assert_everything_is_back(site)
    assert site.engine.n_cancelled == 1


@pytest.mark.parametrize("path", [STREAMED, WHOLE])
async def test_permit_is_free_when_the_client_has_its_answer(make_site, path):
    site = await make_site(max_concurrent_requests=1)
    first, second = await site.connect(), await site.connect()
    for _ in range(5):
        for client in (first, second):
            assert (await client.request(post(path, {"inputs": "hi"}))).status == 200
    assert site.metric("tgi_request_success") == 10
    assert site.engine.n_cancelled == 0
