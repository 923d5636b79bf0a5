"""What a log line looks like, and which ones appear."""

import io
import json
import logging
import sys
import warnings
from collections.abc import Iterator

import pytest

from tgi_llama.logs import level_of, set_up_logs

_LOGGERS = ("", "tgi_llama", "hypercorn.error", "hypercorn.access")


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    """Logging belongs to the whole process: put it back for the other tests."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(logger, logger.level, logger.handlers, logger.propagate) for logger in loggers]
    yield
    logging.captureWarnings(capture=False)
    for logger, level, handlers, propagate in before:
        logger.setLevel(level)
        logger.handlers = handlers
        logger.propagate = propagate


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def _record(stream: io.StringIO) -> dict[str, object]:
    (line,) = stream.getvalue().splitlines()
    record = json.loads(line)
    assert isinstance(record, dict)
    return record


def test_line_has_time_level_target_and_message(stream: io.StringIO) -> None:
    set_up_logs("info", json_output=False, stream=stream)
    logging.getLogger("tgi_llama.service").warning("%d slots", 4)

    time, rest = stream.getvalue().split(" ", 1)
    assert rest == " WARN tgi_llama.service: 4 slots\n"
    assert time.endswith("Z")
    assert len(time) == len("2026-01-08T12:00:00.123456Z")


def test_line_shows_extra_fields(stream: io.StringIO) -> None:
    set_up_logs("info", json_output=False, stream=stream)
    logging.getLogger("tgi_llama").info("Success", extra={"seed": 7, "total_time": "1.5s"})

    assert stream.getvalue().endswith("tgi_llama: Success seed=7 total_time=1.5s\n")


def test_line_message_with_line_breaks_stays_one_line(stream: io.StringIO) -> None:
    set_up_logs("info", json_output=False, stream=stream)
    logging.getLogger("tgi_llama").info("a\nb\r\nc")

    assert stream.getvalue().endswith(": a\\nb\\nc\n")
    assert stream.getvalue().count("\n") == 1


def test_line_exception_is_followed_by_its_traceback(stream: io.StringIO) -> None:
    set_up_logs("info", json_output=False, stream=stream)
    try:
        int("x")
    except ValueError:
        logging.getLogger("tgi_llama").exception("failed")

    lines = stream.getvalue().splitlines()
    assert lines[0].endswith("ERROR tgi_llama: failed")
    assert lines[1].startswith("Traceback")


def test_json_line_has_the_keys_of_tgi(stream: io.StringIO) -> None:
    set_up_logs("info", json_output=True, stream=stream)
    logging.getLogger("tgi_llama.server").info("one\ntwo", extra={"seed": 7, "error": OSError("x")})

    record = _record(stream)
    assert list(record)[:6] == [
        "timestamp",
        "level",
        "message",
        "target",
        "filename",
        "line_number",
    ]
    assert record["level"] == "INFO"
    assert record["message"] == "one\ntwo"
    assert record["target"] == "tgi_llama.server"
    assert str(record["filename"]).endswith("test_logs.py")
    assert isinstance(record["line_number"], int)
    assert (record["seed"], record["error"]) == (7, "x")


def test_json_line_exception_is_a_field(stream: io.StringIO) -> None:
    set_up_logs("info", json_output=True, stream=stream)
    try:
        int("x")
    except ValueError:
        logging.getLogger("tgi_llama").exception("failed")

    assert "ValueError" in str(_record(stream)["exception"])


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warn", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_level_applies_to_our_own_loggers(
    stream: io.StringIO, level: str, shown: list[str]
) -> None:
    set_up_logs(level, json_output=True, stream=stream)
    logger = logging.getLogger("tgi_llama.engine")
    for name in ("debug", "info", "warning", "error"):
        logger.log(logging.getLevelNamesMapping()[name.upper()], name)

    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == shown


@pytest.mark.parametrize(
    ("expression", "level"),
    [
        ("info", logging.INFO),
        ("DEBUG", logging.DEBUG),
        (" warn ", logging.WARNING),
        ("trace", logging.DEBUG),
        ("info,hypercorn=warn", logging.INFO),
        ("text_generation_router=debug,info", logging.INFO),
        ("text_generation_router[generate{id=5}]=debug, error", logging.ERROR),
        ("info,warn", logging.WARNING),
        ("some_module,warn", logging.WARNING),
        ("text_generation_router=debug", logging.DEBUG),
    ],
)
def test_level_of_a_filter_expression_is_that_of_its_global_part(
    expression: str, level: int
) -> None:
    assert level_of(expression) == level


@pytest.mark.parametrize("expression", ["", "loud", "inof", "text_generation_router=loud", "a,b=c"])
def test_level_of_what_holds_none_is_refused_by_name(stream: io.StringIO, expression: str) -> None:
    with pytest.raises(ValueError, match=f"^{expression!r} holds none of the levels trace, debug"):
        set_up_logs(expression, json_output=False, stream=stream)
    logging.getLogger("tgi_llama").error("elsewhere")
    assert stream.getvalue() == "", "nothing was set up"


def test_level_off_shows_nothing_of_ours(stream: io.StringIO) -> None:
    set_up_logs("off", json_output=False, stream=stream)
    logging.getLogger("tgi_llama.engine").critical("died")
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("level", "shown"), [("debug", ["info", "warning"]), ("info", ["warning"])]
)
def test_level_of_llama_cpp_is_warning_unless_ours_is_debug(
    stream: io.StringIO, level: str, shown: list[str]
) -> None:
    set_up_logs(level, json_output=True, stream=stream)
    for name in ("debug", "info", "warning"):
        logging.getLogger("llamacpp").log(logging.getLevelNamesMapping()[name.upper()], name)

    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == shown


@pytest.mark.parametrize("name", ["hypercorn.error", "some.library"])
@pytest.mark.parametrize("level", ["debug", "error"])
def test_level_of_other_loggers_is_info(stream: io.StringIO, name: str, level: str) -> None:
    set_up_logs(level, json_output=True, stream=stream)
    logging.getLogger(name).debug("debug")
    logging.getLogger(name).info("info")

    record = _record(stream)
    assert (record["message"], record["target"]) == ("info", name)


@pytest.mark.parametrize("name", ["hypercorn.error", "hypercorn.access"])
def test_set_up_logs_takes_over_what_hypercorn_configured(stream: io.StringIO, name: str) -> None:
    elsewhere = io.StringIO()
    logger = logging.getLogger(name)
    logger.handlers = [logging.StreamHandler(elsewhere)]
    logger.propagate = False
    set_up_logs("info", json_output=True, stream=stream)
    logger.info("Running")

    assert elsewhere.getvalue() == ""
    assert _record(stream)["message"] == "Running"


def test_set_up_logs_twice_logs_once_in_the_second_form(stream: io.StringIO) -> None:
    set_up_logs("info", json_output=False, stream=stream)
    set_up_logs("info", json_output=True, stream=stream)
    logging.getLogger("tgi_llama").info("once")

    assert _record(stream)["message"] == "once"


def test_set_up_logs_warnings_become_log_lines(stream: io.StringIO) -> None:
    set_up_logs("info", json_output=True, stream=stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)  # catch_warnings put the original function back
        warnings.warn("old", UserWarning, stacklevel=1)

    record = _record(stream)
    assert (record["target"], record["level"]) == ("py.warnings", "WARN")


def test_default_stream_is_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs("info", json_output=False)
    logging.getLogger("tgi_llama").info("hello")

    assert capsys.readouterr().out.endswith("INFO tgi_llama: hello\n")


class _ClosedPipe(io.StringIO):
    def write(self, _text: str, /) -> int:
        raise BrokenPipeError


def test_stream_that_was_closed_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs("info", json_output=False, stream=_ClosedPipe())
    logging.getLogger("tgi_llama").info("lost")

    assert capsys.readouterr().err == ""


def test_log_call_with_wrong_arguments_is_reported(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = io.StringIO()
    monkeypatch.setattr(sys, "stderr", errors)
    set_up_logs("info", json_output=False, stream=stream)
    logging.getLogger("tgi_llama").info("%d", "x")

    assert "--- Logging error ---" in errors.getvalue()
