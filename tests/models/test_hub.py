"""Listing and fetching with the real client against a local hub."""

from collections.abc import Callable
from pathlib import Path

from fakes.hub import FakeHub

from tgi_llama.models.hub import Hub, HubFile

GGUF = b"GGUF" + bytes(range(256)) * 20_000
CONFIG = b'{"model_type": "llama"}'


def test_fetch_puts_files_of_both_kinds_into_the_snapshot(
    fake_hub: FakeHub, make_hub: Callable[..., Hub], tmp_path: Path
) -> None:
    commit = fake_hub.add("org/name", {"a.gguf": GGUF, "sub/config.json": CONFIG})

    hub = make_hub()
    listing = hub.list_files("org/name")
    folder = hub.fetch("org/name", ["a.gguf", "sub/config.json"])

    assert listing.commit == commit
    assert set(listing.files) == {
        HubFile("a.gguf", len(GGUF)),
        HubFile("sub/config.json", len(CONFIG)),
    }
    assert folder == tmp_path / "cache" / "models--org--name" / "snapshots" / commit
    assert (folder / "a.gguf").read_bytes() == GGUF
    assert (folder / "sub/config.json").read_bytes() == CONFIG
