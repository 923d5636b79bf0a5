"""Repositories of the Hugging Face hub and the cache of what was fetched from them.

Theory of operation
-------------------
``huggingface_hub`` asks the hub and moves the bytes; its cache is used with its layout, so that
what other tools have fetched is found and the other way round. Where its name comes from (token,
folder, address, offline mode) is read from the environment by the same rules.

Not left to it is when a file counts as finished. Its releases from 1 on throw an interrupted
download away, those before resume it, and none compares hashes. Here every file is first a
``.incomplete`` one that later starts resume (``transfer``); it gets its name in the cache only with
the size and the hash that the hub told, and the revision's name points at a commit only when all
files that were asked for are there. So an interrupted start leaves nothing that could be taken for
a model, also by a later start without network.

Everything here blocks, and is for one thread.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

import attrs
import huggingface_hub
from huggingface_hub import constants

from tgi_llama.errors import ConfigError, StartError

from . import hub_errors
from .listing import ListedFile, Listing, Problem
from .progress import Progress, shown_progress
from .sizes import size_text
from .transfer import Transfer, prepare_library

MAIN = "main"
"""The revision where none is named."""

_log = logging.getLogger(__name__)


@attrs.define(eq=False, kw_only=True)
class Hub:
    """One endpoint of the hub with one cache. Sees one state of each revision: what was listed
    once is not asked for again."""

    cache: Path
    """``$HF_HOME/hub``, unless a variable says otherwise."""
    endpoint: str
    """For example ``https://huggingface.co``."""
    token: str | None = attrs.field(default=None, repr=False)
    is_offline: bool = False
    option: str = "--model-id"
    """The option that error messages about a repository name."""
    n_tries: int = 4
    """How often a request or a transfer may fail in a row without having got any further."""
    pause: Callable[[float], None] = lambda seconds: time.sleep(seconds)
    """Waits between tries, for so many seconds."""
    checkpoint: Callable[[], None] = lambda: None
    """Called often while bytes arrive; may raise what is to end the download."""
    progress: Callable[[], Progress] = shown_progress
    _listings: dict[tuple[str, str], Listing] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        prepare_library()

    @classmethod
    def from_environment(
        cls,
        *,
        option: str = "--model-id",
        n_tries: int = 4,
        checkpoint: Callable[[], None] = lambda: None,
    ) -> "Hub":
        """As ``huggingface_hub`` reads the environment, and TGI's ``HF_API_TOKEN``."""
        return cls(
            cache=Path(constants.HF_HUB_CACHE),
            endpoint=constants.ENDPOINT,
            token=_token(),
            is_offline=bool(constants.HF_HUB_OFFLINE),
            option=option,
            n_tries=n_tries,
            checkpoint=checkpoint,
        )

    def list_files(self, repo_id: str, revision: str = MAIN) -> Listing:
        """What there is at a branch, tag or commit. Where the hub cannot be asked, what the cache
        holds of it, with a warning.

        Raises ConfigError (no such repository or revision, no access, offline and not cached) and
        StartError (the hub cannot be reached or fails, and nothing is cached).
        """
        key = (repo_id, revision)
        if key not in self._listings:
            self._listings[key] = self._look_up(repo_id, revision)
        return self._listings[key]

    def fetch(self, repo_id: str, names: Iterable[str], revision: str = MAIN) -> Path:
        """The snapshot folder with these files in it; fetches those that the cache lacks.

        Raises as ``list_files``; ConfigError for a name that the repository lacks; StartError where
        there is no room, or where bytes do not arrive or are not those that the hub announced.
        """
        listing = self.list_files(repo_id, revision)
        folder = self._repository(repo_id) / "snapshots" / listing.commit
        missing = [name for name in dict.fromkeys(names) if not (folder / name).exists()]
        if missing:
            if listing.problem is not None:
                listed = ", ".join(missing)
                raise type(listing.problem)(f"{listing.problem}; not in the cache: {listed}")
            self._download(repo_id, missing, listing)
        self._remember(repo_id, revision, listing.commit)
        return folder

    # Asking

    def _look_up(self, repo_id: str, revision: str) -> Listing:
        problem: Problem
        if self.is_offline:
            problem = ConfigError(
                f"{self.option}: HF_HUB_OFFLINE is set, so {repo_id!r} can come from the cache"
                f" {str(self.cache)!r} only"
            )
        else:
            try:
                return self._ask(repo_id, revision)
            except hub_errors.RevisionMissing:
                raise
            except (ConfigError, StartError) as error:
                problem = error
        cached = self._cached(repo_id, revision, problem)
        if cached is None:
            detail = f", where nothing of its revision {revision!r} is" if self.is_offline else ""
            raise type(problem)(f"{problem}{detail}") from problem
        if not self.is_offline:
            _log.warning("%s; using what the cache holds of %s", problem, repo_id)
        return cached

    def _ask(self, repo_id: str, revision: str) -> Listing:
        api = huggingface_hub.HfApi(
            endpoint=self.endpoint, token=self.token, library_name="tgi_llama"
        )
        subject = hub_errors.Subject(
            repo_id=repo_id,
            revision=revision,
            endpoint=self.endpoint,
            option=self.option,
            has_token=self.token is not None,
        )
        try:
            info = hub_errors.with_retries(
                lambda: api.model_info(
                    repo_id,
                    revision=revision,
                    files_metadata=True,
                    timeout=constants.HF_HUB_ETAG_TIMEOUT,
                ),
                subject,
                n_tries=self.n_tries,
                pause=self.pause,
            )
        except (ValueError, LookupError, TypeError) as error:  # an answer of another form
            raise StartError(
                f"{self.option}: {self.endpoint} did not answer as a hub does; HF_ENDPOINT and the"
                " settings of a proxy say where it is"
            ) from error
        if info.sha is None:
            raise StartError(f"{self.option}: the hub at {self.endpoint} told no commit")
        files = [
            ListedFile(each.rfilename, each.size or 0)
            for each in info.siblings or ()
            if _is_safe(each.rfilename)
        ]
        return Listing(commit=info.sha, files=files)

    # The cache, whose layout is documented by huggingface_hub ("Understand caching")

    def _repository(self, repo_id: str) -> Path:
        return self.cache / ("models--" + repo_id.replace("/", "--"))

    def _cached(
        self, repo_id: str, revision: str, problem: ConfigError | StartError
    ) -> Listing | None:
        repository = self._repository(repo_id)
        reference = repository / "refs" / revision
        commit = reference.read_text().strip() if reference.is_file() else revision
        folder = repository / "snapshots" / commit
        if not commit or not folder.is_dir():
            return None
        found = (path for path in sorted(folder.rglob("*")) if path.is_file())
        files = [
            ListedFile(path.relative_to(folder).as_posix(), path.stat().st_size) for path in found
        ]
        return Listing(commit=commit, files=files, problem=problem)

    def _remember(self, repo_id: str, revision: str, commit: str) -> None:
        """Lets the revision's name point at the commit, so that it is found without the hub."""
        reference = self._repository(repo_id) / "refs" / revision
        if revision == commit or (reference.is_file() and reference.read_text() == commit):
            return
        try:
            reference.parent.mkdir(parents=True, exist_ok=True)
            partial = reference.with_name(f"{reference.name}.{os.getpid()}.incomplete")
            partial.write_text(commit)
            partial.replace(reference)
        except OSError as error:  # a cache that may only be read serves as well
            _log.debug("cannot write %s: %s", reference, error)

    # Fetching

    def _download(self, repo_id: str, names: Sequence[str], listing: Listing) -> None:
        unknown = [name for name in names if name not in listing.names]
        if unknown:
            raise ConfigError(f"{self.option}: {repo_id!r} has no file {unknown[0]!r}")
        sizes = {file.name: file.size for file in listing.files}
        transfer = Transfer(
            repository=self._repository(repo_id),
            locks=self.cache / ".locks" / self._repository(repo_id).name,
            subject=hub_errors.Subject(
                repo_id=repo_id,
                revision=listing.commit,
                endpoint=self.endpoint,
                option=self.option,
                has_token=self.token is not None,
            ),
            token=self.token,
            n_tries=self.n_tries,
            pause=self.pause,
            checkpoint=self.checkpoint,
        )
        transfer.check_room(sum(sizes[name] for name in names))
        _log.info(
            "downloading %d files (%s) of %s from %s",
            len(names),
            size_text(sum(sizes[name] for name in names)),
            repo_id,
            self.endpoint,
        )
        with self.progress() as progress:
            for name in sorted(names, key=lambda name: sizes[name]):
                transfer.fetch(name, progress)


def _token() -> str | None:
    """An explicit variable wins over the file that a login left."""
    variables = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_API_TOKEN")
    given = (os.environ.get(name, "").strip() for name in variables)
    return next((token for token in given if token), None) or huggingface_hub.get_token()


def _is_safe(name: str) -> bool:
    """Whether a name stays inside the folder it is put into."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts
