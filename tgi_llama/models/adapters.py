"""Where LoRA adapters come from: files, folders and the hub; at the start and at run time.

What is found is a GGUF file by its first bytes; whether it is an adapter of the model is for
llama.cpp to say.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import attrs

from tgi_llama.config import Config
from tgi_llama.errors import ConfigError, Forbidden
from tgi_llama.options.lora import OPTION, AdapterEntry, HubSource, hub_source, parse_entry

from .header import check_model_file
from .source import importing_the_hub

Fetch = Callable[[HubSource, str], Path]
"""From an adapter on the hub, and what to call it in a message, to its file here. Blocks; raises
ConfigError and StartError."""

_BLOCK = 2**20
_MOST_BLOCKS = 2048
"""A file that is larger is hardly an adapter, and would push the model out of memory."""

_FIELD = "`lora_path`"

_PEFT_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")


@attrs.frozen(kw_only=True)
class AdapterFile:
    """A GGUF file to load as an adapter."""

    name: str
    path: Path
    scale: float = 1.0
    root: str
    """What to tell clients of where it came from: the hub's name, or the file's without its
    folder."""
    place: str
    """What to begin a message about it with: the option and the entry, or the request's field."""


@attrs.frozen(kw_only=True)
class AdapterSources:
    """Where adapters may come from. Its methods block, on any thread."""

    entries: tuple[str, ...] = ()
    """``--lora-adapters``."""
    folders: tuple[str, ...] = ()
    """``--lora-adapter-folder``."""
    fetch: Fetch

    @classmethod
    def of(cls, config: Config, fetch: Fetch) -> Self:
        return cls(entries=config.lora_adapters, folders=config.lora_adapter_folder, fetch=fetch)

    def first(self) -> tuple[AdapterFile, ...]:
        """What to load at the start. Raises ConfigError, and what ``fetch`` raises."""
        return tuple(self._first(parse_entry(text)) for text in self.entries)

    def find(self, name: str, source: str, *, scale: float) -> AdapterFile:
        """What to load at run time, where the one who asks may have any file of the folders, any
        adapter of the hub, and what the server was started with. Raises Forbidden for everything
        else, ConfigError, and what ``fetch`` raises."""
        file = self._find(AdapterEntry(text=source, name=name, source=source, scale=scale))
        _read_ahead(file.path)
        return file

    def _find(self, entry: AdapterEntry) -> AdapterFile:
        source = entry.source
        if hub_source(source) is not None or source in self._named():
            return self._file(entry, _FIELD)
        place = path = self._allowed(source, source)
        if os.path.isdir(place):  # its only file may be a link that leads elsewhere
            path = self._allowed(str(_only_gguf(Path(place), place=_FIELD)), source)
        file = self._file(attrs.evolve(entry, source=path), _FIELD)
        return attrs.evolve(file, root=_shown(place))

    def _allowed(self, path: str, given: str) -> str:
        """Where the path leads. Raises Forbidden where that is in none of the folders."""
        found = path_within(self.folders, path)
        if found is None:
            raise Forbidden(
                f"{_FIELD} must be in a folder that --lora-adapter-folder names, an adapter on the"
                f" hub, or what --lora-adapters said. Given: {given[:200]!r}"
            )
        return found

    def _first(self, entry: AdapterEntry) -> AdapterFile:
        return self._file(entry, f"{OPTION} {entry.text}")

    def _named(self) -> set[str]:
        return {parse_entry(text).source for text in self.entries}

    def _file(self, entry: AdapterEntry, place: str) -> AdapterFile:
        return AdapterFile(
            name=entry.name,
            path=find_adapter(entry.source, place=place, fetch=self.fetch),
            scale=entry.scale,
            root=_shown(entry.source),
            place=place,
        )


def find_adapter(source: str, *, place: str, fetch: Fetch) -> Path:
    """The GGUF file of one source. Blocks; raises ConfigError with a line that begins with
    ``place``, and what ``fetch`` raises."""
    on_hub = hub_source(source)
    path = Path(source).expanduser() if on_hub is None else fetch(on_hub, place)
    if os.path.isdir(path):  # false of a path that is too long, where ``Path`` raises
        path = _only_gguf(path, place=place)
    if path.name in _PEFT_FILES or path.suffix == ".safetensors":
        raise ConfigError(_is_peft(path.parent, place=place))
    check_model_file(path, option=place)
    return path


def fetch_from_hub(source: HubSource, place: str, *, checkpoint: Callable[[], None]) -> Path:
    """A ``Fetch``. ``checkpoint`` is called often while a file arrives and may raise what is to end
    that."""
    with importing_the_hub():
        from . import hub_adapter  # not at the top: huggingface_hub takes a while to import

    return hub_adapter.fetch_adapter(source, place, checkpoint=checkpoint)


def _shown(source: str) -> str:
    """``AdapterFile.root``."""
    on_hub = hub_source(source)
    return os.path.basename(source.rstrip("/")) if on_hub is None else on_hub.repo_id


def path_within(folders: Sequence[str], given: str) -> str | None:
    """The path that ``given`` names, where it leads into one of the folders; relative paths start
    there. None for any other, whether there is something or not: nobody is to learn from the answer
    what this machine has elsewhere. Symbolic links count as what they lead to."""
    inside = []
    for folder in folders:
        root = os.path.realpath(folder)
        try:
            path = os.path.realpath(os.path.join(root, given))
        except ValueError:  # no file can have such a name
            return None
        if path.startswith(root.rstrip("/") + "/"):
            inside.append(path)
    there = (path for path in inside if os.path.exists(path))
    return next(there, inside[0] if inside else None)


def _read_ahead(path: Path) -> None:
    """Has the system read the file into memory, where it stays for a while. Streams pause while
    the decode thread reads it, and are not to wait for a disk or a network."""
    try:
        with path.open("rb", buffering=0) as file:
            for _ in range(_MOST_BLOCKS):
                if not file.read(_BLOCK):
                    break
    except OSError as error:
        raise ConfigError(f"{_FIELD}: cannot read {str(path)!r}: {error.strerror}") from error


def _only_gguf(folder: Path, *, place: str) -> Path:
    found = sorted(folder.glob("*.gguf"))
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(path.name for path in found)
        raise ConfigError(
            f"{place}: several GGUF files in the folder {str(folder)!r} ({names}); name one of them"
        )
    if any((folder / name).exists() for name in _PEFT_FILES):
        raise ConfigError(_is_peft(folder, place=place))
    raise ConfigError(f"{place}: there is no *.gguf file in the folder {str(folder)!r}")


def _is_peft(folder: Path, *, place: str) -> str:
    return (
        f"{place}: {str(folder)!r} holds an adapter of PEFT, and GGUF files are served; make one"
        f" with tgi-llama convert {folder}"
    )
