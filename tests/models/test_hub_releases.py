"""The same tests with another release of huggingface_hub than this environment has. The two differ
in the HTTP library, in what they raise, and in how they download."""

import os
import subprocess
import sysconfig
from pathlib import Path

import pytest

HERE = Path(__file__).parent

# An interpreter with that other release; `.ci/run` makes it.
OTHER_HUB = os.environ.get("TEST_HUB_PYTHON")

PROGRAM = """
import sys
sys.path.append(sys.argv[1])  # everything else is this environment's
import huggingface_hub, pytest
print("huggingface_hub", huggingface_hub.__version__, flush=True)
sys.exit(pytest.main(["-p", "no:cacheprovider", *sys.argv[2:]]))
"""


@pytest.mark.skipif(OTHER_HUB is None, reason="TEST_HUB_PYTHON names no interpreter")
def test_hub_of_the_other_release() -> None:
    import huggingface_hub

    files = [str(HERE / name) for name in ("test_hub.py", "test_transfer.py", "test_hub_model.py")]
    done = subprocess.run(
        [str(OTHER_HUB), "-c", PROGRAM, sysconfig.get_paths()["purelib"], *files],
        capture_output=True,
        text=True,
        check=False,
        cwd=HERE.parents[1],
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("huggingface_hub ")
    assert not done.stdout.startswith(f"huggingface_hub {huggingface_hub.__version__}\n")
