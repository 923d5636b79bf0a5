"""``tgi-llama health`` against servers that answer, refuse, hang and have none of it."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tgi_llama import cli, health_check
from tgi_llama.config import Config


@contextlib.contextmanager
def _server(answer: bytes | None) -> Iterator[int]:
    """A port where each connection gets the answer; None: it never gets one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_answer_all, args=(listener, answer))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # ends accept()
            thread.join()


def _answer_all(listener: socket.socket, answer: bytes | None) -> None:
    with contextlib.ExitStack() as open_connections:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            open_connections.enter_context(connection)
            if answer is not None:
                connection.recv(65536)
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)


def _health(*arguments: str) -> int:
    return cli.run(["health", *arguments], serve=_serve_nothing)


def _serve_nothing(_config: Config) -> None:
    raise AssertionError("health does not serve")


_HEALTHY = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
_DRAINING = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"


def test_health_of_a_healthy_server_is_zero_and_silent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody's: it must not be asked
    with _server(_HEALTHY) as port:
        assert _health("--port", str(port)) == 0
    assert capsys.readouterr() == ("", "")


def test_health_of_a_draining_server_is_one_with_the_status(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with _server(_DRAINING) as port:
        assert _health("--port", str(port)) == 1
    assert capsys.readouterr().err == f"unhealthy: http://127.0.0.1:{port}/health answers 503\n"


def test_health_where_nobody_listens_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert _health("--port", str(port)) == 1
    assert "refused" in capsys.readouterr().err


@pytest.mark.parametrize("answer", [None, b"", b"what?\r\n\r\n"])
def test_health_of_a_server_that_does_not_speak_is_one(
    capsys: pytest.CaptureFixture[str], answer: bytes | None
) -> None:
    with _server(answer) as port:
        assert _health("--port", str(port), "--timeout", "0.1") == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("variable", ["PORT", "AIP_HTTP_PORT"])
def test_health_finds_the_port_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv("PORT", raising=False)
    with _server(_HEALTHY) as port:
        monkeypatch.setenv(variable, str(port))
        assert _health() == 0


@pytest.mark.parametrize(
    "command",
    [
        "/opt/tgi_llama/bin/python /opt/tgi_llama/bin/tgi-llama --model-id x/y --port {}",
        "/sbin/docker-init -- tgi-llama --port={} --json-output",
        "python3 -m tgi_llama -p {} --model-gguf a.gguf",
        "tgi-llama serve --port {} --model-id x/y",
    ],
)
def test_health_finds_the_port_in_the_containers_first_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    monkeypatch.setenv("PORT", "9")  # the server's own options win over it
    with _server(_HEALTHY) as port:
        _first_process(monkeypatch, tmp_path, command.format(port))
        assert _health() == 0


def test_health_of_a_server_that_sagemaker_starts_is_asked_at_its_port(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PORT", raising=False)
    monkeypatch.setenv("HF_MODEL_ID", "owner/name")
    with _server(_HEALTHY) as port:
        monkeypatch.setenv("SAGEMAKER_BIND_TO_PORT", str(port))
        _first_process(monkeypatch, tmp_path, "tgi-llama serve")
        assert _health() == 0
    monkeypatch.delenv("SAGEMAKER_BIND_TO_PORT")
    assert _health("--timeout", "0.01") == 1
    assert "http://127.0.0.1:8080/health" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "address"),
    [
        ("tgi-llama --hostname 127.0.0.2", "127.0.0.2:3000"),
        ("tgi-llama --hostname 0.0.0.0", "127.0.0.1:3000"),
        ("tgi-llama --hostname ::1 --port 9", "[::1]:9"),
        ("tgi-llama --port 0", "127.0.0.1:3000"),
        ("/usr/lib/systemd/systemd --port 9", "127.0.0.1:3000"),
        ("tgi-llama health --port 9", "127.0.0.1:3000"),
        ("tgi-llama --port many --no-such-option", "127.0.0.1:3000"),
    ],
)
def test_health_asks_where_the_server_was_told_to_listen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str, address: str
) -> None:
    monkeypatch.delenv("PORT", raising=False)
    asked: list[str] = []
    monkeypatch.setattr(health_check, "_problem", lambda url, **_: asked.append(url))
    _first_process(monkeypatch, tmp_path, command)
    assert _health() == 0
    assert asked == [f"http://{address}/health"]


def test_health_without_a_first_process_that_it_may_see_asks_the_usual_port(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PORT", raising=False)
    monkeypatch.setattr(cli, "FIRST_PROCESS", tmp_path / "hidden")
    assert _health("--hostname", "127.0.0.3", "--timeout", "0.01") == 1
    assert "http://127.0.0.3:3000/health" in capsys.readouterr().err


def _first_process(monkeypatch: pytest.MonkeyPatch, folder: Path, command: str) -> None:
    told = folder / "cmdline"
    told.write_text("".join(f"{word}\0" for word in command.split()))
    monkeypatch.setattr(cli, "FIRST_PROCESS", told)


def test_health_wrong_argument_is_one_line_and_usage_status(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _health("--port", "0") == 2
    assert capsys.readouterr().err.startswith("tgi-llama: error: Invalid value for '--port'")
