"""The command ``tgi-llama download``: fetches what a server would fetch, and nothing else.

The path to give to ``--model-gguf`` is all that goes to standard output; the log and the progress
go to standard error.
"""

import sys
from collections.abc import Sequence

import click

from tgi_llama.config import Config
from tgi_llama.logs import set_up_logs

from .commands import CONTEXT, conversion_options, ended_by_sigterm, parsed
from .files import resolve_model


def run(arguments: Sequence[str], *, program: str) -> int:
    """Fetches and prints the path; the exit status. Raises ConfigError and StartError."""
    config = parse(arguments, program=program)
    if config is not None:
        set_up_logs("info", json_output=False, stream=sys.stderr)
        with ended_by_sigterm():
            files = resolve_model(config)
        click.echo(files.gguf)
    return 0


def parse(arguments: Sequence[str], *, program: str) -> Config | None:
    """None where the arguments only asked for help, which is printed. Raises ConfigError."""
    return parsed(_command, arguments, program=program, into=Config)


@click.command(
    help="Fetch MODEL, owner/name or owner/name:QUANTIZATION, from the Hugging Face hub into its"
    " cache: one GGUF file (or all its parts), the tokenizer and the chat template. A model in"
    " safetensors is converted as well, into the model cache. The file's path is printed. Fetching"
    " resumes where an earlier one was interrupted. HF_TOKEN, HF_HOME and HF_ENDPOINT are read as"
    " by other tools of the hub.",
    context_settings=CONTEXT,
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
@conversion_options
def _command(**given: object) -> Config:
    return Config(**given)  # type: ignore[arg-type]  # click's values
