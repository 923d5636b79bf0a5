"""How an adapter is written."""

from pathlib import Path

import pytest

from tgi_llama.config import Config
from tgi_llama.errors import ConfigError
from tgi_llama.options.lora import HubSource, hub_source, is_name, parse_entry


@pytest.mark.parametrize(
    ("text", "name", "source", "scale"),
    [
        ("pirate=/a/b.gguf", "pirate", "/a/b.gguf", 1.0),
        ("/a/pirate.gguf", "pirate", "/a/pirate.gguf", 1.0),
        ("pirate.GGUF", "pirate", "pirate.GGUF", 1.0),
        ("/a/pirate", "pirate", "/a/pirate", 1.0),
        ("a/pirate.gguf", "pirate", "a/pirate.gguf", 1.0),
        ("owner/repo", "owner/repo", "owner/repo", 1.0),
        ("owner/repo@v1", "owner/repo", "owner/repo@v1", 1.0),
        ("x=owner/repo:Q8_0@v1", "x", "owner/repo:Q8_0@v1", 1.0),
        ("x=/a/b.gguf:0.5", "x", "/a/b.gguf", 0.5),
        ("x=/a/b.gguf:-1e-1", "x", "/a/b.gguf", -0.1),
        ("x=owner/repo:f.gguf@v1:2", "x", "owner/repo:f.gguf@v1", 2.0),
        ("x=/a=b.gguf", "x", "/a=b.gguf", 1.0),
    ],
)
def test_entry_is_read(text: str, name: str, source: str, scale: float) -> None:
    entry = parse_entry(text)
    assert (entry.name, entry.source, entry.scale) == (name, source, scale)


def test_entry_of_a_path_that_is_there_is_not_taken_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner" / "repo:2").touch()
    entry = parse_entry("x=owner/repo:2")
    assert (entry.source, entry.scale) == ("owner/repo:2", 1.0)
    assert hub_source(entry.source) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("=/a.gguf", "--lora-adapters: expected name=file, got '=/a.gguf'"),
        ("x=", "--lora-adapters: expected name=file, got 'x='"),
        ("a b=/a.gguf", "--lora-adapters: a name must have"),
        ("tgi=/a.gguf", "and not be tgi: 'tgi=/a.gguf'"),
        ("x=/a.gguf:1e999", "--lora-adapters: the scale must be a finite 32-bit number"),
        ("x=/a.gguf:1e39", "--lora-adapters: the scale must be a finite 32-bit number"),
    ],
)
def test_entry_that_is_wrong_is_named(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_entry(text)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("owner/repo", HubSource(repo_id="owner/repo", file=None, revision=None)),
        ("owner/repo:Q4_0", HubSource(repo_id="owner/repo", file="Q4_0", revision=None)),
        ("owner/r:a/b.gguf@r", HubSource(repo_id="owner/r", file="a/b.gguf", revision="r")),
        ("/owner/repo", None),
        ("./owner/repo", None),
        ("../repo", None),
        ("owner/repo.gguf", None),
        ("repo", None),
    ],
)
def test_source_on_the_hub_is_told_from_a_path(source: str, expected: HubSource | None) -> None:
    assert hub_source(source) == expected


@pytest.mark.parametrize(
    "name",
    ["", "a b", "a,b", "a=b", "a\nb", "x" * 201, "tgi", "a\x7fb", "a\x9b31m", "a\u202eb", "\ud800"],
)
def test_name_that_could_not_be_asked_for_is_none(name: str) -> None:
    assert not is_name(name)


def test_option_may_be_repeated_and_hold_several() -> None:
    config = Config(lora_adapters=("a=/a.gguf, b=/b.gguf,", "c=/c.gguf:2"))
    assert config.lora_adapters == ("a=/a.gguf", "b=/b.gguf", "c=/c.gguf:2")


def test_two_entries_of_one_name_raise() -> None:
    with pytest.raises(ConfigError) as caught:
        Config(lora_adapters=("a=/a.gguf,/x/a.gguf",))
    assert str(caught.value) == (
        "--lora-adapters: two adapters have the name 'a': 'a=/a.gguf' and '/x/a.gguf'"
    )


def test_folder_that_there_is_not_raises(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    with pytest.raises(ConfigError, match="--lora-adapter-folder: there is no folder"):
        Config(lora_adapter_folder=(missing,))


def test_key_for_both_purposes_raises_without_showing_it() -> None:
    with pytest.raises(ConfigError) as caught:
        Config(api_key=("a", "secret"), admin_api_key=("secret",))
    assert "--admin-api-key" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_admin_keys_are_not_shown() -> None:
    assert "secret" not in repr(Config(admin_api_key=("secret",)))
