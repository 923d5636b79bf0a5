"""The command ``tgi-llama convert``: a GGUF file of a model in safetensors, or of a LoRA adapter.

The file's path is all that goes to standard output; the log goes to standard error.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import attrs
import click

from tgi_llama.config import Config
from tgi_llama.errors import ConfigError
from tgi_llama.logs import set_up_logs
from tgi_llama.sub_command import CONTEXT, ServerOptions, call

from .checkpoint import ADAPTER_CONFIG, folder_version
from .conversion import ConversionKey, convert_adapter, convert_to
from .converter import Converter, find_converter, get_converter

_FOLDER = click.Path(path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)


RELEVANT = frozenset(
    {"quantize", "model_cache", "converter", "converter_python", "trust_remote_code"}
)
"""The server's options that count here, by the names of ``Config``'s fields."""

_HELP = (
    "Make a GGUF file of the model in FOLDER (config.json, safetensors, tokenizer), or of a LoRA"
    " adapter's folder, with llama.cpp's own converter. The file is kept in the model cache, where"
    " the server finds it, or written to --output; its path is printed."
)


@attrs.frozen(kw_only=True)
class Order:
    """What the command line asks for."""

    source: Path | None
    output: Path | None
    base: Path | None
    get_converter: bool
    config: Config
    """The server's options."""


def run(arguments: Sequence[str], *, program: str, options: ServerOptions) -> int:
    """Converts and prints the file's path; the exit status. ``options`` are those of ``RELEVANT``.
    Raises ConfigError and StartError."""
    order = parse(arguments, program=program, options=options)
    if order is None:
        return 0
    set_up_logs("info", json_output=False, stream=sys.stderr)
    if order.get_converter:
        click.echo(get_converter(order.config.model_cache))
    if order.source is not None:
        click.echo(_convert(order, order.source))
    elif not order.get_converter:
        raise ConfigError("give the folder of a model in safetensors (or --get-converter)")
    return 0


def parse(arguments: Sequence[str], *, program: str, options: ServerOptions) -> Order | None:
    """None where the arguments only asked for help, which is printed. Raises ConfigError."""

    def order(
        source: Path | None,
        output: Path | None,
        base: Path | None,
        get_converter: bool,
        **_: object,
    ) -> Order:
        return Order(
            source=source,
            output=output,
            base=base,
            get_converter=get_converter,
            config=options.configure(click.get_current_context()),
        )

    command = click.Command(
        program,
        params=[*_parameters(), *options.parameters],
        callback=order,
        help=_HELP,
        context_settings=CONTEXT,
    )
    found = call(command, arguments, program)
    return found if isinstance(found, Order) else None


def _parameters() -> list[click.Parameter]:
    folder = click.Path(path_type=Path)
    file = click.Path(dir_okay=False, path_type=Path)
    base = click.Path(exists=True, file_okay=False, path_type=Path)
    return [
        click.Argument(["source"], metavar="[FOLDER]", required=False, type=folder),
        click.Option(
            ["--output", "-o"], type=file, help="The file to write. It must not exist yet."
        ),
        click.Option(
            ["--base"],
            type=base,
            help="Folder with the config.json of an adapter's base model. [default: asks the hub]",
        ),
        click.Option(
            ["--get-converter"],
            is_flag=True,
            help="Put the converter into the model cache first, out of the source package of the"
            " installed llama-cpp-python, which pip downloads (70 MB).",
        ),
    ]


def _convert(order: Order, source: Path) -> Path:
    config = order.config
    converter = find_converter(
        config.converter,
        config.model_cache,
        python=config.converter_python,
        trust_remote_code=config.trust_remote_code,
    )
    if (source / ADAPTER_CONFIG).is_file():
        return _convert_adapter(order, source, converter)
    if not source.is_dir():
        raise ConfigError(
            f"there is no folder {str(source)!r} (`tgi-llama download` converts models of the hub)"
        )
    name = source.resolve().name
    key = ConversionKey(name, folder_version(source), config.quantize)
    target = _target(order, key.path(order.config.model_cache))
    convert_to(source, target, key=key, converter=converter)
    return target


def _convert_adapter(order: Order, source: Path, converter: Converter) -> Path:
    key = ConversionKey(source.resolve().name, folder_version(source), "f16")
    target = _target(order, key.path(order.config.model_cache))
    convert_adapter(source, target, base=order.base, converter=converter)
    return target


def _target(order: Order, in_cache: Path) -> Path:
    """An existing output is never overwritten: it may be what a server has mapped."""
    if order.output is None:
        return in_cache
    if order.output.exists():
        raise ConfigError(f"--output: the file {str(order.output)!r} exists already")
    return order.output
