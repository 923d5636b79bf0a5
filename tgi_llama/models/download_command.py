"""The command ``tgi-llama download``: fetches what a server would fetch, and nothing else.

The path to give to ``--model-gguf`` is all that goes to standard output; the log and the progress
go to standard error.
"""

import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

import click

from tgi_llama.config import Config
from tgi_llama.errors import ConfigError
from tgi_llama.logs import set_up_logs

from .files import resolve_model

_STATUS_OF_SIGNAL = 128


def run(arguments: Sequence[str], *, program: str) -> int:
    """Fetches and prints the path; the exit status. Raises ConfigError and StartError."""
    config = parse(arguments, program=program)
    if config is not None:
        set_up_logs("info", json_output=False, stream=sys.stderr)
        with _ended_by_sigterm():
            files = resolve_model(config)
        click.echo(files.gguf)
    return 0


def parse(arguments: Sequence[str], *, program: str) -> Config | None:
    """None where the arguments only asked for help, which is printed. Raises ConfigError."""
    try:
        config = _command.main(list(arguments), prog_name=program, standalone_mode=False)
    except click.ClickException as error:
        raise ConfigError(error.format_message()) from error
    return config if isinstance(config, Config) else None


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """The first process of a container gets signals only where it asks for them."""

    def end(number: int, _: FrameType | None) -> None:
        sys.exit(_STATUS_OF_SIGNAL + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@click.command(
    help="Fetch MODEL, owner/name or owner/name:QUANTIZATION, from the Hugging Face hub into its"
    " cache: one GGUF file (or all its parts), the tokenizer and the chat template. A model in"
    " safetensors is converted as well, into the model cache. The file's path is printed. Fetching"
    " resumes where an earlier one was interrupted. HF_TOKEN, HF_HOME and HF_ENDPOINT are read as"
    " by other tools of the hub.",
    context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
)
@click.argument("model_id", metavar="MODEL")
@click.option(
    "--gguf",
    "model_gguf",
    metavar="<name or pattern>",
    help="Which GGUF file of the repository, for example '*q4_k_m.gguf'.",
)
@click.option(
    "--revision",
    metavar="<revision>",
    default="main",
    help="Branch, tag or commit. [default: main]",
)
@click.option(
    "--quantize",
    metavar="<type>",
    default="q4_0",
    envvar="QUANTIZE",
    help="Type of the weights of what is converted. [default: q4_0]",
)
@click.option(
    "--model-cache",
    metavar="<folder>",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="MODEL_CACHE",
    help="Where it is kept. [default: tgi_llama/models in the user's cache folder]",
)
@click.option(
    "--converter",
    metavar="<folder or script>",
    type=click.Path(path_type=Path),
    envvar="CONVERTER",
    help="llama.cpp's convert_hf_to_gguf.py, or its folder.",
)
@click.option(
    "--converter-python",
    metavar="<program>",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="CONVERTER_PYTHON",
    help="The Python that runs it. [default: the one that runs this command]",
)
@click.option(
    "--trust-remote-code",
    is_flag=True,
    envvar="TRUST_REMOTE_CODE",
    help="Fetch Python code of the model and let the converter run it.",
)
def _command(**given: object) -> Config:
    return Config(**given)  # type: ignore[arg-type]  # click's values
