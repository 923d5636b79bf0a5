"""The command ``tgi-llama download``: fetches what a server would fetch, and nothing else.

The path to give to ``--model-gguf`` is all that goes to standard output; the log and the progress
go to standard error.
"""

import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType

import click

from tgi_llama.config import Config
from tgi_llama.logs import set_up_logs
from tgi_llama.sub_command import CONTEXT, ServerOptions, call

from .files import resolve_model

_STATUS_OF_SIGNAL = 128


RELEVANT = frozenset(
    {"revision", "quantize", "model_cache", "converter", "converter_python", "trust_remote_code"}
)
"""The server's options that count here, by the names of ``Config``'s fields."""

_HELP = (
    "Fetch MODEL, owner/name or owner/name:QUANTIZATION, from the Hugging Face hub into its cache:"
    " one GGUF file (or all its parts), the tokenizer and the chat template. A model in safetensors"
    " is converted as well, into the model cache. The file's path is printed. Fetching resumes"
    " where an earlier one was interrupted. HF_TOKEN, HF_HOME and HF_ENDPOINT are read as by other"
    " tools of the hub."
)


def run(arguments: Sequence[str], *, program: str, options: ServerOptions) -> int:
    """Fetches and prints the path; the exit status. ``options`` are those of ``RELEVANT``. Raises
    ConfigError and StartError."""
    config = parse(arguments, program=program, options=options)
    if config is not None:
        set_up_logs("info", json_output=False, stream=sys.stderr)
        with _ended_by_sigterm():
            files = resolve_model(config)
        click.echo(files.gguf)
    return 0


def parse(arguments: Sequence[str], *, program: str, options: ServerOptions) -> Config | None:
    """None where the arguments only asked for help, which is printed. Raises ConfigError."""
    model = click.Argument(["model_id"], metavar="MODEL")
    gguf = click.Option(
        ["--gguf", "model_gguf"],
        metavar="<name or pattern>",
        help="Which GGUF file of the repository, for example '*q4_k_m.gguf'.",
    )
    command = click.Command(
        program,
        params=[model, gguf, *options.parameters],
        callback=lambda **_: options.configure(click.get_current_context()),
        help=_HELP,
        context_settings=CONTEXT,
    )
    config = call(command, arguments, program)
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
