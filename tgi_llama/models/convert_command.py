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
from tgi_llama.options.model_cache import model_cache
from tgi_llama.options.quantization import quantization

from .checkpoint import ADAPTER_CONFIG, folder_version
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
    order = _parse(arguments, program=program)
    if order is None:
        return 0
    set_up_logs("info", json_output=False, stream=sys.stderr)
    if order.get_converter:
        click.echo(get_converter(order.cache))
    if order.source is not None:
        click.echo(_convert(order, order.source))
    elif not order.get_converter:
        raise ConfigError("give the folder of a model in safetensors (or --get-converter)")
    return 0


def _parse(arguments: Sequence[str], *, program: str) -> _Order | None:
    """None where the arguments only asked for help, which is printed. Raises ConfigError."""
    try:
        order = _command.main(list(arguments), prog_name=program, standalone_mode=False)
    except click.ClickException as error:
        raise ConfigError(error.format_message()) from error
    return order if isinstance(order, _Order) else None


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
    context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
)
@click.argument("source", metavar="[FOLDER]", required=False, type=_FOLDER)
@click.option("--output", "-o", type=_FILE, help="The file to write. It must not exist yet.")
@click.option(
    "--quantize",
    metavar="<type>",
    default="q4_0",
    envvar="QUANTIZE",
    help="Type of the weights, of a model. [default: q4_0]",
)
@click.option(
    "--base",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with the config.json of an adapter's base model. [default: asks the hub]",
)
@click.option("--model-cache", "cache", type=_FOLDER, envvar="MODEL_CACHE")
@click.option(
    "--converter",
    type=click.Path(path_type=Path),
    envvar="CONVERTER",
    help="llama.cpp's convert_hf_to_gguf.py, or its folder.",
)
@click.option(
    "--converter-python",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="CONVERTER_PYTHON",
    help="The Python that runs it. [default: the one that runs this command]",
)
@click.option(
    "--trust-remote-code",
    is_flag=True,
    envvar="TRUST_REMOTE_CODE",
    help="Let the converter run Python code in FOLDER.",
)
@click.option(
    "--get-converter",
    is_flag=True,
    help="Put the converter into the model cache first, out of the source package of the installed"
    " llama-cpp-python, which pip downloads (70 MB).",
)
def _command(cache: Path | None, **given: object) -> _Order:
    return _Order(cache=model_cache(cache), **given)  # type: ignore[arg-type]  # click's values
