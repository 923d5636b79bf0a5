"""Finding llama.cpp's converter, and getting it."""

import importlib.metadata
import io
import logging
import tarfile
from pathlib import Path

import pytest
from fakes.checkpoints import write_converter

from tgi_llama.errors import ConfigError, StartError
from tgi_llama.models import converter as module
from tgi_llama.models.converter import VERSION_FILE, find_converter, get_converter

VERSION = importlib.metadata.version("llama-cpp-python")

_BACKEND = f"""
from pathlib import Path

def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    folder = Path(metadata_directory) / "llama_cpp_python-{VERSION}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.1\\nName: llama-cpp-python\\nVersion: {VERSION}\\n"
    )
    return folder.name
"""
_PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""


@pytest.fixture(autouse=True)
def image_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the container image has the converter: this machine may be one."""
    folder = tmp_path / "image"
    monkeypatch.setattr(module, "IMAGE_FOLDER", folder)
    return folder


def _write_source_package(folder: Path, *, with_converter: bool = True) -> Path:
    """A package of our version's name for pip to find in the folder."""
    llama_cpp = "vendor/llama.cpp"
    files = {"pyproject.toml": _PYPROJECT, "backend.py": _BACKEND, f"{llama_cpp}/src/a.cpp": ""}
    if with_converter:
        files |= {
            f"{llama_cpp}/convert_hf_to_gguf.py": "the converter",
            f"{llama_cpp}/convert_lora_to_gguf.py": "the adapters' converter",
            f"{llama_cpp}/conversion/llama.py": "a model",
            f"{llama_cpp}/gguf-py/gguf/gguf_writer.py": "a writer",
            f"{llama_cpp}/gguf-py/tests/test_quants.py": "a test",
            f"{llama_cpp}/LICENSE": "MIT",
        }
    folder.mkdir()
    with tarfile.open(folder / f"llama_cpp_python-{VERSION}.tar.gz", "w:gz") as package:
        for name, text in files.items():
            member = tarfile.TarInfo(f"llama_cpp_python-{VERSION}/{name}")
            member.size = len(text)
            package.addfile(member, io.BytesIO(text.encode()))
    return folder


def _let_pip_find(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


def test_converter_is_given_as_folder_or_script(tmp_path: Path) -> None:
    folder = write_converter(tmp_path / "c", "")

    for given in (folder, folder / "convert_hf_to_gguf.py"):
        assert find_converter(given, tmp_path / "cache").folder == folder


def test_converter_given_wins_over_the_images_over_the_cached(
    tmp_path: Path, image_folder: Path
) -> None:
    cache = tmp_path / "cache"
    cached = write_converter(cache / f"converter-{VERSION}", "")
    assert find_converter(None, cache).folder == cached
    write_converter(image_folder, "")
    assert find_converter(None, cache).folder == image_folder
    given = write_converter(tmp_path / "given", "")
    assert find_converter(given, cache).folder == given


def test_no_converter_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`tgi-llama convert --get-converter`, .*--converter"):
        find_converter(None, tmp_path)


def test_given_folder_without_converter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--converter: there is no convert_hf_to_gguf.py in"):
        find_converter(tmp_path, tmp_path)


def test_converter_of_another_version_is_refused(tmp_path: Path) -> None:
    folder = write_converter(tmp_path / "c", "", version="0.3.1")

    with pytest.raises(ConfigError, match=rf"belongs to llama-cpp-python 0\.3\.1, but {VERSION}"):
        find_converter(folder, tmp_path)


@pytest.mark.parametrize(("version", "is_ours"), [(VERSION, True), ("0.3.1", False)])
def test_converter_in_the_source_package_has_its_version(
    tmp_path: Path, version: str, is_ours: bool, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_converter(tmp_path / "vendor" / "llama.cpp", "")
    (folder / VERSION_FILE).unlink()
    (tmp_path / "llama_cpp").mkdir()
    (tmp_path / "llama_cpp" / "__init__.py").write_text(f'__version__ = "{version}"\n')

    if is_ours:
        assert find_converter(folder, tmp_path).folder == folder
        assert not caplog.records
    else:
        with pytest.raises(ConfigError, match=r"0\.3\.1"):
            find_converter(folder, tmp_path)


def test_converter_of_unknown_version_is_used_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_converter(tmp_path / "c", "")
    (folder / VERSION_FILE).unlink()

    assert find_converter(folder, tmp_path).folder == folder
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "cannot tell which llama.cpp" in record.getMessage()


def test_get_converter_unpacks_only_the_converter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _let_pip_find(_write_source_package(tmp_path / "packages"), monkeypatch)
    cache = tmp_path / "cache"

    folder = get_converter(cache)

    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == {
        "convert_hf_to_gguf.py",
        "convert_lora_to_gguf.py",
        "conversion/llama.py",
        "gguf-py/gguf/gguf_writer.py",
        "LICENSE",
        VERSION_FILE,
    }
    assert list(cache.iterdir()) == [folder]
    assert find_converter(None, cache).folder == folder


def test_get_converter_that_is_there_downloads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _let_pip_find(tmp_path / "nowhere", monkeypatch)
    folder = write_converter(tmp_path / f"converter-{VERSION}", "")

    assert get_converter(tmp_path) == folder


def test_get_converter_without_the_package_says_so_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "packages").mkdir()
    _let_pip_find(tmp_path / "packages", monkeypatch)
    cache = tmp_path / "cache"

    with pytest.raises(StartError, match=r"^pip cannot download .*: ERROR: .*llama-cpp-python"):
        get_converter(cache)

    assert list(cache.iterdir()) == []


def test_get_converter_from_a_package_without_it_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = _write_source_package(tmp_path / "packages", with_converter=False)
    _let_pip_find(packages, monkeypatch)
    cache = tmp_path / "cache"

    with pytest.raises(StartError, match=r"there is no vendor/llama.cpp/convert_hf_to_gguf.py in"):
        get_converter(cache)

    assert list(cache.iterdir()) == []
