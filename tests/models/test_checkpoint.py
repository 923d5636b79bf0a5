"""What is read of a model in safetensors before it is converted."""

import json
import os
from pathlib import Path

import pytest
from fakes.checkpoints import Shapes, write_checkpoint, write_safetensors

from tgi_llama.errors import ConfigError
from tgi_llama.models.checkpoint import folder_version, open_checkpoint


def test_checkpoint_parameters_of_all_files_are_counted(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", {"a": ("BF16", (8, 4)), "b": ("F32", (4,))})
    write_safetensors(folder / "model-00002.safetensors", {"c": ("F16", (3, 5))})

    checkpoint = open_checkpoint(folder)

    assert checkpoint.n_parameters == 32 + 4 + 15
    assert not checkpoint.is_float32


@pytest.mark.parametrize(
    ("shapes", "is_float32"),
    [
        ({"a": ("F32", (8, 4)), "b": ("BF16", (4,))}, True),
        ({"a": ("F16", (8, 4)), "b": ("F32", (4,))}, False),
        ({"a": ("F8_E4M3", (8, 4)), "b": ("F32", (8,))}, False),
    ],
)
def test_checkpoint_precision_is_that_of_most_weights(
    tmp_path: Path, shapes: Shapes, is_float32: bool
) -> None:
    assert open_checkpoint(write_checkpoint(tmp_path / "m", shapes)).is_float32 is is_float32


def test_checkpoint_of_pickled_weights_is_estimated_by_its_size(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(bytes(100))

    assert open_checkpoint(folder).n_parameters == 50


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_folder_without_a_needed_file_is_refused_by_its_name(tmp_path: Path, missing: str) -> None:
    folder = write_checkpoint(tmp_path / "m")
    (folder / missing).unlink()

    with pytest.raises(ConfigError, match=f"there is no .*{missing[-11:]}.* in the folder '.*m'"):
        open_checkpoint(folder)


def _write_index(folder: Path, content: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))


def test_missing_part_is_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m")
    parts = {"a": "model.safetensors", "b": "model-2.safetensors", "c": "model-3.safetensors"}
    _write_index(folder, {"weight_map": parts})

    with pytest.raises(ConfigError, match=r"m' lacks 'model-2\.safetensors', one of the 3 parts"):
        open_checkpoint(folder)

    for name in parts.values():
        write_safetensors(folder / name)
    assert open_checkpoint(folder).n_parameters == 3 * 36


@pytest.mark.parametrize("content", [[], {}, {"weight_map": []}, {"weight_map": {"a": ["b"]}}])
def test_index_that_is_none_is_refused(tmp_path: Path, content: object) -> None:
    folder = write_checkpoint(tmp_path / "m")
    _write_index(folder, content)

    with pytest.raises(ConfigError, match=r"cannot read '.*model\.safetensors\.index\.json': "):
        open_checkpoint(folder)


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        open_checkpoint(tmp_path / "absent")


@pytest.mark.parametrize("n_kept", [0, 7, 8, 30, -1])
def test_cut_off_weights_are_refused(tmp_path: Path, n_kept: int) -> None:
    """Also where only the last byte is missing: a broken download must not be converted."""
    folder = write_checkpoint(tmp_path / "m")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:n_kept])

    with pytest.raises(ConfigError, match=r"expected a safetensors file, but .* cut off"):
        open_checkpoint(folder)


@pytest.mark.parametrize("header", [b"[]", b'{"a": 1}', b'{"a": {}}', b"not JSON"])
def test_weights_with_a_strange_header_are_refused(tmp_path: Path, header: bytes) -> None:
    folder = write_checkpoint(tmp_path / "m")
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)

    with pytest.raises(ConfigError, match="expected a safetensors file"):
        open_checkpoint(folder)


def test_folder_version_is_another_after_any_change(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m")
    versions = [folder_version(folder)]

    (folder / "tokenizer.json").write_text("{}")
    versions.append(folder_version(folder))
    (folder / "tokenizer.json").write_text("{ }")
    versions.append(folder_version(folder))
    os.utime(folder / "tokenizer.json", (1, 1))
    versions.append(folder_version(folder))
    (folder / "tokenizer.json").unlink()

    assert len(set(versions)) == 4
    assert folder_version(folder) == versions[0]


def test_folder_version_ignores_results_and_hidden_files(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m")
    before = folder_version(folder)

    (folder / "m-q4_0.gguf").write_text("GGUF")
    (folder / ".gitattributes").write_text("")
    (folder / "onnx").mkdir()

    assert folder_version(folder) == before
