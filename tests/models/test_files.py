"""Choosing the model to serve. The files here have a GGUF header and nothing else."""

import os
import struct
from pathlib import Path

import pytest

from tgi_llama.config import Config
from tgi_llama.errors import ConfigError
from tgi_llama.models.files import ModelFiles, check_model_file, resolve_model


def _header(version: int = 3, order: str = "<") -> bytes:
    return struct.pack(f"{order}4sIQQ", b"GGUF", version, 0, 0)


def _write_gguf(path: Path) -> Path:
    path.write_bytes(_header())
    return path


@pytest.mark.parametrize("version", [2, 3])
def test_check_model_file_readable_version_passes(tmp_path: Path, version: int) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(_header(version))

    check_model_file(file)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"GG", "does not start with the letters GGUF"),
        (b"PK\x03\x04" * 10, "does not start with the letters GGUF"),
        (b"GGUF\x03\x00", "is cut off after 6 bytes"),
        (_header(1), "has version 1"),
        (_header(4), "has version 4"),
        (_header(3, ">"), "is big-endian"),
    ],
)
def test_check_model_file_bad_content_raises(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(content)

    with pytest.raises(ConfigError) as caught:
        check_model_file(file)

    assert str(caught.value).startswith("--model-gguf: expected a")
    assert str(caught.value).endswith(f"{str(file)!r} {reason}")


def test_check_model_file_missing_raises(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--model-gguf: cannot read .*No such file"):
        check_model_file(tmp_path / "absent.gguf")


def test_check_model_file_directory_raises(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a directory"):
        check_model_file(tmp_path)


def test_check_model_file_pipe_raises_instead_of_waiting(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.gguf"
    os.mkfifo(pipe)

    with pytest.raises(ConfigError, match="is not a regular file"):
        check_model_file(pipe)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_check_model_file_unreadable_raises(tmp_path: Path) -> None:
    file = _write_gguf(tmp_path / "a.gguf")
    file.chmod(0)

    with pytest.raises(ConfigError, match="Permission denied"):
        check_model_file(file)


def test_check_model_file_overlong_name_raises(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="File name too long"):
        check_model_file(tmp_path / ("a" * 300))


def test_resolve_model_file_alone_is_named_after_the_file(tmp_path: Path) -> None:
    file = _write_gguf(tmp_path / "tiny-q4_0.gguf")

    assert resolve_model(Config(model_gguf=file)) == ModelFiles(
        gguf=file, tokenizer_folder=None, model_id="tiny-q4_0"
    )


def test_resolve_model_file_and_hub_name_reports_the_name(tmp_path: Path) -> None:
    file = _write_gguf(tmp_path / "a.gguf")

    assert resolve_model(Config(model_gguf=file, model_id="org/name")) == ModelFiles(
        gguf=file, tokenizer_folder=None, model_id="org/name"
    )


def test_resolve_model_file_and_folder_takes_the_tokenizer_of_the_folder(tmp_path: Path) -> None:
    file = _write_gguf(tmp_path / "a.gguf")
    folder = tmp_path / "repository"
    folder.mkdir()

    found = resolve_model(Config(model_gguf=file, model_id=str(folder)))

    assert found == ModelFiles(gguf=file, tokenizer_folder=folder, model_id=str(folder))


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["weights.gguf"], "weights.gguf"),
        (["model.gguf"], "model.gguf"),
        (["a.gguf", "model.gguf"], "model.gguf"),
    ],
)
def test_resolve_model_folder_finds_its_file(tmp_path: Path, names: list[str], chosen: str) -> None:
    for name in names:
        _write_gguf(tmp_path / name)

    found = resolve_model(Config(model_id=str(tmp_path)))

    assert found == ModelFiles(
        gguf=tmp_path / chosen, tokenizer_folder=tmp_path, model_id=str(tmp_path)
    )


def test_resolve_model_folder_with_several_files_lists_them(tmp_path: Path) -> None:
    for name in ("b.gguf", "a.gguf"):
        _write_gguf(tmp_path / name)

    with pytest.raises(ConfigError, match=r"--model-id: several .*\(a\.gguf, b\.gguf\)"):
        resolve_model(Config(model_id=str(tmp_path)))


def test_resolve_model_folder_without_file_raises(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--model-id: there is no \*\.gguf file"):
        resolve_model(Config(model_id=str(tmp_path)))


def test_resolve_model_folder_with_bad_file_names_model_id(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"")

    with pytest.raises(ConfigError, match=r"^--model-id: .* is empty$"):
        resolve_model(Config(model_id=str(tmp_path)))


def test_resolve_model_hub_name_alone_raises() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_model(Config(model_id="org/name"))

    assert str(caught.value) == (
        "--model-id: 'org/name' is not a local folder; give its GGUF file with --model-gguf"
        " (this version downloads nothing)"
    )


def test_resolve_model_id_that_is_a_file_raises(tmp_path: Path) -> None:
    file = _write_gguf(tmp_path / "a.gguf")

    with pytest.raises(ConfigError, match=r"is a file; give it with --model-gguf"):
        resolve_model(Config(model_id=str(file)))


@pytest.mark.parametrize("model_id", ["/no/such/folder", "./absent", "../absent"])
def test_resolve_model_missing_folder_raises(tmp_path: Path, model_id: str) -> None:
    file = _write_gguf(tmp_path / "a.gguf")

    with pytest.raises(ConfigError, match="--model-id: there is no folder"):
        resolve_model(Config(model_id=model_id, model_gguf=file))


def test_resolve_model_nothing_given_is_the_built_in_model() -> None:
    found = resolve_model(Config())

    assert found.model_id == "tgi_llama/builtin"
    assert found.tokenizer_folder == found.gguf.parent
