"""One file of a repository, from the hub into its cache: resumed, checked, then named.

The bytes arrive in ``blobs/<etag>.incomplete``, under the lock that huggingface_hub takes for the
same file. The etag is the SHA-256 of a large file (LFS) and git's SHA-1 of a small one, so it says
what the bytes must be.
"""

import errno
import hashlib
import io
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import attrs
import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.file_download import HfFileMetadata, http_get
from huggingface_hub.utils import (
    WeakFileLock,
    build_hf_headers,
    disable_progress_bars,
)

from tgi_llama.errors import StartError

from .hub_errors import Subject, with_retries
from .progress import FileProgress, Progress
from .sizes import size_text

T = TypeVar("T")

_log = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_SPARE_BYTES = 64 << 20
"""Left free on the disk: logs and the like need room too."""

_FILE_NAME = re.compile(r"[\w.-]+")


def prepare_library() -> None:
    """Sets huggingface_hub up for this process: its bars would stand beside ours, and it hands out
    10 MB at a time, which is what a broken connection loses and how seldom progress is seen. Its
    own log goes the way of all logs, not to standard error as well. hf_transfer, which releases
    before 1 can use, cannot resume."""
    constants.DOWNLOAD_CHUNK_SIZE = _CHUNK_BYTES
    logging.getLogger("huggingface_hub").handlers.clear()
    if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:  # else the user's variable wins
        disable_progress_bars("huggingface_hub.http_get")
    if hasattr(constants, "HF_HUB_ENABLE_HF_TRANSFER"):
        constants.HF_HUB_ENABLE_HF_TRANSFER = False


@attrs.frozen(kw_only=True)
class Transfer:
    """Fetches files of one commit. For one thread; other processes may fetch the same files."""

    repository: Path
    """The repository's folder in the cache."""
    locks: Path
    """Its folder of locks."""
    subject: Subject
    """``revision`` is the commit."""
    token: str | None = attrs.field(repr=False)
    n_tries: int
    pause: Callable[[float], None]
    checkpoint: Callable[[], None]

    def check_room(self, n_bytes: int) -> None:
        """Raises StartError where the disk of the cache has not so much room left. What earlier
        attempts left is not counted again."""
        blobs = self.repository / "blobs"
        with _disk_errors(self.repository):
            blobs.mkdir(parents=True, exist_ok=True)
            n_started = sum(path.stat().st_size for path in blobs.glob("*.incomplete"))
            n_free = shutil.disk_usage(blobs).free
        n_needed = max(0, n_bytes - n_started) + _SPARE_BYTES
        if n_needed > n_free:
            raise StartError(
                f"{self.subject.option}: {self.subject.repo_id!r} needs {size_text(n_needed)} more"
                f" in {str(self.repository.parent)!r}, where {size_text(n_free)} are free; HF_HOME"
                " or HF_HUB_CACHE names another folder"
            )

    def fetch(self, name: str, progress: Progress) -> None:
        """Puts the file into the snapshot. Raises ConfigError and StartError."""
        metadata = self._metadata(name)
        etag, size = metadata.etag, metadata.size
        if etag is None or size is None or _FILE_NAME.fullmatch(etag) is None:
            raise StartError(
                f"{self.subject.option}: {self.subject.endpoint} is not a hub: it told no etag or"
                f" no size of {name!r}"
            )
        if size > constants.MAX_HTTP_DOWNLOAD_SIZE:
            self._fetch_by_xet(name, etag)
            return
        blob = self.repository / "blobs" / etag
        with _disk_errors(blob):
            self.locks.mkdir(parents=True, exist_ok=True)
            with WeakFileLock(self.locks / f"{etag}.lock"):
                if not blob.exists():
                    self._complete(name, blob, size, progress)
            self._point(name, blob)

    def _metadata(self, name: str) -> HfFileMetadata:
        return self._retried(
            lambda: huggingface_hub.get_hf_file_metadata(
                self._url(name), token=self.token, library_name="tgi_llama"
            )
        )

    def _url(self, name: str) -> str:
        return huggingface_hub.hf_hub_url(
            self.subject.repo_id,
            name,
            revision=self.subject.revision,
            endpoint=self.subject.endpoint,
        )

    def _complete(self, name: str, blob: Path, size: int, progress: Progress) -> None:
        """Makes the blob. A file with other bytes than announced is fetched a second time."""
        partial = blob.with_name(blob.name + ".incomplete")
        for is_last in (False, True):
            self._receive(name, partial, size, progress)
            if _has_hash(partial, blob.name):
                break
            partial.unlink()
            problem = (
                f"{self.subject.option}: the bytes of {name!r} from {self.subject.endpoint} do not"
                " have the hash that the hub announced"
            )
            if is_last:
                raise StartError(f"{problem}; they were fetched twice and thrown away")
            _log.warning("%s; fetching them again", problem)
        with partial.open("rb") as file:
            os.fsync(file.fileno())  # else a power cut could leave the name without the bytes
        partial.replace(blob)

    def _receive(self, name: str, partial: Path, size: int, progress: Progress) -> None:
        if _size_of(partial) > size:
            partial.unlink()
        n_present = _size_of(partial)
        headers = build_hf_headers(token=self.token, library_name="tgi_llama")
        headers["Accept-Encoding"] = "identity"  # a compressed answer cannot be resumed
        with progress.file(name, size, n_present) as shown:

            def receive() -> None:
                if _size_of(partial) > size:
                    partial.unlink()
                with _ArrivingFile(partial, self.checkpoint, shown) as file:
                    http_get(
                        self._url(name),
                        file,
                        resume_size=_size_of(partial),
                        headers=dict(headers),
                        expected_size=size,
                        displayed_filename=name,
                    )

            self._retried(receive, n_present=lambda: _size_of(partial))

    def _fetch_by_xet(self, name: str, etag: str) -> None:
        """The hub serves larger files in its own protocol only, of which huggingface_hub keeps
        nothing when it is interrupted."""
        try:
            path = self._retried(
                lambda: huggingface_hub.hf_hub_download(
                    self.subject.repo_id,
                    name,
                    revision=self.subject.revision,
                    cache_dir=self.repository.parent,
                    token=self.token,
                    endpoint=self.subject.endpoint,
                    library_name="tgi_llama",
                )
            )
        except ValueError as error:  # huggingface_hub's, without hf_xet
            raise StartError(f"{self.subject.option}: {name!r}: {error}") from error
        if not _has_hash(Path(path), etag):
            Path(path).resolve().unlink()
            Path(path).unlink(missing_ok=True)
            raise StartError(
                f"{self.subject.option}: the bytes of {name!r} do not have the hash that the hub"
                " announced; they were thrown away"
            )

    def _point(self, name: str, blob: Path) -> None:
        """Gives the blob its name in the snapshot."""
        pointer = self.repository / "snapshots" / self.subject.revision / name
        pointer.parent.mkdir(parents=True, exist_ok=True)
        try:
            pointer.symlink_to(os.path.relpath(blob, pointer.parent))
        except FileExistsError:  # another process was faster
            pass
        except OSError:  # a file system without links; huggingface_hub does the same there
            blob.replace(pointer)

    def _retried(self, call: Callable[[], T], n_present: Callable[[], int] = lambda: 0) -> T:
        return with_retries(
            call, self.subject, n_tries=self.n_tries, pause=self.pause, n_present=n_present
        )


class _ArrivingFile(io.FileIO):
    """A file to append to that tells how far it is. Raises StartError where the disk fails, so that
    this is not taken for a failure of the network."""

    def __init__(self, path: Path, checkpoint: Callable[[], None], progress: FileProgress) -> None:
        with _disk_errors(path):
            super().__init__(path, "ab")
        self._checkpoint = checkpoint
        self._progress = progress

    def write(self, data: "memoryview | bytes") -> int:  # type: ignore[override]
        view = memoryview(data)
        with _disk_errors(Path(str(self.name))):
            n_written = 0
            while n_written < len(view):
                n_written += os.write(self.fileno(), view[n_written:])
        self._progress.at(self.tell())
        self._checkpoint()
        return len(view)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Turns failures of the disk into StartError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StartError(
                f"the disk is full: {str(path)!r}; what was fetched is kept, and the next start"
                " goes on from there"
            ) from error
        raise StartError(f"cannot write {str(path)!r}: {error.strerror or error}") from error


def _size_of(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _has_hash(path: Path, etag: str) -> bool:
    """True too where the etag is no hash that we know: then the size was all there is to check."""
    if re.fullmatch(r"[0-9a-f]{64}", etag):
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == etag
    if re.fullmatch(r"[0-9a-f]{40}", etag):
        content = path.read_bytes()  # small ones only
        blob = b"blob %d\0" % len(content) + content  # how git hashes a file
        return hashlib.sha1(blob, usedforsecurity=False).hexdigest() == etag
    return True
