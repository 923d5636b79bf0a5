"""A Hugging Face hub on loopback: as much of its HTTP API as the real client needs to list a model
and to fetch its files, with every fault on order.

As on the hub, large files are answered with a redirect to another origin (the "CDN"), which must
not see the token; the conditions of a gated model bind its files but not its listing; and whoever
has no token is told 401 of a repository that is not there.
"""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import attrs

LARGE_SUFFIXES = (".gguf", ".safetensors", "tokenizer.json")
"""Names of files that are kept as large ones (LFS)."""

TOKEN = "hf_of_somebody_with_access"
OTHER_TOKEN = "hf_of_somebody_without_access"


@attrs.frozen
class Blob:
    content: bytes
    is_large: bool

    @property
    def git_id(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    @property
    def etag(self) -> str:
        return hashlib.sha256(self.content).hexdigest() if self.is_large else self.git_id


@attrs.define(eq=False)
class Repository:
    commits: dict[str, dict[str, Blob]] = attrs.field(factory=dict)
    references: dict[str, str] = attrs.field(factory=dict)
    """From branches and tags to commits."""
    is_gated: bool = False

    def commit_of(self, revision: str) -> str | None:
        commit = self.references.get(revision, revision)
        return commit if commit in self.commits else None


@attrs.define(eq=False, kw_only=True)
class Fault:
    """What goes wrong with requests to ``place`` whose path holds ``path``."""

    place: str
    """``api``, ``head``, ``get`` (both of the hub's files) or ``cdn``."""
    path: str = ""
    times: int | None = 1
    """None: for ever."""
    status: int | None = None
    """Answer this instead."""
    body: bytes = b"the fault on order"
    headers: Mapping[str, str] = attrs.field(factory=dict)
    cut_after: int | None = None
    """Close the connection after so many bytes of the body."""
    stall_after: int | None = None
    """Send nothing more after so many bytes, until the hub closes."""
    is_corrupt: bool = False
    """Send other bytes of the same number."""
    extra: bytes = b""
    """Send these at the end too."""
    ignores_range: bool = False
    """Send all of it whatever part was asked for."""

    def takes(self, place: str, path: str) -> bool:
        if place != self.place or self.path not in path or self.times == 0:
            return False
        if self.times is not None:
            self.times -= 1
        return True


@attrs.frozen
class Seen:
    place: str
    path: str
    headers: Message

    @property
    def range(self) -> str | None:
        return self.headers.get("Range")

    @property
    def token(self) -> str | None:
        return self.headers.get("Authorization")


@attrs.define(eq=False)
class FakeHub:
    """Made by ``running_hub``. Thread-safe where tests use it."""

    url: str = ""
    cdn_url: str = ""
    repositories: dict[str, Repository] = attrs.field(factory=dict)
    renamed: dict[str, str] = attrs.field(factory=dict)
    """Old names, which are answered with relative redirects."""
    faults: list[Fault] = attrs.field(factory=list)
    seen: list[Seen] = attrs.field(factory=list)
    stalled: threading.Event = attrs.field(factory=threading.Event)
    """Set when a transfer has stopped halfway."""
    _closing: threading.Event = attrs.field(factory=threading.Event)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def add(
        self,
        repo_id: str,
        files: Mapping[str, bytes],
        *,
        revision: str = "main",
        is_gated: bool = False,
    ) -> str:
        """A commit that holds these files, under the name of a branch; returns its hash."""
        blobs = {
            name: Blob(content, name.endswith(LARGE_SUFFIXES)) for name, content in files.items()
        }
        repository = self.repositories.setdefault(repo_id, Repository())
        repository.is_gated = is_gated
        state = repr([(name, blob.etag) for name, blob in sorted(blobs.items())])
        commit = hashlib.sha1(state.encode()).hexdigest()
        repository.commits[commit] = blobs
        repository.references[revision] = commit
        return commit

    def fail(self, place: str, **fault: object) -> None:
        self.faults.append(Fault(place=place, **fault))

    def requests(self, place: str, path: str = "") -> list[Seen]:
        with self._lock:
            return [seen for seen in self.seen if seen.place == place and path in seen.path]

    # For the handlers, which run in threads

    def note(self, seen: Seen) -> Fault | None:
        with self._lock:
            self.seen.append(seen)
            return next((each for each in self.faults if each.takes(seen.place, seen.path)), None)

    def stall(self) -> None:
        self.stalled.set()
        self._closing.wait()

    def blob_with(self, etag: str) -> Blob:
        return next(
            blob
            for repository in self.repositories.values()
            for files in repository.commits.values()
            for blob in files.values()
            if blob.etag == etag
        )


@contextlib.contextmanager
def running_hub() -> Iterator[FakeHub]:
    hub = FakeHub()
    front = _server(hub, _HubHandler)
    cdn = _server(hub, _CdnHandler)
    hub.url = f"http://127.0.0.1:{front.server_address[1]}"
    hub.cdn_url = f"http://127.0.0.1:{cdn.server_address[1]}"
    threads = [
        threading.Thread(target=each.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        for each in (front, cdn)
    ]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        hub._closing.set()
        for each in (front, cdn):
            each.shutdown()
            each.server_close()
        for thread in threads:
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # connections are kept alive by clients
    request_queue_size = 32

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients leave as they like."""


def _server(hub: FakeHub, handler: "type[_Handler]") -> _Server:
    bound = type(handler.__name__, (handler,), {"hub": hub})
    return _Server(("127.0.0.1", 0), bound)


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name
        pass

    def answer(
        self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.send_body(body, None)

    def send_blob(self, blob: Blob, headers: Mapping[str, str], fault: Fault | None) -> None:
        """The file or the range asked for, with what the fault does to it."""
        content = blob.content
        if fault is not None and fault.is_corrupt:
            content = bytes(each ^ 0xFF for each in content)
        content += fault.extra if fault is not None else b""
        wanted = self.headers.get("Range")
        if wanted is None or (fault is not None and fault.ignores_range):
            self.send_response(200)
            part = content
        else:
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            part = content[start:]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.send_body(part, fault)

    def send_body(self, body: bytes, fault: Fault | None) -> None:
        limit = None
        if fault is not None:
            limit = fault.cut_after if fault.stall_after is None else fault.stall_after
        with contextlib.suppress(ConnectionError):  # the client went away
            self.wfile.write(body if limit is None else body[:limit])
            self.wfile.flush()
        if limit is not None:
            if fault is not None and fault.stall_after is not None:
                self.hub.stall()
            self.close_connection = True

    def is_refused(self, fault: Fault | None) -> bool:
        if fault is None or fault.status is None:
            return False
        self.answer(fault.status, fault.body, fault.headers)
        return True


class _CdnHandler(_Handler):
    """The other origin: files by their hash, for whoever has the link."""

    def do_GET(self) -> None:
        fault = self.hub.note(Seen("cdn", self.path, self.headers))
        if not self.is_refused(fault):
            blob = self.hub.blob_with(self.path.rsplit("/", 1)[1])
            self.send_blob(blob, {"ETag": '"of-the-cdn"'}, fault)


class _HubHandler(_Handler):
    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        is_api = parts[:2] == ["api", "models"]
        place = "api" if is_api else self.command.lower()
        fault = self.hub.note(Seen(place, self.path, self.headers))
        if self.is_refused(fault):
            return
        start = 2 if is_api else 0
        repo_id, rest = _split(parts[start:])
        if repo_id in self.hub.renamed:
            new_path = self.path.replace(repo_id, self.hub.renamed[repo_id])
            self.answer(307, headers={"Location": new_path})
            return
        repository = self.hub.repositories.get(repo_id)
        if self._is_stranger():
            message = "Invalid credentials in Authorization header"
            self.answer(401, headers={"X-Error-Message": message})
        elif repository is None:
            self._refuse_repository()
        elif is_api:
            self._describe(repo_id, repository, rest, parse_qs(url.query))
        else:
            self._resolve(repository, rest, fault)

    def _is_stranger(self) -> bool:
        known = (None, f"Bearer {TOKEN}", f"Bearer {OTHER_TOKEN}")
        return self.headers.get("Authorization") not in known

    def _refuse_repository(self) -> None:
        headers = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
        self.answer(404 if self.headers.get("Authorization") else 401, headers=headers)

    def _describe(
        self, repo_id: str, repository: Repository, rest: list[str], query: dict[str, list[str]]
    ) -> None:
        kind, revision = (rest[0], rest[1]) if len(rest) > 1 else ("revision", "main")
        commit = repository.commit_of(revision)
        if commit is None:
            self._refuse_revision(revision)
            return
        files = repository.commits[commit]
        if kind == "tree":
            entries = [_tree_entry(name, blob) for name, blob in sorted(files.items())]
            self._send_json(entries)
            return
        siblings = [
            _sibling(name, blob, with_sizes="blobs" in query)
            for name, blob in sorted(files.items())
        ]
        self._send_json(
            {
                "id": repo_id,
                "modelId": repo_id,
                "sha": commit,
                "private": False,
                "gated": "manual" if repository.is_gated else False,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "siblings": siblings,
            }
        )

    def _resolve(self, repository: Repository, rest: list[str], fault: Fault | None) -> None:
        (_, revision, *path) = rest
        commit = repository.commit_of(revision)
        if commit is None:
            self._refuse_revision(revision)
            return
        if repository.is_gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            status = 403 if self.headers.get("Authorization") else 401
            self.answer(status, headers={"X-Error-Code": "GatedRepo"})
            return
        common = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        blob = repository.commits[commit].get("/".join(path))
        if blob is None:
            self.answer(404, headers=common | {"X-Error-Code": "EntryNotFound"})
        elif blob.is_large:
            linked = {
                "X-Linked-Size": str(len(blob.content)),
                "X-Linked-Etag": f'"{blob.etag}"',
                "Location": f"{self.hub.cdn_url}/signed/{blob.etag}",
            }
            self.answer(302, headers=common | linked)
        elif self.command == "HEAD":
            size = {"Content-Length": str(len(blob.content)), "ETag": f'"{blob.etag}"'}
            self.answer(200, headers=common | size)
        else:
            self.send_blob(blob, common | {"ETag": f'"{blob.etag}"'}, fault)

    def _refuse_revision(self, revision: str) -> None:
        headers = {
            "X-Error-Code": "RevisionNotFound",
            "X-Error-Message": f"Invalid rev id: {revision}",
        }
        self.answer(404, headers=headers)

    def _send_json(self, value: object) -> None:
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})


def _split(parts: list[str]) -> tuple[str, list[str]]:
    """The repository's name, of one part or two, and what follows it."""
    n_parts = 1 if len(parts) > 1 and parts[1] in ("resolve", "revision", "tree") else 2
    return "/".join(parts[:n_parts]), parts[n_parts:]


def _sibling(name: str, blob: Blob, *, with_sizes: bool) -> dict[str, object]:
    entry: dict[str, object] = {"rfilename": name}
    if with_sizes:
        entry |= {"size": len(blob.content), "blobId": blob.git_id}
        if blob.is_large:
            size = len(blob.content)
            entry["lfs"] = {"sha256": blob.etag, "size": size, "pointerSize": 130}
    return entry


def _tree_entry(name: str, blob: Blob) -> dict[str, object]:
    entry = {"type": "file", "path": name, "oid": blob.git_id, "size": len(blob.content)}
    if blob.is_large:
        entry["lfs"] = {"oid": blob.etag, "size": len(blob.content), "pointerSize": 130}
    return entry
