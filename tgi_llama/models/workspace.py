"""Writing one file that takes minutes, so that nobody ever sees a part of it.

A file is written in a hidden folder beside its place and renamed. Who writes holds a lock beside
it, so that two starts at once do the work once; whatever hidden folder is there when the lock is
taken was left by a process that was killed.

The lock is the kernel's (flock), which is what the filelock package takes on Linux too: it ends
with the process, however that ends. The file also says who holds it, which filelock's does not.
"""

import contextlib
import fcntl
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from tgi_llama.errors import ConfigError

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def workspace(target: Path) -> Iterator[Path]:
    """A new empty folder on the target's disk, removed at the end with all that is in it. Waits
    while another process has one for the same target, and so may find the target there.

    Raises ConfigError where the folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_locked(target))
            for stale in target.parent.glob(f".{target.name}-*"):
                _log.info("removing %s, which an interrupted conversion left", stale)
                shutil.rmtree(stale, ignore_errors=True)
            place = stack.enter_context(
                tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-")
            )
        except OSError as error:
            raise ConfigError(f"cannot write to {target.parent}: {error.strerror}") from error
        yield Path(place)


def publish(path: Path, target: Path) -> None:
    """Moves a finished file of the workspace to its place, for good: also when the power fails."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    path.replace(target)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    path = target.with_name(f".{target.name}.lock")
    with _lock(path) as file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # before the lock ends: see _lock


def _lock(path: Path) -> TextIO:
    """An open file that holds the lock until it is closed.

    The holder before us removes the file, so what we waited for may no longer be what others find
    under its name.
    """
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            _wait_for(file, path)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return file
        except BaseException:
            file.close()
            raise
        file.close()


def _wait_for(file: TextIO, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        _log.info("waiting for %s, which makes the same file (its lock is %s)", holder, path)
        fcntl.flock(file, fcntl.LOCK_EX)
