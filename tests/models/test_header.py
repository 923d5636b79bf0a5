"""What is looked at before a file is given to llama.cpp."""

import os
import struct
from pathlib import Path

import pytest

from tgi_llama.errors import ConfigError
from tgi_llama.models.header import check_model_file


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
