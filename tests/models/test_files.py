"""Finding the model on this machine. The files here have a GGUF header and nothing else."""

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tgi_llama.config import Config
from tgi_llama.errors import ConfigError
from tgi_llama.models.files import ModelFiles, resolve_model

HEADER = struct.pack("<4sIQQ", b"GGUF", 3, 0, 0)


def _write_gguf(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(HEADER)
    return path


# A file


def test_file_alone_is_named_after_itself(tmp_path: Path) -> None:
    file = _write_gguf(tmp_path / "tiny-q4_0.gguf")

    assert resolve_model(Config(model_gguf=str(file))) == ModelFiles(
        gguf=file, tokenizer_folder=None, model_id="tiny-q4_0"
    )


@pytest.mark.parametrize("name", ["my model", "tgi"])
def test_file_and_any_name_reports_the_name(tmp_path: Path, name: str) -> None:
    file = _write_gguf(tmp_path / "a.gguf")

    assert resolve_model(Config(model_gguf=str(file), model_id=name)) == ModelFiles(
        gguf=file, tokenizer_folder=None, model_id=name
    )


def test_file_and_folder_takes_the_tokenizer_of_the_folder(tmp_path: Path) -> None:
    file = _write_gguf(tmp_path / "a.gguf")
    folder = tmp_path / "repository"
    folder.mkdir()

    found = resolve_model(Config(model_gguf=str(file), model_id=str(folder)))

    assert found == ModelFiles(gguf=file, tokenizer_folder=folder, model_id=str(folder))


@pytest.mark.parametrize("given", [1, 2, 3])
def test_any_part_of_a_split_file_stands_for_all(tmp_path: Path, given: int) -> None:
    parts = [_write_gguf(tmp_path / f"big-q8_0-0000{i}-of-00003.gguf") for i in (1, 2, 3)]

    assert resolve_model(Config(model_gguf=str(parts[given - 1]))) == ModelFiles(
        gguf=parts[0], tokenizer_folder=None, model_id="big-q8_0"
    )


@pytest.mark.parametrize("missing", [1, 2])
def test_missing_part_is_named(tmp_path: Path, missing: int) -> None:
    parts = [_write_gguf(tmp_path / f"big-0000{i}-of-00003.gguf") for i in (1, 2, 3)]
    parts[missing - 1].unlink()

    with pytest.raises(ConfigError) as caught:
        resolve_model(Config(model_gguf=str(parts[2])))
    assert str(caught.value) == (
        f"--model-gguf: the folder {str(tmp_path)!r} lacks {parts[missing - 1].name!r}, one of the"
        " 3 parts of the model"
    )


def test_bad_part_is_named(tmp_path: Path) -> None:
    first = _write_gguf(tmp_path / "big-00001-of-00002.gguf")
    (tmp_path / "big-00002-of-00002.gguf").write_bytes(b"")

    with pytest.raises(ConfigError, match=r"big-00002-of-00002\.gguf' is empty$"):
        resolve_model(Config(model_gguf=str(first)))


@pytest.mark.parametrize("model_id", [None, "my model", "tgi", "org/name"])
@pytest.mark.parametrize("path", ["/no/such/a.gguf", "./a.gguf", "~/a.gguf"])
def test_path_to_nothing_raises(path: str, model_id: str | None) -> None:
    with pytest.raises(ConfigError, match=r"^--model-gguf: cannot read the file .*: No such file"):
        resolve_model(Config(model_gguf=path, model_id=model_id))


def test_name_of_nothing_without_a_source_raises() -> None:
    with pytest.raises(ConfigError, match=r"^--model-gguf: cannot read the file 'a\.gguf'"):
        resolve_model(Config(model_gguf="a.gguf"))


def test_folder_as_file_raises(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--model-gguf: .* is a directory$"):
        resolve_model(Config(model_gguf=str(tmp_path)))


def test_file_and_quantization_contradict_each_other(tmp_path: Path) -> None:
    file = _write_gguf(tmp_path / "a.gguf")

    with pytest.raises(ConfigError, match=r"^--model-id: 'org/name:Q4_0' and --model-gguf both"):
        resolve_model(Config(model_gguf=str(file), model_id="org/name:Q4_0"))


# A folder


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["weights.gguf"], "weights.gguf"),
        (["model.gguf"], "model.gguf"),
        (["a.gguf", "model.gguf"], "model.gguf"),
        (["a.gguf", "mmproj-a.gguf"], "a.gguf"),
        (["q8/a-00001-of-00002.gguf", "q8/a-00002-of-00002.gguf"], "q8/a-00001-of-00002.gguf"),
    ],
)
def test_folder_finds_its_file(tmp_path: Path, names: list[str], chosen: str) -> None:
    for name in names:
        _write_gguf(tmp_path / name)

    found = resolve_model(Config(model_id=str(tmp_path)))

    assert found == ModelFiles(
        gguf=tmp_path / chosen, tokenizer_folder=tmp_path, model_id=str(tmp_path)
    )


@pytest.mark.parametrize("wanted", ["b.gguf", "B*", "sub/b.gguf"])
def test_folder_and_name_or_pattern(tmp_path: Path, wanted: str) -> None:
    _write_gguf(tmp_path / "a.gguf")
    file = _write_gguf(tmp_path / "sub" / "b.gguf")

    found = resolve_model(Config(model_id=str(tmp_path), model_gguf=wanted))

    assert found == ModelFiles(gguf=file, tokenizer_folder=tmp_path, model_id=str(tmp_path))


def test_folder_with_several_files_lists_them(tmp_path: Path) -> None:
    for name in ("b.gguf", "a.gguf"):
        _write_gguf(tmp_path / name)

    with pytest.raises(ConfigError, match=r"has several GGUF files: a\.gguf \(24 bytes\), b\.gguf"):
        resolve_model(Config(model_id=str(tmp_path)))


def test_folder_without_file_raises(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--model-id: there is no \*\.gguf or \*\.safetensors"):
        resolve_model(Config(model_id=str(tmp_path)))


def test_folder_with_bad_file_names_model_id(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"")

    with pytest.raises(ConfigError, match=r"^--model-id: .* is empty$"):
        resolve_model(Config(model_id=str(tmp_path)))


# Names


def test_name_that_can_be_nothing_raises() -> None:
    with pytest.raises(ConfigError, match=r"^--model-id: 'a b' is neither a local folder nor the"):
        resolve_model(Config(model_id="a b"))


def test_revision_without_a_hub_model_warns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = _write_gguf(tmp_path / "a.gguf")

    resolve_model(Config(model_gguf=str(file), revision="v2"))

    assert caplog.messages == ["--revision has no effect: no model of the hub is named"]


def test_nothing_given_is_the_built_in_model() -> None:
    found = resolve_model(Config())

    assert found.model_id == "tgi_llama/builtin"
    assert found.tokenizer_folder == found.gguf.parent


def test_local_model_does_not_load_the_client_of_the_hub() -> None:
    program = (
        "import sys\n"
        "from tgi_llama import cli, lifecycle\n"
        "from tgi_llama.models.files import resolve_model\n"
        "resolve_model(cli.parse([]))\n"
        "print('huggingface_hub' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "False\n"
