"""Everything that can go wrong with a request is counted under its name; nothing ends the round."""

import contextlib
import socket
from functools import partial

import pytest
import trio
from fakes.measuring import measure
from fakes.scripted_server import Answer, Received, ScriptedServer, playing

from tgi_llama.bench.dialects import error_text
from tgi_llama.bench.http_client import Endpoint
from tgi_llama.bench.plan import Measurement
from tgi_llama.bench.server import find_server
from tgi_llama.errors import BenchError, ConfigError


def _failures(measurement: Measurement) -> list[tuple[str, str]]:
    one = measurement.current
    assert one is not None
    return [
        (sample.failure.kind, sample.failure.message) for sample in one.samples if sample.failure
    ]


@pytest.mark.parametrize("api", ["openai", "tgi"])
@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (Answer(status=429, error="Model is overloaded"), "http 429", "Model is overloaded"),
        (Answer(status=500, error="a defect"), "http 500", "a defect"),
        (Answer(cut_after=3), "cut", "the connection ended inside the answer"),
        (Answer(cut_after=0), "cut", "the connection ended inside the answer"),
        (Answer(error_after=2), "error event", "it broke"),
        (Answer(content_type="application/json"), "protocol", "the answer is not a stream"),
    ],
)
async def test_failed_request_is_counted_and_the_others_go_on(
    api: str, answer: Answer, kind: str, message: str
) -> None:
    def decide(_received: Received) -> Answer:
        return answer if len(server.received) == 2 else Answer()

    server = ScriptedServer(decide)
    async with playing(server):
        measurement = await measure(server, api=api, n_requests=5)

    ((found_kind, found_message),) = _failures(measurement)
    assert found_kind == kind
    assert message in found_message
    summary = measurement.summary(0, measurement.plan.servers[0])
    assert summary is not None
    assert (summary.n_requests, summary.n_finished) == (5, 4)
    assert summary.n_lost_tokens == 0


async def test_tokens_before_a_cut_are_kept() -> None:
    async with playing(ScriptedServer(lambda _: Answer(cut_after=3))) as server:
        measurement = await measure(server, n_requests=1)

    one = measurement.current
    assert one is not None
    assert [len(sample.event_times) for sample in one.samples] == [3]


async def test_answer_that_never_comes_times_out() -> None:
    server = ScriptedServer(lambda _: Answer(gates={5: trio.Event()}))
    async with playing(server):
        measurement = await measure(server, n_requests=1, timeout_s=0.05)

    assert _failures(measurement) == [("timeout", "no end within 0.05 s")]


async def test_answer_without_a_token_is_a_failure_but_an_early_end_is_not() -> None:
    async with playing(ScriptedServer(lambda _: Answer(n_tokens=0))) as server:
        empty = await measure(server, n_requests=1)
    server = ScriptedServer(lambda _: Answer(n_tokens=2, finish_reason="stop"))
    async with playing(server):
        short = await measure(server, n_requests=1)

    assert [kind for kind, _ in _failures(empty)] == ["no token"]
    assert _failures(short) == []


async def test_tokens_that_are_missing_at_full_length_are_counted_as_lost() -> None:
    async with playing(ScriptedServer(lambda _: Answer(n_tokens=60))) as server:
        measurement = await measure(server, n_requests=2)

    summary = measurement.summary(0, measurement.plan.servers[0])
    assert summary is not None
    assert summary.n_lost_tokens == 2 * 4


async def test_events_in_one_read_are_noted() -> None:
    async with playing(ScriptedServer(lambda _: Answer(in_one_write=True))) as server:
        measurement = await measure(server, n_requests=1)

    summary = measurement.summary(0, measurement.plan.servers[0])
    assert summary is not None
    assert summary.n_shared_reads > 0
    assert summary.n_text_events == 64


async def test_server_that_goes_away_is_a_refused_connection() -> None:
    server = ScriptedServer()
    async with playing(server):
        found = await find_server("A", Endpoint.parse(server.url))
    with pytest.raises(BenchError, match=r"cannot be reached: .*refused"):
        await find_server("A", found.endpoint)


async def test_warm_up_that_fails_names_the_server_and_what_came() -> None:
    async with playing(ScriptedServer(lambda _: Answer(status=500, error="no model"))) as server:
        with pytest.raises(BenchError) as caught:
            await measure(server, n_warm_up=1)

    message = str(caught.value)
    assert message == f"{server.url} failed a first request: http 500: no model"


async def test_warm_up_does_not_count() -> None:
    async with playing(ScriptedServer()) as server:
        measurement = await measure(server, n_warm_up=3, n_requests=2)

    summary = measurement.summary(0, measurement.plan.servers[0])
    assert summary is not None
    assert (summary.n_requests, len(server.received)) == (2, 5)


# Finding out what the server is


@pytest.mark.parametrize(
    ("models", "info", "api", "model"),
    [
        ({"data": [{"id": "a"}]}, {"model_id": "b"}, "openai", "a"),
        (None, {"model_id": "b"}, "tgi", "b"),
        ({"object": "list"}, {"model_id": "b"}, "tgi", "b"),
        ({"data": [{"id": "a"}]}, None, "openai", "a"),
    ],
)
async def test_api_is_found_out(
    models: dict[str, object] | None, info: dict[str, object] | None, api: str, model: str
) -> None:
    async with playing(ScriptedServer(models=models, info=info)) as server:
        found = await find_server("A", Endpoint.parse(server.url))

    assert (found.dialect.name, found.asking.model) == (api, model)


async def test_server_that_speaks_neither_api_is_refused_unless_told() -> None:
    async with playing(ScriptedServer(models=None, info=None)) as server:
        endpoint = Endpoint.parse(server.url)
        with pytest.raises(BenchError, match=r"speaks neither .* /v1/models answers 404"):
            await find_server("A", endpoint)
        told = await find_server("A", endpoint, api="tgi")

    assert told.dialect.name == "tgi"


async def test_api_key_is_sent_and_asked_for() -> None:
    async with playing(ScriptedServer(api_key="secret")) as server:
        with pytest.raises(BenchError, match=r"answers 401: Unauthorized \(see --api-key\)"):
            await find_server("A", Endpoint.parse(server.url))
        measurement = await measure(server, n_requests=1)

    assert _failures(measurement) == []
    assert "secret" not in repr(measurement.plan.servers[0])


async def test_server_that_is_no_http_server_is_named() -> None:
    async def speak(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(b"220 mail.example ESMTP\r\n\r\n")
            await stream.receive_some()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, speak, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises(BenchError, match="failed: the answer is not HTTP"):
            await find_server("A", Endpoint.parse(f"http://127.0.0.1:{port}"))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("http://host:81", "host", 81, ""),
        ("http://host/", "host", 80, ""),
        ("https://host", "host", 443, ""),
        ("http://host:81/v1", "host", 81, ""),
        ("http://host/some/v1/", "host", 80, "/some"),
        ("http://[::1]:3000", "::1", 3000, ""),
    ],
)
def test_url_is_read(url: str, host: str, port: int, path: str) -> None:
    endpoint = Endpoint.parse(url)

    assert (endpoint.host, endpoint.port, endpoint.path) == (host, port, path)


@pytest.mark.parametrize("url", ["host:81", "ftp://host", "http://", "http://a:x", "http://a?b"])
def test_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="URL"):
        Endpoint.parse(url)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ('{"error": "a", "error_type": "b"}', "a"),
        ('{"error": {"message": "a"}}', "a"),
        ('{"message": "a"}', "a"),
        ("plain\n text", "plain text"),
        ('{"detail": 1}', '{"detail": 1}'),
        ("x" * 1000, "x" * 300),
    ],
)
def test_error_text_is_the_message_whoever_wrote_it(body: str, text: str) -> None:
    assert error_text(body) == text


def test_unused_port_for_the_command_line_is_refused() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with pytest.raises(BenchError, match=f"http://127.0.0.1:{port} cannot be reached"):
        trio.run(find_server, "A", Endpoint.parse(f"http://127.0.0.1:{port}"))
