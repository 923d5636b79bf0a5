"""``instructor``, which cannot be in one environment with the newest ``openai``."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("instructor_calls.py")

# `.ci/run` makes it.
INTERPRETER = os.environ.get("TEST_INSTRUCTOR_PYTHON") or (
    sys.executable if importlib.util.find_spec("instructor") else None
)


@pytest.mark.skipif(INTERPRETER is None, reason="TEST_INSTRUCTOR_PYTHON names no interpreter")
def test_instructor_gets_its_models_at_the_first_try(server_url: str) -> None:
    done = subprocess.run(
        [str(INTERPRETER), str(PROGRAM), server_url], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == re.findall(r"^def (check_\w+)", PROGRAM.read_text(), re.MULTILINE)
