"""LoRA adapters: which to serve, where further ones may come from, and how both are written.

An entry of ``--lora-adapters`` is ``[name=]source[:scale]``. The source is a file or folder, or an
adapter on the hub: ``owner/repo[:file][@revision]``. Names with ``=`` and revisions with ``@`` are
TGI's spelling (``LORA_ADAPTERS``) and vLLM's (``--lora-modules``), the scale after a colon is
llama-server's (``--lora-scaled``).
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

import attrs

from tgi_llama.errors import ConfigError

from .option import Group, described

OPTION = "--lora-adapters"

_NAME = re.compile(r"[^\s=,]{1,200}")
NAME_RULE = "1 to 200 characters that can be seen, without spaces, commas and equals signs"
"""What ``is_name`` asks for, in words."""

_MOST_SCALE = 3.4e38
"""About the largest 32-bit number."""

_RESERVED = "tgi"
"""What TGI's clients call whatever model answers."""

_SCALED = re.compile(r"(?P<source>.+):(?P<scale>[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?)", re.I)
_HUB = re.compile(
    r"(?P<repo>[\w.-]+/[\w.-]+)(?::(?P<file>[^:@]+))?(?:@(?P<revision>[^:@]+))?", re.ASCII
)


@attrs.frozen(kw_only=True)
class HubSource:
    """An adapter on the hub."""

    repo_id: str
    file: str | None
    """A file's name or pattern; None where the repository has only one GGUF file."""
    revision: str | None


@attrs.frozen(kw_only=True)
class AdapterEntry:
    """One entry of ``--lora-adapters``."""

    text: str
    """As it was written."""
    name: str
    source: str
    scale: float = 1.0


def parse_entry(text: str) -> AdapterEntry:
    """Raises ConfigError naming option and entry. Looks at the file system only to tell a path from
    a name on the hub."""
    name, equals, rest = text.partition("=")
    source = rest if equals else text
    scaled = None if os.path.exists(source) else _SCALED.fullmatch(source)
    scale = 1.0
    if scaled is not None:
        source, scale = scaled["source"], float(scaled["scale"])
    if not source or (equals and not name):
        raise ConfigError(f"{OPTION}: expected name=file, got {text!r}")
    if not is_scale(scale):
        raise ConfigError(f"{OPTION}: the scale must be a finite 32-bit number, got {text!r}")
    name = name if equals else _name_of(source)
    if not is_name(name):
        raise ConfigError(
            f"{OPTION}: a name must have {NAME_RULE}, and not be {_RESERVED}: {text!r}"
        )
    return AdapterEntry(text=text, name=name, source=source, scale=scale)


def is_name(name: str) -> bool:
    """Whether an adapter may be called so. A name is shown in logs, metrics and messages, so it has
    nothing that would not be seen there, or that would change what is seen around it."""
    return _NAME.fullmatch(name) is not None and name.isprintable() and name != _RESERVED


def is_scale(scale: float) -> bool:
    """Whether llama.cpp can apply an adapter so many times: it takes a 32-bit number."""
    return abs(scale) <= _MOST_SCALE  # false of NaN, too


def hub_source(source: str) -> HubSource | None:
    """What the source means on the hub; None where it is a path: it is there, or looks like one."""
    found = _HUB.fullmatch(source)
    if found is None or os.path.exists(source) or source.startswith(("./", "../")):
        return None
    if found["file"] is None and source.lower().endswith(".gguf"):
        return None
    return HubSource(repo_id=found["repo"], file=found["file"], revision=found["revision"])


def _name_of(source: str) -> str:
    """TGI's name of an adapter that was given none is the repository's; a file's is its own."""
    on_hub = hub_source(source)
    if on_hub is not None:
        return on_hub.repo_id
    path = Path(source)
    return path.stem if path.suffix.lower() == ".gguf" else path.name


def _split(given: Iterable[str]) -> tuple[str, ...]:
    """One text for each entry. Raises ConfigError for one that is wrong, or two of one name."""
    texts = [text.strip() for one in given for text in one.split(",")]
    entries = [parse_entry(text) for text in texts if text]
    by_name: dict[str, AdapterEntry] = {}
    for entry in entries:
        other = by_name.setdefault(entry.name, entry)
        if other is not entry:
            raise ConfigError(
                f"{OPTION}: two adapters have the name {entry.name!r}: {other.text!r} and"
                f" {entry.text!r}"
            )
    return tuple(by_name[name].text for name in by_name)


def _folders(given: tuple[str, ...]) -> tuple[str, ...]:
    for folder in given:
        if not os.path.isdir(folder):
            raise ConfigError(f"--lora-adapter-folder: there is no folder {folder!r}")
    return given


@attrs.frozen(kw_only=True, slots=False)  # a class can have one base with slots
class LoraOptions:
    """Part of ``config.Config``."""

    lora_adapters: tuple[str, ...] = described(
        (),
        group=Group.ADAPTERS,
        unit="name=file",
        help="LoRA adapters to serve beside the model: name=file, or name=owner/repo[:file] of a"
        " hub; several with commas, or by repeating the option. file:0.5 scales an adapter.",
        resolve=lambda given, _: _split(given),
    )
    lora_adapter_folder: tuple[str, ...] = described(
        (),
        group=Group.ADAPTERS,
        unit="folder",
        help="Let adapters be loaded at run time from this folder, by holders of an"
        " --admin-api-key. Repeat it for several.",
        resolve=lambda given, _: _folders(given),
    )
