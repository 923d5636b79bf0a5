"""What the commands beside serving share: how their arguments are read."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import click

from tgi_llama.config import Config
from tgi_llama.errors import ConfigError

CONTEXT = {"max_content_width": 100, "help_option_names": ["-h", "--help"]}
"""Of every command, as of the server's."""


@attrs.frozen
class ServerOptions:
    """Options of the server that a command has too: with the same variables, checks and help."""

    parameters: Sequence[click.Parameter]
    configure: Callable[[click.Context], Config]
    """The configuration of what was given to a command with these parameters, and with others of
    the same names. Raises ConfigError."""


def call(
    command: click.Command,
    arguments: Sequence[str],
    program: str,
    defaults: Mapping[str, object] | None = None,
) -> Any:
    """What the command's function returns; 0 where only help was asked for, which is printed.
    ``defaults`` are those that are known only now. Raises ConfigError for wrong arguments."""
    try:
        return command.main(
            list(arguments), prog_name=program, standalone_mode=False, default_map=defaults
        )
    except click.ClickException as error:
        raise ConfigError(error.format_message()) from error
