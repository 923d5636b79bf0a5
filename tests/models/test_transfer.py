"""What can happen to the bytes of a file on their way, with the real client."""

import errno
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
from fakes.hub import FakeHub
from huggingface_hub import constants

from tgi_llama.errors import ConfigError, StartError
from tgi_llama.models.hub import Hub

MIB = 1 << 20
GGUF = b"GGUF" + os.urandom(3 * MIB)
CONFIG = b'{"model_type": "llama"}'
MakeHub = Callable[..., Hub]


@pytest.fixture(autouse=True)
def commit(fake_hub: FakeHub) -> str:
    return fake_hub.add("org/name", {"a.gguf": GGUF, "config.json": CONFIG})


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "models--org--name"


def _unfinished(repository: Path) -> list[int]:
    return [path.stat().st_size for path in (repository / "blobs").glob("*.incomplete")]


def _is_nothing_taken_for_finished(repository: Path) -> bool:
    blobs = [path for path in (repository / "blobs").iterdir() if path.suffix != ".incomplete"]
    return not blobs and not (repository / "snapshots").exists()


# Cut off


def test_cut_transfer_goes_on_where_it_ended(
    make_hub: MakeHub, fake_hub: FakeHub, repository: Path
) -> None:
    fake_hub.fail("cdn", cut_after=2 * MIB + 5, times=2)

    folder = make_hub().fetch("org/name", ["a.gguf"])

    assert (folder / "a.gguf").read_bytes() == GGUF
    first, *later = [seen.range for seen in fake_hub.requests("cdn")]
    assert first is None
    assert later[0] == f"bytes={2 * MIB}-"
    assert _unfinished(repository) == []


def test_start_after_an_interrupted_one_goes_on_where_it_ended(
    make_hub: MakeHub, fake_hub: FakeHub, repository: Path
) -> None:
    class Interrupted(Exception):
        pass

    def interrupt() -> None:
        if _unfinished(repository) >= [2 * MIB]:
            raise Interrupted

    with pytest.raises(Interrupted):
        make_hub(checkpoint=interrupt).fetch("org/name", ["a.gguf"])
    assert _unfinished(repository) == [2 * MIB]
    assert _is_nothing_taken_for_finished(repository)
    with pytest.raises(ConfigError, match="where nothing of its revision"):
        make_hub(is_offline=True).list_files("org/name")
    fake_hub.seen.clear()

    folder = make_hub().fetch("org/name", ["a.gguf"])

    assert (folder / "a.gguf").read_bytes() == GGUF
    assert [seen.range for seen in fake_hub.requests("cdn")] == [f"bytes={2 * MIB}-"]


def test_transfer_that_is_always_cut_ends_as_long_as_it_gets_further(
    make_hub: MakeHub, fake_hub: FakeHub
) -> None:
    fake_hub.fail("cdn", cut_after=MIB + 5, times=None)

    folder = make_hub(n_tries=2).fetch("org/name", ["a.gguf"])

    assert (folder / "a.gguf").read_bytes() == GGUF


def test_transfer_that_gets_nowhere_raises(
    make_hub: MakeHub, fake_hub: FakeHub, repository: Path
) -> None:
    fake_hub.fail("cdn", cut_after=10, times=None)

    with pytest.raises(StartError, match=r"^--model-id: 'org/name' cannot be fetched from http"):
        make_hub(n_tries=3).fetch("org/name", ["a.gguf"])

    assert _is_nothing_taken_for_finished(repository)


def test_origin_that_ignores_ranges_sends_all_again(make_hub: MakeHub, fake_hub: FakeHub) -> None:
    fake_hub.fail("cdn", cut_after=2 * MIB)
    fake_hub.fail("cdn", ignores_range=True)

    folder = make_hub().fetch("org/name", ["a.gguf"])

    assert (folder / "a.gguf").read_bytes() == GGUF


def test_stalled_transfer_goes_on_after_the_time_limit(
    make_hub: MakeHub, fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    fake_hub.fail("cdn", stall_after=2 * MIB)

    folder = make_hub().fetch("org/name", ["a.gguf"])

    assert (folder / "a.gguf").read_bytes() == GGUF
    assert fake_hub.stalled.is_set()


@pytest.mark.parametrize("place", ["cdn", "head"])
def test_failing_origin_is_asked_again(make_hub: MakeHub, fake_hub: FakeHub, place: str) -> None:
    fake_hub.fail(place, status=503, times=2)

    folder = make_hub().fetch("org/name", ["a.gguf"])

    assert (folder / "a.gguf").read_bytes() == GGUF


@pytest.mark.parametrize("place", ["cdn", "head"])
def test_origin_that_goes_on_failing_raises(
    make_hub: MakeHub, fake_hub: FakeHub, place: str
) -> None:
    fake_hub.fail(place, status=503, times=None)

    with pytest.raises(StartError, match="does not work: HTTP status 503 for 'org/name'"):
        make_hub(n_tries=2).fetch("org/name", ["a.gguf"])


def test_link_that_has_expired_raises(make_hub: MakeHub, fake_hub: FakeHub) -> None:
    fake_hub.fail("cdn", status=403, times=None)

    with pytest.raises(ConfigError, match="access to 'org/name' is refused"):
        make_hub().fetch("org/name", ["a.gguf"])


def test_file_that_vanished_after_the_listing_raises(make_hub: MakeHub, fake_hub: FakeHub) -> None:
    hub = make_hub()
    listing = hub.list_files("org/name")
    del fake_hub.repositories["org/name"].commits[listing.commit]["a.gguf"]

    with pytest.raises(ConfigError, match="'org/name' lacks a file that it listed"):
        hub.fetch("org/name", ["a.gguf"])


# Wrong bytes


@pytest.mark.parametrize(("place", "name"), [("cdn", "a.gguf"), ("get", "config.json")])
def test_wrong_bytes_are_thrown_away_and_fetched_again(
    make_hub: MakeHub, fake_hub: FakeHub, place: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    fake_hub.fail(place, is_corrupt=True)

    folder = make_hub().fetch("org/name", [name])

    expected = {"a.gguf": GGUF, "config.json": CONFIG}[name]
    assert (folder / name).read_bytes() == expected
    assert "do not have the hash that the hub announced; fetching them again" in caplog.text


@pytest.mark.parametrize(("place", "name"), [("cdn", "a.gguf"), ("get", "config.json")])
def test_wrong_bytes_again_raise_and_leave_nothing(
    make_hub: MakeHub, fake_hub: FakeHub, repository: Path, place: str, name: str
) -> None:
    fake_hub.fail(place, is_corrupt=True, times=None)

    with pytest.raises(StartError, match=f"the bytes of '{name}' .* thrown away"):
        make_hub().fetch("org/name", [name])

    assert _is_nothing_taken_for_finished(repository)
    assert _unfinished(repository) == []


def test_wrong_beginning_of_an_earlier_attempt_is_found(
    make_hub: MakeHub, repository: Path, commit: str, fake_hub: FakeHub
) -> None:
    blob = fake_hub.repositories["org/name"].commits[commit]["a.gguf"]
    (repository / "blobs").mkdir(parents=True)
    (repository / "blobs" / f"{blob.etag}.incomplete").write_bytes(b"x" * MIB)

    folder = make_hub().fetch("org/name", ["a.gguf"])

    assert (folder / "a.gguf").read_bytes() == GGUF


@pytest.mark.parametrize("size", [len(GGUF), len(GGUF) + 1])
def test_leftover_of_full_size_or_more_is_not_trusted(
    make_hub: MakeHub, repository: Path, commit: str, fake_hub: FakeHub, size: int
) -> None:
    blob = fake_hub.repositories["org/name"].commits[commit]["a.gguf"]
    (repository / "blobs").mkdir(parents=True)
    (repository / "blobs" / f"{blob.etag}.incomplete").write_bytes(b"x" * size)

    folder = make_hub().fetch("org/name", ["a.gguf"])

    assert (folder / "a.gguf").read_bytes() == GGUF


def test_more_bytes_than_announced_are_fetched_again(make_hub: MakeHub, fake_hub: FakeHub) -> None:
    fake_hub.fail("cdn", extra=b"more")

    folder = make_hub().fetch("org/name", ["a.gguf"])

    assert (folder / "a.gguf").read_bytes() == GGUF


def _announce(fake_hub: FakeHub, commit: str, etag: str) -> None:
    size = str(len(CONFIG))
    headers = {"ETag": etag, "Content-Length": size, "X-Repo-Commit": commit}
    fake_hub.fail("head", path="config.json", status=200, headers=headers, times=None)


def test_etag_that_is_no_hash_leaves_the_size_to_check(
    make_hub: MakeHub, fake_hub: FakeHub, commit: str
) -> None:
    _announce(fake_hub, commit, '"a-mirror"')

    folder = make_hub().fetch("org/name", ["config.json"])

    assert (folder / "config.json").resolve().name == "a-mirror"


@pytest.mark.parametrize("etag", ['"../../a"', ""])
def test_etag_that_cannot_be_a_name_raises(
    make_hub: MakeHub, fake_hub: FakeHub, commit: str, etag: str
) -> None:
    _announce(fake_hub, commit, etag)

    with pytest.raises(StartError, match=r"^--model-id: .* is not a hub"):
        make_hub(n_tries=1).fetch("org/name", ["config.json"])


# Files that the hub serves in its own protocol only


@pytest.fixture
def own_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for hf_xet: what it fetches arrives, though not by its protocol, and unchecked."""
    real = huggingface_hub.hf_hub_download

    def download(*arguments: object, **options: object) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(constants, "MAX_HTTP_DOWNLOAD_SIZE", 1 << 40)
            return real(*arguments, **options)

    monkeypatch.setattr(constants, "MAX_HTTP_DOWNLOAD_SIZE", MIB)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)


@pytest.mark.usefixtures("own_protocol")
def test_huge_file_is_left_to_the_library(make_hub: MakeHub) -> None:
    folder = make_hub().fetch("org/name", ["a.gguf", "config.json"])

    assert (folder / "a.gguf").read_bytes() == GGUF


@pytest.mark.usefixtures("own_protocol")
def test_huge_file_with_wrong_bytes_is_thrown_away(
    make_hub: MakeHub, fake_hub: FakeHub, repository: Path
) -> None:
    fake_hub.fail("cdn", is_corrupt=True, times=None)

    with pytest.raises(StartError, match=r"the bytes of 'a\.gguf' do not have the hash"):
        make_hub().fetch("org/name", ["a.gguf"])
    assert list(repository.rglob("*.gguf")) == []
    assert not [path for path in repository.glob("blobs/*") if path.is_file()]


def test_huge_file_without_that_protocol_raises(
    make_hub: MakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "MAX_HTTP_DOWNLOAD_SIZE", MIB)

    with pytest.raises(StartError, match=r"^--model-id: 'a\.gguf': .*too large.*hf_xet"):
        make_hub().fetch("org/name", ["a.gguf"])


# The disk


def test_no_room_is_told_before_anything_arrives(
    make_hub: MakeHub, fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=5 * MIB))

    with pytest.raises(StartError) as caught:
        make_hub().fetch("org/name", ["a.gguf"])

    assert str(caught.value) == (
        "--model-id: 'org/name' needs 70.3 MB more in"
        f" {str(tmp_path / 'cache')!r}, where 5.2 MB are free; HF_HOME or HF_HUB_CACHE names"
        " another folder"
    )
    assert not fake_hub.requests("head")


def test_room_that_an_earlier_attempt_took_is_not_asked_for_again(
    make_hub: MakeHub, monkeypatch: pytest.MonkeyPatch, repository: Path, tmp_path: Path
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=66 * MIB))
    (repository / "blobs").mkdir(parents=True)
    (repository / "blobs" / "x.incomplete").write_bytes(bytes(2 * MIB))

    make_hub().fetch("org/name", ["a.gguf"])


def test_disk_that_fills_up_raises_and_keeps_what_arrived(
    make_hub: MakeHub, monkeypatch: pytest.MonkeyPatch, repository: Path, fake_hub: FakeHub
) -> None:
    write = os.write

    def write_to_full_disk(descriptor: int, data: memoryview) -> int:
        n_left = 2 * MIB - os.fstat(descriptor).st_size
        if n_left <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data[:n_left])

    monkeypatch.setattr(os, "write", write_to_full_disk)
    with pytest.raises(StartError, match=r"^the disk is full: .*; what was fetched is kept"):
        make_hub().fetch("org/name", ["a.gguf"])
    assert _unfinished(repository) == [2 * MIB]

    monkeypatch.setattr(os, "write", write)
    fake_hub.seen.clear()
    make_hub().fetch("org/name", ["a.gguf"])
    assert [seen.range for seen in fake_hub.requests("cdn")] == [f"bytes={2 * MIB}-"]


def test_cache_that_cannot_be_written_raises(make_hub: MakeHub, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")

    with pytest.raises(StartError, match=r"^cannot write .*: Not a directory$"):
        make_hub().fetch("org/name", ["a.gguf"])


def test_file_system_without_links_gets_the_file_itself(
    make_hub: MakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "symlink_to", refuse)

    folder = make_hub().fetch("org/name", ["a.gguf"])

    assert not (folder / "a.gguf").is_symlink()
    assert (folder / "a.gguf").read_bytes() == GGUF


# Two at once


def test_two_at_once_fetch_a_file_once(make_hub: MakeHub, fake_hub: FakeHub) -> None:
    first_arrives = threading.Event()
    second_waits = threading.Event()

    def hold() -> None:
        first_arrives.set()
        second_waits.wait()

    first = threading.Thread(target=lambda: make_hub(checkpoint=hold).fetch("org/name", ["a.gguf"]))
    first.start()
    first_arrives.wait()
    folders: list[Path] = []
    second = threading.Thread(
        target=lambda: folders.append(make_hub().fetch("org/name", ["a.gguf"]))
    )
    second.start()
    second_waits.set()
    first.join()
    second.join()

    assert (folders[0] / "a.gguf").read_bytes() == GGUF
    assert len(fake_hub.requests("cdn")) == 1
