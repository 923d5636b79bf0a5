"""How the container image builds llama.cpp: from build arguments to CMake's.

``Dockerfile_llamacpp`` runs this with the build arguments in the environment and puts what it
prints into ``CMAKE_ARGS``. A wrong argument ends the build here, before anything is compiled.
"""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence

LLAMA_CPP_COMMITS = {"0.3.36": "0c1e57098"}
"""From releases of llama-cpp-python that this release works with to llama.cpp's commits in them."""

CPU_LEVELS: Mapping[str, frozenset[str]] = {
    "x86-64-v2": frozenset({"SSE42"}),
    "x86-64-v3": frozenset({"SSE42", "AVX", "AVX2", "BMI2", "FMA", "F16C"}),
    "x86-64-v4": frozenset({"SSE42", "AVX", "AVX2", "BMI2", "FMA", "F16C", "AVX512"}),
}
"""Which of ggml's instruction sets each level of the x86-64 psABI has."""

_ALL_SETS = sorted(CPU_LEVELS["x86-64-v4"])
_SWITCHES = ("ON", "OFF")


class BuildArgumentError(Exception):
    """A build argument that this release cannot be built with."""


def cmake_args(arguments: Mapping[str, str]) -> list[str]:
    """CMake's arguments for the build arguments. Raises BuildArgumentError."""
    _check_version(arguments["llamacpp_version"])
    is_cuda = _switch(arguments, "llamacpp_cuda")
    return [
        *_cpu_args(arguments),
        *(_cuda_args(arguments["cuda_arch"]) if is_cuda == "ON" else ()),
        f"-DGGML_RPC={_switch(arguments, 'llamacpp_rpc')}",
        *shlex.split(arguments.get("llamacpp_cmake_args", "")),
    ]


def _check_version(version: str) -> None:
    if version not in LLAMA_CPP_COMMITS:
        raise BuildArgumentError(
            f"llamacpp_version={version}: this release of tgi_llama works with llama-cpp-python"
            f" {', '.join(LLAMA_CPP_COMMITS)} only, whose native structs it fills in; build another"
            " release of tgi_llama for it"
        )


def _switch(arguments: Mapping[str, str], name: str) -> str:
    value = arguments[name].upper()
    if value not in _SWITCHES:
        raise BuildArgumentError(f"{name}={arguments[name]}: expected ON or OFF")
    return value


def _cpu_args(arguments: Mapping[str, str]) -> list[str]:
    """A level, this machine's own instructions, or what llama.cpp takes for any machine."""
    level = arguments.get("llamacpp_cpu", "")
    native = _switch(arguments, "llamacpp_native")
    if not level:
        return [f"-DGGML_NATIVE={native}"]
    if level not in CPU_LEVELS:
        raise BuildArgumentError(f"llamacpp_cpu={level}: expected {', '.join(CPU_LEVELS)}")
    sets = CPU_LEVELS[level]
    switches = [f"-DGGML_{name}={'ON' if name in sets else 'OFF'}" for name in _ALL_SETS]
    return ["-DGGML_NATIVE=OFF", *switches]


def _cuda_args(architectures: str) -> list[str]:
    """The driver's library is on no build machine: what links to it stays open until run time.
    NCCL, which would have to be in the image, is for a way to split that the server does not have
    (llama.cpp's ``tensor``)."""
    return [
        "-DGGML_CUDA=ON",
        "-DGGML_CUDA_NCCL=OFF",
        f"-DCMAKE_CUDA_ARCHITECTURES={architectures}",
        "-DCMAKE_EXE_LINKER_FLAGS=-Wl,--allow-shlib-undefined",
    ]


def main(words: Sequence[str]) -> int:
    """Prints what CMAKE_ARGS is to be, for the build arguments in the environment. With
    ``--check-version`` it only looks at the version, before that is downloaded."""
    given: Mapping[str, str] = os.environ
    try:
        if list(words) == ["--check-version"]:
            _check_version(given["llamacpp_version"])
            return 0
        arguments = cmake_args(given)
    except BuildArgumentError as error:
        sys.stderr.write(f"Dockerfile_llamacpp: {error}\n")
        return 1
    sys.stdout.write(shlex.join(arguments) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
