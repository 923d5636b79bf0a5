"""What the commands ``download`` and ``convert`` have in common."""

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TypeVar

import click

from tgi_llama.errors import ConfigError

T = TypeVar("T")
Function = Callable[..., object]

_STATUS_OF_SIGNAL = 128

CONTEXT = {"max_content_width": 100, "help_option_names": ["-h", "--help"]}


def parsed(
    command: click.Command, arguments: Sequence[str], *, program: str, into: type[T]
) -> T | None:
    """What the command makes of its arguments. None where they only asked for help, which is
    printed. Raises ConfigError."""
    try:
        found = command.main(list(arguments), prog_name=program, standalone_mode=False)
    except click.ClickException as error:
        raise ConfigError(error.format_message()) from error
    return found if isinstance(found, into) else None


@contextlib.contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends what is inside in order, so that nothing half done is left behind. The first
    process of a container gets signals only where it asks for them."""

    def end(number: int, _: FrameType | None) -> None:
        sys.exit(_STATUS_OF_SIGNAL + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


_OPTIONS = (
    click.option(
        "--quantize",
        metavar="<type>",
        default="q4_0",
        envvar="QUANTIZE",
        help="Type of the weights of a model that is converted. [default: q4_0]",
    ),
    click.option(
        "--model-cache",
        metavar="<folder>",
        type=click.Path(file_okay=False, path_type=Path),
        envvar="MODEL_CACHE",
        help="Where it is kept. [default: tgi_llama/models in the user's cache folder]",
    ),
    click.option(
        "--converter",
        metavar="<folder or script>",
        type=click.Path(path_type=Path),
        envvar="CONVERTER",
        help="llama.cpp's convert_hf_to_gguf.py, or its folder.",
    ),
    click.option(
        "--converter-python",
        metavar="<program>",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        envvar="CONVERTER_PYTHON",
        help="The Python that runs it. [default: the one that runs this command]",
    ),
    click.option(
        "--trust-remote-code",
        is_flag=True,
        envvar="TRUST_REMOTE_CODE",
        help="Let the converter run Python code that comes with the model.",
    ),
)


def conversion_options(function: Function) -> Function:
    """Decorates a click command with the options of a conversion."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
