"""A model of the hub as files on this machine: only those that are needed."""

import fnmatch
import logging
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import attrs

from tgi_llama.config import Config
from tgi_llama.errors import ConfigError, StartError

from . import choice
from .hub import Hub
from .listing import Listing
from .source import HubModel

_log = logging.getLogger(__name__)

_SIDE_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
    "config.json",
    "generation_config.json",
)
"""What says how text becomes tokens and back: a few megabytes."""
_CONVERTER_FILES = ("*.json", "*.txt", "*.model", "tokenizer.model*", "*.tiktoken", "*.jinja")
"""What llama.cpp's converter may read beside the weights; at the top of the repository only."""
_CODE = "*.py"
_WEIGHTS = ("model*.safetensors", "*.safetensors")
"""The first that there are: some repositories hold a second copy of the weights."""


@attrs.frozen(kw_only=True)
class SideFiles:
    folder: Path
    commit: str


@attrs.frozen(kw_only=True)
class Found:
    gguf: Path
    folder: Path
    """With the side files."""
    commit: str


def fetch_model(config: Config, source: HubModel, checkpoint: Callable[[], None]) -> Found:
    """The GGUF file that ``--model-gguf`` or the quantization chooses, or the only one; or one that
    is made of safetensors. Raises ConfigError and StartError."""
    hub = Hub.from_environment(checkpoint=checkpoint)
    listing = hub.list_files(source.repo_id, config.revision)
    model = _chosen(config, source, listing)
    if model is None:
        return _converted(config, source, hub, listing)
    names = [*model.names, *_matching(listing, _SIDE_FILES)]
    folder = hub.fetch(source.repo_id, names, config.revision)
    return Found(gguf=folder / model.names[0], folder=folder, commit=listing.commit)


def fetch_side_files(
    config: Config, source: HubModel, checkpoint: Callable[[], None]
) -> SideFiles | None:
    """The tokenizer and the chat template of a model whose GGUF file is on this machine already.
    None, after a warning, where they cannot be had: the GGUF file has its own."""
    hub = Hub.from_environment(checkpoint=checkpoint, n_tries=1)
    try:
        listing = hub.list_files(source.repo_id, config.revision)
        names = _matching(listing, _SIDE_FILES)
        folder = hub.fetch(source.repo_id, names, config.revision)
        return SideFiles(folder=folder, commit=listing.commit)
    except (ConfigError, StartError) as error:
        _log.warning("%s; the tokenizer and the chat template of the GGUF file are used", error)
        return None


def _chosen(config: Config, source: HubModel, listing: Listing) -> choice.GgufModel | None:
    """None where there is no GGUF file and none was asked for."""
    where = repr(source.repo_id)
    if config.model_gguf is not None:
        if source.quantization is not None:
            raise ConfigError(
                f"--model-id: {source.repo_id}:{source.quantization} and --model-gguf both choose a"
                " file; give one of them"
            )
        return choice.by_pattern(listing.files, config.model_gguf, where)
    models = choice.gguf_models(listing.files)
    if source.quantization is not None:
        return choice.by_quantization(models, source.quantization, where)
    return choice.by_default(models, where) if models else None


def _converted(config: Config, source: HubModel, hub: Hub, listing: Listing) -> Found:
    from . import conversion, converter  # not at the top: most models are GGUF files

    side_files = _matching(listing, _SIDE_FILES)
    key = conversion.ConversionKey(source.repo_id, listing.commit, config.quantize)
    gguf = conversion.find_converted(key, config.model_cache)
    if gguf is not None:
        folder = hub.fetch(source.repo_id, side_files, config.revision)
        return Found(gguf=gguf, folder=folder, commit=listing.commit)
    names = [*side_files, *_checkpoint_files(config, source, listing)]
    # Whether it can be converted is known before gigabytes arrive.
    converter.find_converter(
        config.converter,
        config.model_cache,
        python=config.converter_python,
        trust_remote_code=config.trust_remote_code,
    )
    folder = hub.fetch(source.repo_id, names, config.revision)
    gguf = conversion.convert(
        folder,
        key,
        config.model_cache,
        config.converter,
        python=config.converter_python,
        trust_remote_code=config.trust_remote_code,
    )
    return Found(gguf=gguf, folder=folder, commit=listing.commit)


def _checkpoint_files(config: Config, source: HubModel, listing: Listing) -> list[str]:
    top = [name for name in sorted(listing.names) if "/" not in name]
    weights = next((found for each in _WEIGHTS if (found := fnmatch.filter(top, each))), [])
    if not weights or "config.json" not in top:
        cached = " in the cache" if listing.problem is not None else ""
        raise ConfigError(
            f"--model-id: {source.repo_id!r} has neither a GGUF file nor a config.json with"
            f" *.safetensors files that could be converted{cached}"
        )
    patterns = (*_CONVERTER_FILES, _CODE) if config.trust_remote_code else _CONVERTER_FILES
    return [*weights, *(name for name in top if _is_one_of(name, patterns))]


def _matching(listing: Listing, patterns: Sequence[str]) -> list[str]:
    return [name for name in sorted(listing.names) if _is_one_of(name, patterns)]


def _is_one_of(name: str, patterns: Sequence[str]) -> bool:
    """Path by path: a star stands for no slash."""
    path = PurePosixPath(name)
    return any(
        len(path.parts) == len(PurePosixPath(pattern).parts) and path.match(pattern)
        for pattern in patterns
    )
