"""Where adapters are found, and what holders of an admin key may have."""

import os
import re
from pathlib import Path

import pytest
from fakes.adapters import EMPTY_GGUF, fetch_nothing

from tgi_llama.config import Config
from tgi_llama.errors import ConfigError, Forbidden
from tgi_llama.models.adapters import AdapterSources, path_within
from tgi_llama.options.lora import HubSource


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(EMPTY_GGUF)
    return path


def sources(*entries: str, folders: tuple[Path, ...] = ()) -> AdapterSources:
    config = Config(lora_adapters=entries, lora_adapter_folder=tuple(map(str, folders)))
    return AdapterSources.of(config, fetch_nothing)


def problem(*entries: str) -> str:
    with pytest.raises(ConfigError) as caught:
        sources(*entries).first()
    return str(caught.value)


# --- at the start ---


def test_first_finds_files_and_the_only_one_of_a_folder(tmp_path: Path) -> None:
    file = write(tmp_path / "a.gguf")
    other = write(tmp_path / "folder" / "b.gguf")
    (tmp_path / "folder" / "adapter_config.json").touch()
    a, b = sources(f"x={file}:0.5", str(tmp_path / "folder")).first()
    assert (a.name, a.path, a.scale, a.root) == ("x", file, 0.5, "a.gguf")
    assert (b.name, b.path, b.scale, b.root) == ("folder", other, 1.0, "folder")


def test_first_expands_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "a.gguf")
    (file,) = sources("~/a.gguf").first()
    assert file.path == tmp_path / "a.gguf"


def test_first_names_option_and_entry(tmp_path: Path) -> None:
    entry = f"x={tmp_path / 'a.gguf'}"
    assert problem(entry) == (
        f"--lora-adapters {entry}: cannot read the file {str(tmp_path / 'a.gguf')!r}: No such file"
        " or directory"
    )


def test_first_refuses_what_is_no_gguf_file(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_text("text")
    assert "does not start with the letters GGUF" in problem(str(tmp_path / "a.gguf"))


def test_first_refuses_several_files_in_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf")
    write(tmp_path / "b.gguf")
    assert "(a.gguf, b.gguf); name one of them" in problem(f"x={tmp_path}")


def test_first_refuses_an_empty_folder(tmp_path: Path) -> None:
    assert "there is no *.gguf file in the folder" in problem(f"x={tmp_path}")


@pytest.mark.parametrize("given", ["", "adapter_model.safetensors", "adapter_config.json"])
def test_first_says_how_to_convert_an_adapter_of_peft(tmp_path: Path, given: str) -> None:
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (tmp_path / name).touch()
    assert f"make one with tgi-llama convert {tmp_path}" in problem(f"x={tmp_path / given}")


def test_first_asks_the_hub_for_what_is_no_path(tmp_path: Path) -> None:
    file = write(tmp_path / "some.gguf")
    asked = []

    def fetch(source: HubSource, place: str) -> Path:
        asked.append((source, place))
        return file

    config = Config(lora_adapters=("x=owner/repo:Q8_0@v1",))
    (found,) = AdapterSources.of(config, fetch).first()
    assert (found.path, found.root) == (file, "owner/repo")
    source = HubSource(repo_id="owner/repo", file="Q8_0", revision="v1")
    assert asked == [(source, "--lora-adapters x=owner/repo:Q8_0@v1")]


def test_first_without_a_hub_says_so() -> None:
    assert "nothing is downloaded" in problem("x=owner/repo")


# --- at run time ---


def test_find_takes_a_file_of_a_folder(tmp_path: Path) -> None:
    file = write(tmp_path / "one" / "below" / "a.gguf")
    (tmp_path / "two").mkdir()
    both = sources(folders=(tmp_path / "two", tmp_path / "one"))
    for given in ("below/a.gguf", str(file), "./below/../below/a.gguf", "below"):
        found = both.find("x", given, scale=2.0)
        assert (found.name, found.path, found.scale) == ("x", file, 2.0)
        assert found.root == ("below" if given == "below" else "a.gguf")


@pytest.mark.parametrize(
    "given", ["/etc/passwd", "/nothing/there", "../b.gguf", "../one-more/a.gguf", "", ".", "a\0b"]
)
def test_find_refuses_what_is_elsewhere_whether_it_is_there_or_not(
    tmp_path: Path, given: str
) -> None:
    write(tmp_path / "b.gguf")
    write(tmp_path / "one-more" / "a.gguf")
    (tmp_path / "one").mkdir()
    with pytest.raises(Forbidden, match="`lora_path` must be in a folder"):
        sources(folders=(tmp_path / "one",)).find("x", given, scale=1.0)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="nobody counts what is read")
def test_find_has_read_the_file_so_that_streams_need_not_wait_for_a_disk(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(EMPTY_GGUF + bytes(3 * 2**20))

    def n_read() -> int:
        (line,) = re.findall(r"rchar: (\d+)", Path("/proc/self/io").read_text())
        return int(line)

    before = n_read()
    sources(folders=(tmp_path,)).find("x", "a.gguf", scale=1.0)
    assert n_read() - before > 3 * 2**20


def test_find_refuses_a_link_that_leads_elsewhere(tmp_path: Path) -> None:
    write(tmp_path / "b.gguf")
    (tmp_path / "one").mkdir()
    os.symlink(tmp_path / "b.gguf", tmp_path / "one" / "a.gguf")
    with pytest.raises(Forbidden):
        sources(folders=(tmp_path / "one",)).find("x", "a.gguf", scale=1.0)


@pytest.mark.parametrize("content", [EMPTY_GGUF, b"text"])
def test_find_refuses_a_folder_whose_file_is_a_link_that_leads_elsewhere(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "b.gguf").write_bytes(content)
    (tmp_path / "one" / "below").mkdir(parents=True)
    os.symlink(tmp_path / "b.gguf", tmp_path / "one" / "below" / "a.gguf")
    with pytest.raises(Forbidden):
        sources(folders=(tmp_path / "one",)).find("x", "below", scale=1.0)


def test_find_of_a_path_that_no_system_can_have_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="File name too long"):
        sources(folders=(tmp_path,)).find("x", "a" * 5000, scale=1.0)


def test_find_follows_a_folder_that_is_a_link(tmp_path: Path) -> None:
    file = write(tmp_path / "one" / "a.gguf")
    os.symlink(tmp_path / "one", tmp_path / "link")
    found = sources(folders=(tmp_path / "link",)).find("x", "a.gguf", scale=1.0)
    assert found.path == file


def test_find_without_folders_refuses_every_path(tmp_path: Path) -> None:
    with pytest.raises(Forbidden):
        sources().find("x", str(write(tmp_path / "a.gguf")), scale=1.0)


def test_find_takes_what_the_options_named(tmp_path: Path) -> None:
    file = write(tmp_path / "a.gguf")
    found = sources(f"a={file}:0.5").find("other", str(file), scale=1.0)
    assert (found.name, found.path, found.scale) == ("other", file, 1.0)


def test_find_of_a_missing_file_names_the_field(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^`lora_path`: cannot read the file"):
        sources(folders=(tmp_path,)).find("x", "a.gguf", scale=1.0)


def test_path_in_the_root_folder_is_within_it() -> None:
    assert path_within(["/"], "nothing.gguf") == "/nothing.gguf"
