"""Listing and fetching with the real client against a local hub."""

from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
from fakes.hub import OTHER_TOKEN, TOKEN, FakeHub

from tgi_llama.errors import ConfigError, StartError
from tgi_llama.models.hub import Hub
from tgi_llama.models.listing import ListedFile

GGUF = b"GGUF" + bytes(range(256)) * 20_000
CONFIG = b'{"model_type": "llama"}'
MakeHub = Callable[..., Hub]


@pytest.fixture
def commit(fake_hub: FakeHub) -> str:
    return fake_hub.add("org/name", {"a.gguf": GGUF, "b.gguf": b"GGUF", "sub/config.json": CONFIG})


def test_fetch_puts_files_of_both_kinds_into_the_snapshot(
    commit: str, make_hub: MakeHub, tmp_path: Path
) -> None:
    hub = make_hub()
    listing = hub.list_files("org/name")
    folder = hub.fetch("org/name", ["a.gguf", "sub/config.json"])

    assert listing.commit == commit
    assert set(listing.files) == {
        ListedFile("a.gguf", len(GGUF)),
        ListedFile("b.gguf", 4),
        ListedFile("sub/config.json", len(CONFIG)),
    }
    assert folder == tmp_path / "cache" / "models--org--name" / "snapshots" / commit
    assert (folder / "a.gguf").read_bytes() == GGUF
    assert (folder / "sub/config.json").read_bytes() == CONFIG
    assert not (folder / "b.gguf").exists()


@pytest.mark.usefixtures("commit")
def test_fetch_of_what_is_there_asks_once_and_fetches_nothing(
    make_hub: MakeHub, fake_hub: FakeHub
) -> None:
    make_hub().fetch("org/name", ["a.gguf"])
    fake_hub.seen.clear()

    make_hub().fetch("org/name", ["a.gguf"])

    assert [seen.place for seen in fake_hub.seen] == ["api"]


@pytest.mark.usefixtures("commit")
def test_fetch_finds_what_huggingface_hub_has_fetched(
    make_hub: MakeHub, fake_hub: FakeHub, tmp_path: Path
) -> None:
    theirs = huggingface_hub.hf_hub_download(
        "org/name", "a.gguf", endpoint=fake_hub.url, cache_dir=tmp_path / "cache"
    )
    fake_hub.seen.clear()

    folder = make_hub().fetch("org/name", ["a.gguf"])

    assert str(folder / "a.gguf") == theirs
    assert not fake_hub.requests("cdn")


@pytest.mark.usefixtures("commit")
def test_huggingface_hub_finds_what_was_fetched(make_hub: MakeHub, tmp_path: Path) -> None:
    folder = make_hub().fetch("org/name", ["a.gguf"])

    found = huggingface_hub.try_to_load_from_cache(
        "org/name", "a.gguf", cache_dir=tmp_path / "cache"
    )
    assert found == str(folder / "a.gguf")


@pytest.mark.usefixtures("commit")
def test_fetch_unknown_file_raises(make_hub: MakeHub) -> None:
    with pytest.raises(ConfigError, match=r"^--model-id: 'org/name' has no file 'c\.gguf'$"):
        make_hub().fetch("org/name", ["c.gguf"])


def test_names_that_lead_out_of_the_folder_are_not_listed(
    fake_hub: FakeHub, make_hub: MakeHub
) -> None:
    fake_hub.add("org/evil", {"../../a.gguf": GGUF, "/etc/a.gguf": GGUF, "ok.gguf": GGUF})

    assert make_hub().list_files("org/evil").names == {"ok.gguf"}


# Revisions


def test_revision_is_a_branch_or_a_commit(
    commit: str, fake_hub: FakeHub, make_hub: MakeHub
) -> None:
    other = fake_hub.add("org/name", {"a.gguf": b"GGUF of a branch"}, revision="refs/pr/1")

    for revision in ("refs/pr/1", other):
        folder = make_hub().fetch("org/name", ["a.gguf"], revision)
        assert (folder / "a.gguf").read_bytes() == b"GGUF of a branch"
        assert folder.name == other
    assert make_hub().fetch("org/name", ["a.gguf"]).name == commit


@pytest.mark.usefixtures("commit")
def test_new_commit_is_fetched_and_shares_what_is_the_same(
    fake_hub: FakeHub, make_hub: MakeHub
) -> None:
    make_hub().fetch("org/name", ["a.gguf"])
    new = fake_hub.add("org/name", {"a.gguf": GGUF, "b.gguf": b"GGUF again"})
    fake_hub.seen.clear()

    folder = make_hub().fetch("org/name", ["a.gguf", "b.gguf"])

    assert folder.name == new
    assert (folder / "a.gguf").read_bytes() == GGUF
    assert len(fake_hub.requests("cdn")) == 1


def test_unknown_revision_raises_and_no_cache_hides_it(commit: str, make_hub: MakeHub) -> None:
    make_hub().fetch("org/name", ["a.gguf"])
    (snapshots,) = make_hub().cache.glob("models--org--name/refs")
    (snapshots / "gone").write_text(commit)

    with pytest.raises(ConfigError, match=r"^--revision: 'org/name' has no revision 'gone'$"):
        make_hub().list_files("org/name", "gone")


@pytest.mark.usefixtures("commit")
def test_a_hub_sees_one_state_of_a_revision(fake_hub: FakeHub, make_hub: MakeHub) -> None:
    hub = make_hub()
    hub.list_files("org/name")
    fake_hub.add("org/name", {"a.gguf": b"GGUF pushed meanwhile"})

    assert (hub.fetch("org/name", ["a.gguf"]) / "a.gguf").read_bytes() == GGUF


# Tokens


@pytest.mark.usefixtures("commit")
def test_token_goes_to_the_hub_and_not_to_the_other_origin(
    make_hub: MakeHub, fake_hub: FakeHub
) -> None:
    make_hub(token=TOKEN).fetch("org/name", ["a.gguf", "sub/config.json"])

    assert {seen.token for seen in fake_hub.seen if seen.place != "cdn"} == {f"Bearer {TOKEN}"}
    assert {seen.token for seen in fake_hub.requests("cdn")} == {None}


def test_token_is_not_shown(make_hub: MakeHub) -> None:
    assert TOKEN not in repr(make_hub(token=TOKEN))


def test_gated_model_with_access_is_fetched(fake_hub: FakeHub, make_hub: MakeHub) -> None:
    fake_hub.add("org/gated", {"a.gguf": GGUF}, is_gated=True)

    folder = make_hub(token=TOKEN).fetch("org/gated", ["a.gguf"])

    assert (folder / "a.gguf").read_bytes() == GGUF


@pytest.mark.parametrize(
    ("token", "text"),
    [
        (None, "accept its conditions at {url}/org/gated and give a token of that account in HF_T"),
        (OTHER_TOKEN, "the account of the token in HF_TOKEN has no access to it yet; ask for it a"),
    ],
)
def test_gated_model_without_access_raises(
    fake_hub: FakeHub, make_hub: MakeHub, token: str | None, text: str
) -> None:
    fake_hub.add("org/gated", {"a.gguf": GGUF}, is_gated=True)

    with pytest.raises(ConfigError) as caught:
        make_hub(token=token).fetch("org/gated", ["a.gguf"])

    assert str(caught.value).startswith("--model-id: 'org/gated' is gated")
    assert text.format(url=fake_hub.url) in str(caught.value)


@pytest.mark.parametrize(
    ("token", "hint"),
    [
        (None, "or it is private and needs a token in HF_TOKEN"),
        (TOKEN, "or the token of HF_TOKEN does not give access to it"),
    ],
)
def test_missing_repository_raises(
    fake_hub: FakeHub, make_hub: MakeHub, token: str | None, hint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_hub(token=token).list_files("org/absent")

    assert str(caught.value) == f"--model-id: {fake_hub.url} has no model 'org/absent', {hint}"


@pytest.mark.usefixtures("commit")
def test_wrong_token_raises(fake_hub: FakeHub, make_hub: MakeHub) -> None:
    with pytest.raises(ConfigError) as caught:
        make_hub(token="hf_expired").list_files("org/name")

    assert str(caught.value) == f"HF_TOKEN: {fake_hub.url} does not accept the token"


@pytest.mark.usefixtures("commit")
def test_refused_access_raises(fake_hub: FakeHub, make_hub: MakeHub) -> None:
    fake_hub.fail("api", status=403, headers={"X-Error-Message": "not from your country"})

    with pytest.raises(ConfigError, match=r"access to 'org/name' is refused: .*your country"):
        make_hub().list_files("org/name")


def test_disabled_model_raises(fake_hub: FakeHub, make_hub: MakeHub) -> None:
    message = {"X-Error-Message": "Access to this resource is disabled."}
    fake_hub.fail("api", status=403, headers=message)

    with pytest.raises(ConfigError, match=r"^--model-id: 'org/name' is disabled on the hub$"):
        make_hub().list_files("org/name")


@pytest.mark.parametrize("name", ["a/b/c", "..", "a--b/c"])
def test_impossible_name_raises_without_a_request(
    fake_hub: FakeHub, make_hub: MakeHub, name: str
) -> None:
    with pytest.raises(ConfigError, match="cannot be the name of a model on the hub"):
        make_hub().list_files(name)
    assert fake_hub.seen == []


def test_renamed_model_is_followed(fake_hub: FakeHub, make_hub: MakeHub, commit: str) -> None:
    fake_hub.renamed["old/name"] = "org/name"

    folder = make_hub().fetch("old/name", ["a.gguf", "sub/config.json"])

    assert (folder / "a.gguf").read_bytes() == GGUF
    assert (folder / "sub/config.json").read_bytes() == CONFIG
    assert folder.parts[-3:] == ("models--old--name", "snapshots", commit)


# Without the hub


@pytest.mark.usefixtures("commit")
def test_offline_serves_the_cache_without_a_request(make_hub: MakeHub, fake_hub: FakeHub) -> None:
    folder = make_hub().fetch("org/name", ["a.gguf"])
    fake_hub.seen.clear()
    hub = make_hub(is_offline=True)

    assert hub.list_files("org/name").files == [ListedFile("a.gguf", len(GGUF))]
    assert hub.fetch("org/name", ["a.gguf"]) == folder
    assert fake_hub.seen == []


@pytest.mark.usefixtures("commit")
def test_offline_and_never_fetched_raises(make_hub: MakeHub, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        make_hub(is_offline=True).list_files("org/name")

    assert str(caught.value) == (
        "--model-id: HF_HUB_OFFLINE is set, so 'org/name' can come from the cache"
        f" {str(tmp_path / 'cache')!r} only, where nothing of its revision 'main' is"
    )


@pytest.mark.usefixtures("commit")
def test_offline_with_a_part_of_the_files_names_the_others(make_hub: MakeHub) -> None:
    make_hub().fetch("org/name", ["a.gguf"])

    with pytest.raises(ConfigError, match=r"HF_HUB_OFFLINE is set.*; not in the cache: b\.gguf$"):
        make_hub(is_offline=True).fetch("org/name", ["a.gguf", "b.gguf"])


@pytest.mark.usefixtures("commit")
@pytest.mark.parametrize("content", ["", "0" * 40])
def test_name_of_a_revision_that_leads_nowhere_is_no_cache(make_hub: MakeHub, content: str) -> None:
    folder = make_hub().fetch("org/name", ["a.gguf"])
    (folder.parents[1] / "refs" / "main").write_text(content)

    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE is set"):
        make_hub(is_offline=True).list_files("org/name")


@pytest.mark.usefixtures("commit")
def test_cache_that_takes_no_name_of_a_revision_serves_all_the_same(
    make_hub: MakeHub, tmp_path: Path
) -> None:
    repository = tmp_path / "cache" / "models--org--name"
    repository.mkdir(parents=True)
    (repository / "refs").write_text("a file where the folder should be")

    folder = make_hub().fetch("org/name", ["a.gguf"])

    assert (folder / "a.gguf").read_bytes() == GGUF


def _not_there(_: FakeHub) -> dict[str, object]:
    return {"endpoint": "http://127.0.0.1:9"}  # the discard port: nobody listens


def _failing(fake_hub: FakeHub) -> dict[str, object]:
    fake_hub.fail("api", status=503, times=None)
    return {}


def _access_lost(_: FakeHub) -> dict[str, object]:
    return {"token": "hf_expired"}


@pytest.mark.usefixtures("commit")
@pytest.mark.parametrize("state", [_not_there, _failing, _access_lost])
def test_unreachable_hub_is_made_up_for_by_the_cache_with_a_warning(
    make_hub: MakeHub,
    fake_hub: FakeHub,
    state: Callable[[FakeHub], dict[str, object]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = make_hub().fetch("org/name", ["a.gguf"])
    caplog.clear()

    hub = make_hub(**state(fake_hub), n_tries=1)

    assert hub.fetch("org/name", ["a.gguf"]) == folder
    (warning,) = [each for each in caplog.records if each.name == "tgi_llama.models.hub"]
    assert warning.getMessage().endswith("; using what the cache holds of org/name")


def test_unreachable_hub_and_empty_cache_raises(make_hub: MakeHub) -> None:
    with pytest.raises(StartError) as caught:
        make_hub(endpoint="http://127.0.0.1:9", n_tries=2).list_files("org/name")

    assert str(caught.value) == (
        "--model-id: 'org/name' cannot be fetched from http://127.0.0.1:9: Connection refused"
    )


@pytest.mark.usefixtures("commit")
def test_hub_that_fails_for_a_while_is_asked_again(
    make_hub: MakeHub, fake_hub: FakeHub, pauses: list[float]
) -> None:
    fake_hub.fail("api", status=502, times=2)

    assert make_hub().list_files("org/name").problem is None
    assert pauses == [1, 2]


@pytest.mark.parametrize(
    ("status", "text"),
    [(500, "does not work: HTTP status 500"), (429, "limits how often it may be asked: HTTP")],
)
def test_hub_that_goes_on_failing_raises(
    make_hub: MakeHub, fake_hub: FakeHub, pauses: list[float], status: int, text: str
) -> None:
    fake_hub.fail("api", status=status, times=None)

    with pytest.raises(StartError, match=f"--model-id: the hub at .* {text}"):
        make_hub(n_tries=3).list_files("org/name")
    assert pauses == [1, 2]
    assert len(fake_hub.seen) == 3


@pytest.mark.parametrize("body", [b"<html>sign in</html>", b"[]", b"{}", b'"text"', b"null"])
def test_answer_of_something_else_raises(make_hub: MakeHub, fake_hub: FakeHub, body: bytes) -> None:
    fake_hub.fail("api", status=200, body=body, times=None)

    with pytest.raises(StartError, match=r"^--model-id: "):
        make_hub().list_files("org/name")
