"""Writes docker/constraints.txt anew: the newest versions that the dependencies allow together."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_FILE = _ROOT / "docker" / "constraints.txt"


def main() -> None:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"]
    command += ["--ignore-installed", "--report=-", *project["dependencies"]]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    found = {
        each["metadata"]["name"].lower().replace("_", "-"): each["metadata"]["version"]
        for each in report["install"]
    }
    comments = [line for line in _FILE.read_text().splitlines() if line.startswith("#")]
    lines = [*comments, *(f"{name}=={version}" for name, version in sorted(found.items()))]
    _FILE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
