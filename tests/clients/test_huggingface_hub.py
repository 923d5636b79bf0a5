"""``huggingface_hub``'s InferenceClient and AsyncInferenceClient (contract 10.1)."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from clients import hub_calls

# After `[DONE]` it leaves the connection of an asynchronous stream open.
pytestmark = pytest.mark.filterwarnings("ignore:Deleting 'AsyncInferenceClient':UserWarning")

# An interpreter whose huggingface_hub is not the one of this environment: some clients of the test
# extra need one below 1. `.ci/run` makes it.
OTHER_HUB = os.environ.get("TEST_HUB_PYTHON")


@pytest.mark.parametrize("check", hub_calls.CHECKS.values(), ids=hub_calls.CHECKS)
def test_hub_client(check: Callable[[str], None], server_url: str) -> None:
    check(server_url)


@pytest.mark.skipif(OTHER_HUB is None, reason="TEST_HUB_PYTHON names no interpreter")
def test_hub_client_of_the_current_version(server_url: str) -> None:
    done = subprocess.run(
        [str(OTHER_HUB), str(Path(hub_calls.__file__)), server_url],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == list(hub_calls.CHECKS)
