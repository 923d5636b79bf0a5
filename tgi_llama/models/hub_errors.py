"""What can go wrong with the hub, as one line that names the option at fault."""

import logging
import re
import time
from collections.abc import Callable
from typing import TypeVar

import attrs
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tgi_llama.errors import ConfigError, StartError

T = TypeVar("T")

_log = logging.getLogger(__name__)

_EXPECTED: tuple[type[BaseException], ...] = (
    HFValidationError,
    OSError,
    *HfHubHTTPError.__bases__,
)
"""What huggingface_hub raises: for a name that it refuses, and what it lets through of its HTTP
library, which is requests before its release 1 and httpx or a successor from then on. Its own error
derives from that library's."""

_MOST_PAUSE_S = 8.0
_TRANSIENT = (408, 425, 429)
_OFTEN_TRANSIENT_FROM = 500


class RevisionMissing(ConfigError):
    """The repository is there, the revision is not: no cache can make up for that."""


@attrs.frozen(kw_only=True)
class Subject:
    """What was asked for, for the message."""

    repo_id: str
    revision: str
    endpoint: str
    option: str
    has_token: bool


@attrs.frozen(kw_only=True)
class Patience:
    """How long failures that may pass are put up with, as long as nothing more arrives."""

    n_tries: int = 4
    limit_s: float = 20.0
    """No other try after so long: releases of huggingface_hub before 1 try some requests six times
    of their own accord, which takes 23 seconds."""
    pause: Callable[[float], None] = lambda seconds: time.sleep(seconds)
    """Waits between tries, for so many seconds."""
    clock: Callable[[], float] = time.monotonic


def with_retries(
    call: Callable[[], T],
    subject: Subject,
    patience: Patience,
    *,
    n_present: Callable[[], int] = lambda: 0,
) -> T:
    """What ``call`` returns. Calls again after failures that may pass, as often as the patience
    lasts, which is new whenever ``n_present`` has grown. Raises ConfigError and StartError."""
    n_failures = 0
    since = patience.clock()
    while True:
        n_before = n_present()
        try:
            return call()
        except _EXPECTED as error:
            if n_present() > n_before:
                n_failures, since = 0, patience.clock()
            n_failures += 1
            is_last = n_failures >= patience.n_tries or patience.clock() - since > patience.limit_s
            if is_last or not _may_pass(error):
                raise translated(error, subject) from error
            wait_s = min(2.0 ** (n_failures - 1), _MOST_PAUSE_S)
            _log.warning("%s; trying again in %.0f s", translated(error, subject), wait_s)
        patience.pause(wait_s)


def translated(error: BaseException, subject: Subject) -> ConfigError | StartError:
    """The one line."""
    option, name = subject.option, repr(subject.repo_id)
    if isinstance(error, HFValidationError):
        return ConfigError(f"{option}: {name} cannot be the name of a model on the hub")
    if isinstance(error, GatedRepoError):
        return ConfigError(f"{option}: {_gated(subject)}")
    if isinstance(error, RevisionNotFoundError):
        return RevisionMissing(f"--revision: {name} has no revision {subject.revision!r}")
    if isinstance(error, DisabledRepoError):
        return ConfigError(f"{option}: {name} is disabled on the hub")
    if isinstance(error, RepositoryNotFoundError):
        hint = (
            "the token of HF_TOKEN does not give access to it"
            if subject.has_token
            else "it is private and needs a token in HF_TOKEN"
        )
        return ConfigError(f"{option}: {subject.endpoint} has no model {name}, or {hint}")
    if isinstance(error, EntryNotFoundError) and isinstance(error, HfHubHTTPError):
        return ConfigError(f"{option}: {name} lacks a file that it listed: {_reason(error)}")
    if (status := _status(error)) is not None:
        return _of_status(error, status, subject)
    return StartError(
        f"{option}: {name} cannot be fetched from {subject.endpoint}: {_reason(error)}"
    )


def _gated(subject: Subject) -> str:
    page = f"{subject.endpoint}/{subject.repo_id}"
    if subject.has_token:
        return (
            f"{subject.repo_id!r} is gated, and the account of the token in HF_TOKEN has no access"
            f" to it yet; ask for it at {page}"
        )
    return (
        f"{subject.repo_id!r} is gated: accept its conditions at {page} and give a token of that"
        " account in HF_TOKEN"
    )


def _of_status(error: BaseException, status: int, subject: Subject) -> ConfigError | StartError:
    if status == 401:
        return ConfigError(f"HF_TOKEN: {subject.endpoint} does not accept the token")
    if status == 403:
        return ConfigError(
            f"{subject.option}: access to {subject.repo_id!r} is refused: {_reason(error)}"
        )
    what = "limits how often it may be asked" if status == 429 else "does not work"
    return StartError(
        f"{subject.option}: the hub at {subject.endpoint} {what}: HTTP status {status} for"
        f" {subject.repo_id!r}"
    )


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, HFValidationError):
        return False
    status = _status(error)
    return status is None or status in _TRANSIENT or status >= _OFTEN_TRANSIENT_FROM


def _status(error: BaseException) -> int | None:
    """Of an answer that was an error; None where there was no answer. Some are raised by the HTTP
    library itself."""
    response = getattr(error, "response", None)
    return None if response is None else int(response.status_code)


def _reason(error: BaseException) -> str:
    """The library's text without its advice, object names, and the query strings of addresses, in
    which temporary credentials stand; on one line."""
    text = str(error).strip() or type(error).__name__
    if _status(error) is not None:
        text = getattr(error, "server_message", None) or text.splitlines()[0]
    system = re.search(r"\[Errno -?\d+\] ([^'\")]+)", text)
    text = system[1] if system else re.sub(r"\?[^\s'\"]+", "", text)
    return " ".join(text.split())[:300]
