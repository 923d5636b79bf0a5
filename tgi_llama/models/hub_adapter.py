"""A LoRA adapter of the hub as a file on this machine."""

import fnmatch
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from tgi_llama.errors import ConfigError
from tgi_llama.options.lora import HubSource

from . import choice
from .choice import GgufModel
from .hub import MAIN, Hub
from .sizes import size_text

_MOST_LISTED = 30


def fetch_adapter(source: HubSource, place: str, *, checkpoint: Callable[[], None]) -> Path:
    """``fetch_from`` the hub that the environment names."""
    return fetch_from(Hub.from_environment(option=place, checkpoint=checkpoint), source)


def fetch_from(hub: Hub, source: HubSource) -> Path:
    """The GGUF file that the source names, or the only one. Blocks; raises ConfigError and
    StartError that begin with ``hub.option``, and what ``hub.checkpoint`` raises."""
    place = hub.option
    revision = source.revision or MAIN
    listing = hub.list_files(source.repo_id, revision)
    found = [one for one in choice.gguf_models(listing.files) if len(one.names) == 1]
    if not found and "adapter_config.json" in listing.names:
        raise ConfigError(
            f"{place}: {source.repo_id!r} holds an adapter of PEFT, and GGUF files are served;"
            f" download it (hf download {source.repo_id}) and make one with tgi-llama convert"
        )
    (name,) = _chosen(found, source, place).names
    return hub.fetch(source.repo_id, [name], revision) / name


def _chosen(found: Sequence[GgufModel], source: HubSource, place: str) -> GgufModel:
    matching = found if source.file is None else _matching(found, source.file)
    if len(matching) == 1:
        return matching[0]
    shown = matching or found
    names = [f"{one.names[0]} ({size_text(one.size)})" for one in shown[:_MOST_LISTED]]
    listed = f": {', '.join(names)}" if names else ""
    if matching:
        raise ConfigError(
            f"{place}: {source.repo_id!r} has several GGUF files{listed}; choose one with"
            f" {source.repo_id}:NAME"
        )
    wanted = "" if source.file is None else f" {source.file!r}"
    raise ConfigError(f"{place}: {source.repo_id!r} has no GGUF file{wanted}{listed}")


def _matching(found: Sequence[GgufModel], wanted: str) -> Sequence[GgufModel]:
    """Those that have this name, or else match it as a pattern or are of this quantization."""
    exact = [one for one in found if wanted in (one.names[0], PurePosixPath(one.names[0]).name)]
    lower = wanted.lower()
    return exact or [
        one
        for one in found
        if one.tag.lower() == lower or fnmatch.fnmatchcase(one.names[0].lower(), lower)
    ]
