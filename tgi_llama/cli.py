"""The command line and the environment: from texts to a ``Config``, and from failures to one line.

The options are made from the descriptions in ``config``. This module must stay quick to import:
whatever serves is imported only when there is something to serve.
"""

import contextlib
import importlib.metadata
import logging
import os
import platform
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import click
from click.core import ParameterSource

from tgi_llama import platforms
from tgi_llama.config import Config, options
from tgi_llama.config_option import ConfigOption
from tgi_llama.cpus import n_available_cpus
from tgi_llama.errors import ConfigError, StartError, TgiLlamaError
from tgi_llama.logs import set_up_logs
from tgi_llama.options.option import Group
from tgi_llama.sub_command import CONTEXT, ServerOptions

_PROGRAM = "tgi-llama"
_INTRODUCTION = (
    "Serve a GGUF model with the HTTP interface of Hugging Face's text-generation-inference and"
    " with OpenAI's. Without options, a small built-in demo model is served on port 3000."
)
_ENVIRONMENT_RULE = (
    "Options can also be set in the environment: --max-input-tokens is MAX_INPUT_TOKENS, a switch"
    " takes true or false, and the command line wins. An empty variable counts as unset. --hostname"
    " and the options that only show something are not read from it."
)
FIRST_PROCESS = Path("/proc/1/cmdline")
_EXIT_RUN_TIME, _EXIT_USAGE, _EXIT_INTERRUPTED = 1, 2, 130


def main() -> None:
    """The console script. Leaves with the exit status of ``run``."""
    sys.exit(run(sys.argv[1:], serve=_serve))


def run(arguments: Sequence[str], *, serve: Callable[[Config], None]) -> int:
    """Parses, sets up the logs, serves or measures; returns the exit status.

    0: served to the end, or printed what was asked. 2: an option, variable or file is wrong. 1: it
    shows only at run time that it does not work here. 130: interrupted. A failure is one line on
    standard error; only a defect of ours leaves a traceback.
    """
    status = 0
    try:
        if arguments and arguments[0] in _COMMANDS:
            command = _COMMANDS[arguments[0]]
            status = command.run(arguments[1:], f"{_PROGRAM} {arguments[0]}")
        elif (config := parse(arguments)) is not None:
            start_logging(config)
            serve(config)
    except* ConfigError as group:
        status = _report(group, status=_EXIT_USAGE)
    except* (TgiLlamaError, OSError) as group:
        status = _report(group, status=_EXIT_RUN_TIME)
    except* (KeyboardInterrupt, click.Abort):
        status = _EXIT_INTERRUPTED
    return status


def parse(arguments: Sequence[str]) -> Config | None:
    """The configuration of the command line over the environment. None where the arguments only
    asked for something to be printed, for example ``--help``, which is done. Raises ConfigError."""
    try:
        start = platforms.read(arguments, os.environ)
        _check_first_word(start.arguments)
        result = _command().main(
            list(start.arguments),
            prog_name=_PROGRAM,
            standalone_mode=False,
            **_context_of(start),
        )
    except click.ClickException as error:
        raise ConfigError(error.format_message()) from error
    return result if isinstance(result, Config) else None


def _check_first_word(arguments: Sequence[str]) -> None:
    """Raises ConfigError for a word in the place of a command, such as a model's."""
    if arguments and not arguments[0].startswith("-"):
        raise ConfigError(
            f"{arguments[0]!r} is none of the commands {', '.join(_COMMANDS)}; a model is named by"
            " --model-gguf or --model-id"
        )


def config_from_environment() -> Config:
    """The configuration of the environment alone, for a server that has a command line of its own
    such as ``hypercorn -k trio``. Raises ConfigError."""
    try:
        start = platforms.read((), os.environ)
        with _command().make_context(_PROGRAM, [], **_context_of(start)) as context:
            return _config_of(context)
    except click.ClickException as error:
        raise ConfigError(error.format_message()) from error


@contextlib.contextmanager
def native_library() -> Iterator[None]:
    """Around the import of what loads it: raises StartError where it does not load."""
    try:
        yield
    except (RuntimeError, OSError) as error:  # llama-cpp-python's
        hint = ""
        if re.search(r"libcuda|libamdhip|libvulkan", str(error)):
            hint = " (a build for GPUs needs their driver; in a container: --gpus all)"
        raise StartError(f"llama.cpp does not load: {error}{hint}") from error


@attrs.frozen
class _SubCommand:
    """What the first argument can be, instead of options of the server."""

    arguments: str
    help: str
    run: Callable[[Sequence[str], str], int]
    """From the arguments after it and the program's name to the exit status."""


def _bench(arguments: Sequence[str], program: str) -> int:
    from tgi_llama.bench import command  # not at the top: who serves needs none of it

    return command.run(arguments, program=program)


def _convert(arguments: Sequence[str], program: str) -> int:
    from tgi_llama.models import convert_command as command

    return command.run(arguments, program=program, options=server_options(command.RELEVANT))


def _download(arguments: Sequence[str], program: str) -> int:
    from tgi_llama.models import download_command as command

    return command.run(arguments, program=program, options=server_options(command.RELEVANT))


def _inspect(arguments: Sequence[str], program: str) -> int:
    with native_library():
        from tgi_llama.inspection import command

    return command.run(arguments, program=program, options=server_options(command.RELEVANT))


def _health(arguments: Sequence[str], program: str) -> int:
    from tgi_llama import health_check

    return health_check.run(arguments, program=program, address=_address_of_server())


_COMMANDS = {
    "bench": _SubCommand("URL", "Measure a server.", _bench),
    "download": _SubCommand("MODEL", "Fetch a model from the Hugging Face hub.", _download),
    "convert": _SubCommand("FOLDER", "Make a GGUF file of a model in safetensors.", _convert),
    "inspect": _SubCommand("FILE", "Show what a GGUF file is and takes.", _inspect),
    "health": _SubCommand("", "Ask a server whether it is healthy.", _health),
}


def _address_of_server() -> tuple[str | None, int | None]:
    """Hostname and port that this container's server was told; None where nothing was said.

    A server that is the first process of a container, or started by an init that is, has its
    options there for everybody to read, and whoever checks its health has its environment.
    """
    try:
        words = FIRST_PROCESS.read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        words = []
    start = platforms.read(_arguments_of_server(words), os.environ)
    arguments = list(start.arguments)
    with _command().make_context(
        _PROGRAM, arguments, resilient_parsing=True, **_context_of(start)
    ) as context:
        given = context.params
    return given["hostname"], given["port"]


def _arguments_of_server(words: Sequence[str]) -> Sequence[str]:
    """Those of ``tgi-llama`` or ``python -m tgi_llama`` among the words of a command line; none
    where it does something else."""
    for at, word in enumerate(words):
        if os.path.basename(word) in (_PROGRAM, __package__):
            arguments = words[at + 1 :]
            return () if arguments and arguments[0] in _COMMANDS else tuple(arguments)
    return ()


def _serve(config: Config) -> None:
    with native_library():
        from tgi_llama import lifecycle  # not at the top: it loads the native library
    lifecycle.run(config)


def server_options(names: Collection[str]) -> ServerOptions:
    """Those of these names, for a command that has them too; in the order of the server's."""
    chosen = [ConfigOption(option) for option in options() if option.name in names]
    return ServerOptions(chosen, _config_of)


def start_logging(config: Config) -> None:
    """Sets up the logs and warns of options that change nothing; for either way of starting."""
    set_up_logs(config.log_level, json_output=config.json_output)
    for warning in config.warnings():
        logging.getLogger(__name__).warning(warning)


def _report(group: BaseExceptionGroup[BaseException], *, status: int) -> int:
    """Writes one line about the first failure in the group and returns the status."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    message = " ".join(str(error).split()) or type(error).__name__
    click.echo(f"{_PROGRAM}: error: {message}", err=True)
    return status


def _context_of(start: platforms.Start) -> dict[str, Any]:
    """For click: what a cloud says stands behind the command line and the options' variables."""
    values = {name: told.value for name, told in start.told.items()}
    return {"default_map": values, "obj": start}


def _config_of(context: click.Context) -> Config:
    """Hands over what was given and nothing else: the defaults are ``Config``'s."""
    names = {option.name for option in options()}
    given = (
        ParameterSource.COMMANDLINE,
        ParameterSource.ENVIRONMENT,
        ParameterSource.DEFAULT_MAP,
    )
    return Config(
        **{
            name: value
            for name, value in context.params.items()
            if name in names and context.get_parameter_source(name) in given
        }
    )


def _config_of_current_context(**_: object) -> Config:
    return _config_of(click.get_current_context())


def _command() -> click.Command:
    return _GroupedCommand(
        _PROGRAM,
        params=[ConfigOption(option) for option in options()] + _printing_options(),
        callback=_config_of_current_context,
        help=_INTRODUCTION,
        epilog=_ENVIRONMENT_RULE,
        context_settings=CONTEXT,
    )


class _GroupedCommand(click.Command):
    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands, then the options under the headings of their groups, the others
        last."""
        with formatter.section(f"Commands, instead of serving ({_PROGRAM} COMMAND --help)"):
            formatter.write_dl(
                [(f"{name} {each.arguments}", each.help) for name, each in _COMMANDS.items()]
            )
        parameters = self.get_params(ctx)
        ours = [parameter for parameter in parameters if isinstance(parameter, ConfigOption)]
        for group in Group:
            members = [parameter for parameter in ours if parameter.option.group is group]
            _write_section(group.value, members, ctx, formatter)
        others = [parameter for parameter in parameters if parameter not in ours]
        _write_section("Information", others, ctx, formatter)


def _write_section(
    title: str,
    parameters: Iterable[click.Parameter],
    ctx: click.Context,
    formatter: click.HelpFormatter,
) -> None:
    records = [parameter.get_help_record(ctx) for parameter in parameters]
    with formatter.section(title):
        formatter.write_dl([record for record in records if record is not None])


def _printing_options() -> list[click.Parameter]:
    """Options that print something and end."""
    return [
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_print_and_exit(lambda: f"{_PROGRAM} {_version_of('tgi_llama')}"),
            help="Show the version and exit.",
        ),
        click.Option(
            ["--env", "-e"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_print_and_exit(_environment_information),
            help="Show what a bug report should say about this machine and exit.",
        ),
    ]


def _print_and_exit(
    text: Callable[[], str],
) -> Callable[[click.Context, click.Parameter, bool], None]:
    def callback(ctx: click.Context, _parameter: click.Parameter, is_given: bool) -> None:
        if is_given and not ctx.resilient_parsing:
            click.echo(text())
            ctx.exit()

    return callback


def _environment_information() -> str:
    """Versions and the machine; nothing from the environment itself, which may hold secrets."""
    return "\n".join(
        (
            f"{_PROGRAM}: {_version_of('tgi_llama')}",
            f"llama-cpp-python: {_version_of('llama-cpp-python')}",
            f"Python: {platform.python_version()}",
            f"Platform: {platform.platform()}",
            f"CPUs this process may use: {n_available_cpus()}",
        )
    )


def _version_of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
