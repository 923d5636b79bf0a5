"""The command ``tgi-llama convert``: a GGUF file of a model in safetensors, or of a LoRA adapter.

The file's path is all that goes to standard output; the log goes to standard error.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import attrs
import click

from tgi_llama.errors import ConfigError
from tgi_llama.logs import set_up_logs
from tgi_llama.options.model_cache import model_cache as default_model_cache
from tgi_llama.options.quantization import quantization

from .checkpoint import ADAPTER_CONFIG, folder_version
from .commands import CONTEXT, conversion_options, ended_by_sigterm, parsed
from .conversion import ConversionKey, convert_adapter, convert_to
from .converter import Converter, find_converter, get_converter

_FOLDER = click.Path(path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)


@attrs.frozen(kw_only=True)
class _Order:
    """What the command line asks for."""

    source: Path | None
    output: Path | None
    quantize: str
    base: Path | None
    cache: Path
    converter: Path | None
    converter_python: Path | None
    trust_remote_code: bool
    get_converter: bool


def run(arguments: Sequence[str], *, program: str) -> int:
    """Converts and prints the file's path; the exit status. Raises ConfigError and StartError."""
    order = parsed(_command, arguments, program=program, into=_Order)
    if order is None:
        return 0
    set_up_logs("info", json_output=False, stream=sys.stderr)
    with ended_by_sigterm():
        _carry_out(order)
    return 0


def _carry_out(order: _Order) -> None:
    if order.get_converter:
        click.echo(get_converter(order.cache))
    if order.source is not None:
        click.echo(_convert(order, order.source))
    elif not order.get_converter:
        raise ConfigError("give the folder of a model in safetensors (or --get-converter)")


def _convert(order: _Order, source: Path) -> Path:
    converter = find_converter(
        order.converter,
        order.cache,
        python=order.converter_python,
        trust_remote_code=order.trust_remote_code,
    )
    if (source / ADAPTER_CONFIG).is_file():
        return _convert_adapter(order, source, converter)
    if not source.is_dir():
        raise ConfigError(
            f"there is no folder {str(source)!r} (`tgi-llama download` converts models of the hub)"
        )
    name = source.resolve().name
    key = ConversionKey(name, folder_version(source), quantization(order.quantize))
    target = _target(order, key.path(order.cache))
    convert_to(source, target, key=key, converter=converter)
    return target


def _convert_adapter(order: _Order, source: Path, converter: Converter) -> Path:
    key = ConversionKey(source.resolve().name, folder_version(source), "f16")
    target = _target(order, key.path(order.cache))
    convert_adapter(source, target, base=order.base, converter=converter)
    return target


def _target(order: _Order, in_cache: Path) -> Path:
    """An existing output is never overwritten: it may be what a server has mapped."""
    if order.output is None:
        return in_cache
    if order.output.exists():
        raise ConfigError(f"--output: the file {str(order.output)!r} exists already")
    return order.output


@click.command(
    help="Make a GGUF file of the model in FOLDER (config.json, safetensors, tokenizer), or of a"
    " LoRA adapter's folder, with llama.cpp's own converter. The file is kept in the model cache,"
    " where the server finds it, or written to --output; its path is printed.",
    context_settings=CONTEXT,
)
@click.argument("source", metavar="[FOLDER]", required=False, type=_FOLDER)
@click.option("--output", "-o", type=_FILE, help="The file to write. It must not exist yet.")
@click.option(
    "--base",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with the config.json of an adapter's base model. [default: asks the hub]",
)
@conversion_options
@click.option(
    "--get-converter",
    is_flag=True,
    help="Put the converter into the model cache first, out of the source package of the installed"
    " llama-cpp-python, which pip downloads (77 MB).",
)
def _command(model_cache: Path | None, **given: object) -> _Order:
    return _Order(cache=default_model_cache(model_cache), **given)  # type: ignore[arg-type]  # click's values
