"""What the tests of the container image share."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

_SCRIPT = Path(__file__).parents[2] / "docker" / "llamacpp_build.py"


@pytest.fixture(scope="session")
def llamacpp_build() -> ModuleType:
    """``docker/llamacpp_build.py``, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("llamacpp_build", _SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
