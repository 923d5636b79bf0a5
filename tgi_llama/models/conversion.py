"""From a model in safetensors to a GGUF file in the model cache.

llama.cpp's converter writes a GGUF file with the checkpoint's own precision, which llama.cpp then
quantizes. Both run in processes of their own, which end with ours, and both write in a hidden
folder of the cache: only a finished file gets its name.

The cache can be read by people: ``<owner>/<name>/<version>/<type>.gguf``. A file in it may be
removed, copied or served by hand at any time.
"""

import logging
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from tgi_llama.cpus import n_available_cpus
from tgi_llama.errors import ConfigError, StartError
from tgi_llama.options.quantization import PLAIN_TYPES, quantization

from .checkpoint import ADAPTER_CONFIG, Checkpoint, open_checkpoint
from .child import Child, ChildFailed
from .converter import Converter, find_converter
from .workspace import publish, workspace

_log = logging.getLogger(__name__)

_PACKAGE_ROOT = Path(__file__).parents[2]
_OFFLINE = {"HF_HUB_OFFLINE": "1"}
"""All that the converter reads is in the folder."""


@attrs.frozen
class ConversionKey:
    """Which conversion: two with the same key give the same file."""

    name: str
    """``owner/name``, or a local folder's name."""
    version: str
    """The hub's commit, or ``checkpoint.folder_version``."""
    quantize: str
    """As ``--quantize`` takes it."""

    def path(self, cache: Path) -> Path:
        """Where the file is, once it is made. Raises ConfigError for a type that cannot be."""
        parts = (*self.name.split("/"), self.version)
        folder = cache.joinpath(*(_as_folder_name(part) for part in parts))
        return folder / f"{quantization(self.quantize)}.gguf"


def find_converted(key: ConversionKey, cache: Path) -> Path | None:
    """The file, where an earlier conversion made it. Raises ConfigError."""
    path = key.path(cache)
    return path if path.is_file() else None


def convert(
    source: Path,
    key: ConversionKey,
    cache: Path,
    converter: Path | None,
    *,
    python: Path | None = None,
    trust_remote_code: bool = False,
) -> Path:
    """The file in the cache, made now where it is not there yet. Blocks for seconds to many
    minutes, on any thread; the log shows the progress.

    The last three are as ``converter.find_converter`` takes them. Raises ConfigError and
    StartError, after which no file is left.
    """
    target = key.path(cache)
    if not target.is_file():
        found = find_converter(converter, cache, python=python, trust_remote_code=trust_remote_code)
        convert_to(source, target, key=key, converter=found)
    return target


def prepare(
    key: ConversionKey,
    cache: Path,
    converter: Path | None,
    *,
    python: Path | None,
    trust_remote_code: bool,
) -> Converter:
    """The converter, with all that can be known to be wrong before gigabytes arrive: no converter,
    no packages for it, a cache that cannot be written. Raises ConfigError and StartError."""
    found = find_converter(converter, cache, python=python, trust_remote_code=trust_remote_code)
    found.check_packages()
    with workspace(key.path(cache)):
        return found


def convert_to(source: Path, target: Path, *, key: ConversionKey, converter: Converter) -> None:
    """Makes ``target``, or waits for another process that does and has it then. Raises as
    ``convert``."""
    checkpoint = open_checkpoint(source)
    with workspace(target) as place:
        if target.is_file():
            return
        start = time.monotonic()
        type_name = quantization(key.quantize)
        _check_space(checkpoint, place, type_name)
        converted = place / "converted.gguf"
        name = key.name.rpartition("/")[2]
        options: list[str | Path] = [
            "--outtype",
            _outtype(checkpoint, type_name),
            "--model-name",
            name,
        ]
        if not converter.trust_remote_code:
            source = _without_code(source, place / "source")
        program = [converter.script, "--outfile", converted, *options, source]
        what = f"converting {checkpoint.folder}"
        _run_converter(converter, program, what=what)
        if not converted.is_file():
            raise StartError(f"{what}: {converter.python} ended well and wrote no file")
        if type_name not in PLAIN_TYPES:
            converted = _quantized(converted, place / "quantized.gguf", type_name)
        publish(converted, target)
    seconds = time.monotonic() - start
    size = target.stat().st_size
    _log.info("made %s (%s) in %.0f s", target, _amount(size), seconds)


def convert_adapter(source: Path, target: Path, *, base: Path | None, converter: Converter) -> None:
    """Makes a GGUF file of a LoRA adapter in PEFT's format, in half precision. ``base`` is a folder
    with the base model's config.json; without it the converter asks the hub for what the adapter
    names. Raises as ``convert``."""
    if not (source / ADAPTER_CONFIG).is_file():
        raise ConfigError(f"there is no {ADAPTER_CONFIG} in the folder {str(source)!r}")
    with workspace(target) as place:
        converted = place / "converted.gguf"
        options: list[str | Path] = ["--outtype", "f16"]
        if base is not None:
            options += ["--base", base]
        program = [converter.lora_script, "--outfile", converted, *options, source]
        environment = _OFFLINE if base else {}
        _run_converter(converter, program, what=f"converting {source}", environment=environment)
        publish(converted, target)


def _outtype(checkpoint: Checkpoint, type_name: str) -> str:
    """What the converter writes. What is quantized afterwards keeps the checkpoint's precision
    until then, so that nothing is rounded twice: ``auto`` is bf16 or f16, as the checkpoint is."""
    if type_name in PLAIN_TYPES:
        return type_name
    return "f32" if checkpoint.is_float32 else "auto"


def _without_code(source: Path, view: Path) -> Path:
    """The same folder without Python files. For some architectures the converter has transformers
    run the code of a tokenizer, and a name on the command line is no consent to that."""
    view.mkdir()
    for path in source.iterdir():
        if path.suffix != ".py":
            (view / path.name).symlink_to(path.resolve())
    return view


def _run_converter(
    converter: Converter,
    program: Sequence[str | Path],
    *,
    what: str,
    environment: Mapping[str, str] = _OFFLINE,
) -> None:
    _log.info(what)
    try:
        Child(what=what, python=converter.python, program=program, environment=environment).run()
    except ChildFailed as error:
        if missing := re.search(r"ModuleNotFoundError: (No module named '.+')", error.reason):
            raise converter.without(missing[1]) from error
        raise


def _quantized(source: Path, target: Path, type_name: str) -> Path:
    arguments = [str(source), str(target), type_name, str(n_available_cpus())]
    quantizer = Child(
        what=f"quantizing to {type_name}",
        python=Path(sys.executable),
        program=["-m", "tgi_llama.llama.quantize", *arguments],
        environment={"PYTHONPATH": str(_PACKAGE_ROOT)},
    )
    try:
        quantizer.run()
    except ChildFailed as error:
        if "iostream error" in error.reason:  # all that C++ says of a failed write
            free = _amount(shutil.disk_usage(target.parent).free)
            raise StartError(
                f"{quantizer.what}: cannot write to {target.parent.parent}, whose disk has {free}"
                " left"
            ) from error
        raise
    source.unlink()
    return target


def _check_space(checkpoint: Checkpoint, place: Path, type_name: str) -> None:
    """StartError where the disk has no room, before the work is done."""
    n = checkpoint.n_parameters
    needed = n * _bits(type_name) // 8
    if type_name not in PLAIN_TYPES:
        needed += n * (4 if checkpoint.is_float32 else 2)
    free = shutil.disk_usage(place).free
    if free < needed:
        raise StartError(
            f"not enough room to convert {checkpoint.folder}: {place.parent} has {_amount(free)}"
            f" left, and about {_amount(needed)} are needed. --model-cache names another folder"
        )


def _bits(type_name: str) -> int:
    """Of a weight, on average, rounded up: a file has scales, and some tensors in better types."""
    found = re.search(r"\d+", type_name)
    assert found is not None
    return int(found[0]) + (0 if type_name in PLAIN_TYPES else 2)


def _as_folder_name(part: str) -> str:
    """The part of a name as one folder's. ConfigError for what would lead out of the cache."""
    if part in ("", ".", "..") or "/" in part or "\0" in part:
        raise ConfigError(f"a model cannot be named with {part!r}")
    return part


def _amount(n_bytes: int) -> str:
    if n_bytes < 10**8:
        return f"{n_bytes / 10**6:.1f} MB"
    return f"{n_bytes / 10**9:.1f} GB"
