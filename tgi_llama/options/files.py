"""Options whose value stands in a file. Files are read once, while the configuration is made."""

import os
from pathlib import Path

from tgi_llama.errors import ConfigError


def template_text(given: str | None) -> str | None:
    """The chat template itself: the content of the file where ``given`` names one.

    What is not a file must look like a template, so that a mistyped path is not taken for one.
    Raises ConfigError.
    """
    if given is None or (not os.path.isfile(given) and "{" in given):
        return given
    return _read_text("--chat-template", Path(given))


def keys_of(given: tuple[str, ...], path: Path | None, *, flag: str) -> tuple[str, ...]:
    """The given keys and those in the file, one a line, of the options ``flag`` and ``flag`` with
    ``-file``. Raises ConfigError, without showing it, for a key that no HTTP header can carry: it
    would lock its owner out without a word."""
    keys = given + _keys_in(path, flag=f"{flag}-file")
    for key in keys:
        if not (key.isascii() and key.isprintable() and key == key.strip()):
            raise ConfigError(
                f"{flag}, {flag}-file: a key must be printable ASCII characters without spaces"
                " around them"
            )
    return keys


def _keys_in(path: Path | None, *, flag: str) -> tuple[str, ...]:
    if path is None:
        return ()
    lines = _read_text(flag, path).splitlines()
    keys = tuple(line.strip() for line in lines if line.strip())
    if not keys:  # with no key at all the server would be open to everyone
        raise ConfigError(f"{flag}: no key in the file {str(path)!r}")
    return keys


def _read_text(flag: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{flag}: cannot read the file {str(path)!r}: {error.strerror}"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{flag}: the file {str(path)!r} is not UTF-8 text") from error
