import os
from pathlib import Path

import pytest

import tgi_llama.builtin


@pytest.fixture
def environment() -> dict[str, str]:
    """This process's environment without what would configure the server."""
    kept = ("PATH", "HOME", "LANG", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "PYTHONPATH")
    # One thread: with more, a tiny model spends its time waiting where something else runs too.
    return {"N_THREADS": "1"} | {name: os.environ[name] for name in kept if name in os.environ}


@pytest.fixture
def cut_model(tmp_path: Path) -> str:
    """A copy of the built-in model without its end."""
    whole = Path(tgi_llama.builtin.__file__).parent / "model" / "model.gguf"
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole.read_bytes()[:-100_000])
    return str(cut)
