"""Tiny models and what transformers makes of them, computed by a Python of its own.

TEST_REFERENCE_PYTHON is its executable; TEST_CONVERTER is llama.cpp's converter, as for
``--converter``. TEST_TRUTH_CACHE is a folder in which the models and their answers are kept from
run to run; they take a few minutes.
"""

import concurrent.futures
import hashlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest

from tgi_llama.models.conversion import ConversionKey, convert

ROOT = Path(__file__).parents[2]
TEXT = ROOT / "LICENSE"
VOCABULARIES = ROOT.parent / "shared" / "data" / "vocab"
REFERENCE = Path(__file__).with_name("reference.py")
N_AT_ONCE = 2

ARCHITECTURES = (
    "qwen3moe",  # what takes longest first
    "qwen2",
    "mamba",
    "qwen3",
    "mixtral",
    "gemma3",
    "gemma2",
    "gemma3-attention",
    "gemma2-attention",
    "llama",
    "phi3",
    "mistral",
)
"""Those with an addition have the same architecture and a feed-forward part that says nothing."""


@attrs.frozen
class Reference:
    """Where the checkpoints are, and how they become GGUF files."""

    folder: Path
    python: Path
    converter: Path

    def checkpoint(self, architecture: str) -> Path:
        """With ``expected.json`` in it."""
        return self.folder / architecture

    def gguf(self, architecture: str, type_name: str) -> Path:
        """Made by our own conversion, once."""
        key = ConversionKey(architecture, "random", type_name)
        source = self.checkpoint(architecture)
        return convert(source, key, self.folder / "gguf", self.converter, python=self.python)

    def make(self, architectures: Sequence[str]) -> None:
        arguments = [self.folder, VOCABULARIES, TEXT, *architectures]
        done = subprocess.run(
            [self.python, REFERENCE, *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def make_checkpoint(self, architecture: str) -> Path:
        """Once."""
        folder = self.checkpoint(architecture)
        if not (folder / "expected.json").exists():
            self.make([architecture])
        return folder

    def make_all(self, architecture: str) -> None:
        self.make_checkpoint(architecture)
        for type_name in ("f32", "f16"):
            self.gguf(architecture, type_name)


@pytest.fixture(scope="session")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """With nothing made yet."""
    python, converter = (
        os.environ.get(name, "") for name in ("TEST_REFERENCE_PYTHON", "TEST_CONVERTER")
    )
    if not python or not converter:
        pytest.skip("TEST_REFERENCE_PYTHON and TEST_CONVERTER are not set")
    if not VOCABULARIES.exists():
        pytest.skip("there are no shared vocabularies")
    kept = os.environ.get("TEST_TRUTH_CACHE")
    folder = Path(kept) / _version() if kept else tmp_path_factory.mktemp("truth")
    return Reference(folder, Path(python), Path(converter))


@pytest.fixture(scope="session")
def reference(maker: Reference) -> Reference:
    """With all architectures made."""
    with concurrent.futures.ThreadPoolExecutor(N_AT_ONCE) as pool:
        list(pool.map(maker.make_all, ARCHITECTURES))
    return maker


def _version() -> str:
    """Another for each change of what is computed."""
    return hashlib.sha256(REFERENCE.read_bytes() + TEXT.read_bytes()).hexdigest()[:16]
