"""The ``docker`` commands that documents print: Dockerfile_llamacpp has their build arguments, and
our command line takes what stands behind the image's name."""

import argparse
import re
import shlex
from collections.abc import Iterator
from types import ModuleType

import pytest
from clients.snippets import ROOT, blocks

from tgi_llama import cli
from tgi_llama.config import Config, options

_DOCUMENTS = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
_DEFAULTS = dict(
    re.findall(r"^ARG (\w+)=(.*)$", (ROOT / "Dockerfile_llamacpp").read_text(), re.MULTILINE)
)
_IMAGES = {"tgi-llamacpp", "tgi-llamacpp-cuda"}


def _commands(kind: str) -> list[str]:
    return sorted({command for document in _DOCUMENTS for command in _found(document, kind)})


def _found(document: str, kind: str) -> Iterator[str]:
    """Fenced ones, continued lines joined and variables of the block put in, and those in text."""
    for block in blocks(document):
        values = dict(re.findall(r"^(\w+)=(\S+)$", block.text, re.MULTILINE))
        for line in block.text.replace("\\\n", " ").splitlines():
            if line.strip().startswith(f"docker {kind} "):
                for name, value in values.items():
                    line = line.replace(f"${name}", value)
                yield line.strip()
    text = (ROOT / document).read_text(encoding="utf-8")
    yield from (each.replace("\n", " ") for each in re.findall(rf"`(docker {kind} [^`]+)`", text))


def _parser(kind: str) -> argparse.ArgumentParser:
    """Of the options that documents use; any other ends the test."""
    parser = argparse.ArgumentParser(prog="docker", allow_abbrev=False, exit_on_error=False)
    if kind == "build":
        parser.add_argument("-t", required=True, choices=_IMAGES)
        parser.add_argument("-f", required=True, choices=["Dockerfile_llamacpp"])
        parser.add_argument("--build-arg", action="append", default=[])
        parser.add_argument("context")
        return parser
    for name in ("-p", "-e", "-v"):
        parser.add_argument(name, action="append", default=[])
    parser.add_argument("--gpus", choices=["all"])
    parser.add_argument("image", choices=_IMAGES)
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    return parser


@pytest.mark.parametrize("command", _commands("build"))
def test_printed_build_has_arguments_that_the_image_can_be_built_with(
    command: str, llamacpp_build: ModuleType
) -> None:
    given = _parser("build").parse_args(shlex.split(command)[2:])
    assert given.context == "." or re.fullmatch(r"https://\S+\.git", given.context)
    arguments = dict(each.split("=", 1) for each in given.build_arg)
    assert arguments.keys() <= _DEFAULTS.keys()
    cmake = llamacpp_build.cmake_args({**_DEFAULTS, **arguments})
    assert ("-DGGML_CUDA=ON" in cmake) == (arguments.get("llamacpp_cuda") == "ON")
    assert (given.t == "tgi-llamacpp") or "-DGGML_CUDA=ON" in cmake


@pytest.mark.parametrize("command", _commands("run"))
def test_printed_run_has_options_that_the_server_takes(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = _parser("run").parse_args(shlex.split(command)[2:])
    known = {variable for option in options() for variable in option.variables} | {"HF_TOKEN"}
    assert {each.partition("=")[0] for each in given.e} <= known
    assert {each.rpartition(":")[0] and each.split(":")[1] for each in given.v} <= {"/models"}
    assert set(given.p) <= {"3000:3000"}
    for variable in known:
        monkeypatch.delenv(variable, raising=False)
    if given.arguments[-1:] == ["--help"]:
        assert cli.run(given.arguments, serve=_serve_nothing) == 0
    else:
        assert isinstance(cli.parse(given.arguments), Config)


def _serve_nothing(_config: Config) -> None:
    raise AssertionError("nothing is to be served")


def test_commands_of_the_page_are_among_them() -> None:
    """Of TGI's page, with our repository in the place of TGI's."""
    builds, runs = " ".join(_commands("build")), " ".join(_commands("run"))
    assert re.search(r"docker build +-t tgi-llamacpp +https://\S+\.git +-f Dockerfile_llam", builds)
    assert re.search(r"--build-arg llamacpp_cuda=ON +--build-arg cuda_arch=\S+", builds)
    assert re.search(
        r'docker run +-p 3000:3000 +-e HF_TOKEN +-v "?\$HOME/models:/models"? +tgi-llamacpp'
        r' +--model-id "Qwen/Qwen2.5-3B-Instruct"'
        r' +--model-gguf "/models/qwen2.5-3b-instruct-q4_0.gguf"',
        runs,
    )
    assert "--gpus all" in runs
