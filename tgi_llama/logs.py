"""Logging set-up: what goes to standard output, and in which form.

Modules log with ``logging.getLogger(__name__)``; llama.cpp's own messages use the logger
``llamacpp``, as TGI names their target. Fields given with ``extra=`` are shown in both forms.
This is the one module besides ``wire/`` that writes JSON.
"""

import datetime
import json
import logging
import sys
from typing import TextIO

_LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "off": logging.CRITICAL + 1,
}
"""Those of Rust's ``tracing``, in whose words TGI's ``LOG_LEVEL`` is written."""
_LEVEL_NAMES = {"WARNING": "WARN", "CRITICAL": "ERROR"}  # TGI's spelling; it has no CRITICAL
_OWN_LOGGER = "tgi_llama"
_NATIVE_LOGGER = "llamacpp"
_SERVER_LOGGERS = ("hypercorn.error", "hypercorn.access")
_STANDARD_FIELDS = frozenset(
    (*vars(logging.makeLogRecord({})), "message", "asctime", "color_message", "taskName")
)


def set_up_logs(level: str, *, json_output: bool, stream: TextIO | None = None) -> None:
    """Sends all logging of the process to ``stream``, by default standard output.

    ``level``, as ``level_of`` takes it, is for our own loggers; others log from info on, llama.cpp
    from warnings on unless ``level`` is debug (it describes a model in a hundred lines). May be
    called again, and must then be called where no other thread logs: it replaces what was set up.
    Call it after a server that configures logging itself, for example Hypercorn's own command.

    Raises ValueError for what is no level, having changed nothing.
    """
    own = level_of(level)
    handler = _OutputHandler(stream or sys.stdout)
    handler.setFormatter(JsonFormatter() if json_output else LineFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    logging.getLogger(_OWN_LOGGER).setLevel(own)
    native = logging.INFO if own == logging.DEBUG else logging.WARNING
    logging.getLogger(_NATIVE_LOGGER).setLevel(native)
    for name in _SERVER_LOGGERS:
        _pass_to_root(logging.getLogger(name))
    logging.captureWarnings(capture=True)


def level_of(expression: str) -> int:
    """Logging's number for a level (trace, debug, info, warn, error or off, in any case), or for
    the global part of a filter expression that TGI takes: info for ``info,hypercorn=warn`` and for
    ``text_generation_router=debug,info``.

    The parts about single targets name TGI's modules and have no effect. Where there is no other
    part, their level counts: it was meant for the server, which there has these names.

    Raises ValueError for what holds no level at all.
    """
    overall: int | None = None
    of_a_target: int | None = None
    for part in expression.split(","):
        _, has_target, name = part.rpartition("=")
        level = _LEVELS.get(name.strip().lower())
        if has_target:
            of_a_target = of_a_target if level is None else level
        else:
            overall = overall if level is None else level
    found = of_a_target if overall is None else overall
    if found is None:
        raise ValueError(f"{expression!r} holds none of the levels {', '.join(_LEVELS)}")
    return found


def _pass_to_root(logger: logging.Logger) -> None:
    logger.handlers = []
    logger.propagate = True


class _OutputHandler(logging.StreamHandler[TextIO]):
    """Writes to a stream that whoever reads it may close."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """A closed pipe must not turn every log line into a traceback; mistakes in a call do."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


class LineFormatter(logging.Formatter):
    """``<time> <level> <logger>: <message> <field>=<value>...`` on one line.

    Line breaks in messages, which clients may have caused, are escaped. A traceback follows on
    lines of its own.
    """

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {key}={value}" for key, value in _extra_fields(record).items())
        text = _on_one_line(record.getMessage() + fields)
        line = f"{_timestamp(record)} {_level(record):>5} {record.name}: {text}"
        trace = _traceback(self, record)
        return line if trace is None else f"{line}\n{trace}"


class JsonFormatter(logging.Formatter):
    """One flat JSON object per line, with TGI's keys first. ``exception`` holds a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "timestamp": _timestamp(record),
            "level": _level(record),
            "message": record.getMessage(),
            "target": record.name,
            "filename": record.pathname,
            "line_number": record.lineno,
        }
        trace = _traceback(self, record)
        if trace is not None:
            entry["exception"] = trace
        return json.dumps(entry | _extra_fields(record), default=str)


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.datetime.fromtimestamp(record.created, tz=datetime.UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _level(record: logging.LogRecord) -> str:
    return _LEVEL_NAMES.get(record.levelname, record.levelname)


def _extra_fields(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD_FIELDS}


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str | None:
    return formatter.formatException(record.exc_info) if record.exc_info else None


def _on_one_line(text: str) -> str:
    return "\\n".join(text.splitlines())
