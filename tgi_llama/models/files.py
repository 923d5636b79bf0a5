"""Which files are served: from what the options name to paths on this machine.

Resolution order, as docs/models.md tells it:

1. ``--model-gguf`` names an existing file: that file. The tokenizer and the chat template come from
   ``--model-id``, a folder or a hub model, if they can be had.
2. Otherwise ``--model-gguf`` chooses among the GGUF files of ``--model-id``, by name or pattern.
3. Without ``--model-gguf``: the GGUF file of ``--model-id``, which ``owner/name:QUANTIZATION``
   chooses where there are several.
4. ``--model-id`` has no GGUF file, but safetensors: those are converted.
5. Neither option: the built-in model.

Everything here raises ConfigError with a line that names the option and the file, so that a wrong
path is answered before any library is loaded, and StartError where the network or the disk fails.
"""

import importlib.resources
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

from tgi_llama.config import Config
from tgi_llama.errors import ConfigError

from . import choice
from .header import check_model_file
from .listing import ListedFile
from .source import HubModel, LocalFolder, is_path, model_source

__all__ = ["ModelFiles", "check_model_file", "resolve_model"]

BUILTIN_MODEL_ID = "tgi_llama/builtin"

_log = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class ModelFiles:
    """The model to serve."""

    gguf: Path
    """Checked by ``check_model_file``. The first part of a split model, whose other parts are
    beside it."""
    tokenizer_folder: Path | None
    """Where tokenizer.json and the chat template may be; None: the GGUF's own are used."""
    model_id: str
    """The name to report to clients."""
    commit: str | None = None
    """Of the hub's repository that files are of."""


def resolve_model(config: Config, *, checkpoint: Callable[[], None] = lambda: None) -> ModelFiles:
    """Finds the files of the model that the options name, downloads and converts what is not there.

    Blocks, maybe for hours; for any thread. ``checkpoint`` is called often while a file arrives and
    may raise what is to end that.
    """
    source = model_source(config.model_id)
    if config.revision != "main" and not isinstance(source, HubModel):
        _log.warning("--revision has no effect: no model of the hub is named")
    gguf = config.model_gguf
    if gguf is not None and _is_local(gguf, source):
        return _given_file(config, Path(gguf), source, checkpoint)
    if isinstance(source, HubModel):
        from . import hub_model  # not at the top: huggingface_hub takes a while to import

        found = hub_model.fetch_model(config, source, checkpoint)
        files = _checked(found.gguf, found.folder, source.repo_id, option="--model-id")
        return attrs.evolve(files, commit=found.commit)
    if isinstance(source, LocalFolder):
        return _in_folder(config, source.path)
    if config.model_id is None:
        return _builtin_model()
    raise ConfigError(
        f"--model-id: {config.model_id!r} is neither a local folder nor the name of a model on the"
        " hub (owner/name)"
    )


def _is_local(gguf: str, source: LocalFolder | HubModel | None) -> bool:
    """Whether ``--model-gguf`` can be nothing but a path: nothing else is named that has files."""
    has_files = isinstance(source, LocalFolder) or (
        isinstance(source, HubModel) and source.has_owner
    )
    return os.path.exists(gguf) or is_path(gguf) or not has_files


def _checked(gguf: Path, folder: Path | None, model_id: str, *, option: str) -> ModelFiles:
    """With every part looked at."""
    split = choice.split_name(gguf.name)
    for name in split.parts if split else (gguf.name,):
        check_model_file(gguf.with_name(name), option=option)
    return ModelFiles(gguf=gguf, tokenizer_folder=folder, model_id=model_id)


# A file on this machine


def _given_file(
    config: Config,
    path: Path,
    source: LocalFolder | HubModel | None,
    checkpoint: Callable[[], None],
) -> ModelFiles:
    check_model_file(path)
    path = _first_part(path)
    model_id = config.model_id
    folder = source.path if isinstance(source, LocalFolder) else None
    commit = None
    if isinstance(source, HubModel):
        if source.quantization is not None:
            raise ConfigError(
                f"--model-id: {config.model_id!r} and --model-gguf both choose a file; leave out"
                f" {':' + source.quantization!r}"
            )
        if source.has_owner:  # others are names to report, as people write them
            from . import hub_model

            side_files = hub_model.fetch_side_files(config, source, checkpoint)
            if side_files is not None:
                folder, commit = side_files.folder, side_files.commit
    split = choice.split_name(path.name)
    stem = split.prefix if split else path.stem
    files = _checked(path, folder, model_id or stem, option="--model-gguf")
    return attrs.evolve(files, commit=commit)


def _first_part(path: Path) -> Path:
    """llama.cpp wants the first part of a split model. Raises ConfigError where one is missing."""
    split = choice.split_name(path.name)
    if split is None:
        return path
    present = [ListedFile(name, 0) for name in split.parts if os.path.exists(path.with_name(name))]
    model = choice.GgufModel(split.parts, present)
    model.check_complete(f"the folder {str(path.parent)!r}", option="--model-gguf")
    return path.with_name(split.part(1))


# A folder


def _in_folder(config: Config, folder: Path) -> ModelFiles:
    where = f"the folder {str(folder)!r}"
    model_id = config.model_id or folder.name
    files = _files_in(folder)
    if config.model_gguf is not None:
        model = choice.by_pattern(files, config.model_gguf, where)
        return _checked(folder / model.names[0], folder, model_id, option="--model-gguf")
    models = choice.gguf_models(files)
    if models:
        model = choice.by_default(models, where)
        return _checked(folder / model.names[0], folder, model_id, option="--model-id")
    if not any(file.name.endswith(".safetensors") for file in files):
        raise ConfigError(f"--model-id: there is no *.gguf or *.safetensors file in {where}")
    from . import checkpoint, conversion  # not at the top: most models are GGUF files

    version = checkpoint.folder_version(folder)
    key = conversion.ConversionKey(folder.resolve().name, version, config.quantize)
    gguf = conversion.convert(
        folder,
        key,
        config.model_cache,
        config.converter,
        python=config.converter_python,
        trust_remote_code=config.trust_remote_code,
    )
    return _checked(gguf, folder, model_id, option="--model-id")


def _files_in(folder: Path) -> Sequence[ListedFile]:
    """Those in the folder and in its folders, where repositories keep the parts of large models."""
    try:
        paths = sorted((*folder.glob("*"), *folder.glob("*/*.gguf")))
        return [
            ListedFile(path.relative_to(folder).as_posix(), path.stat().st_size)
            for path in paths
            if path.is_file()
        ]
    except OSError as error:
        raise ConfigError(
            f"--model-id: cannot read the folder {str(folder)!r}: {error.strerror}"
        ) from error


def _builtin_model() -> ModelFiles:
    folder = Path(str(importlib.resources.files("tgi_llama.builtin") / "model"))
    return _checked(folder / "model.gguf", folder, BUILTIN_MODEL_ID, option="built-in model")
