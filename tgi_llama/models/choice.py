"""Which of the GGUF files of a repository or folder is the model. Pure: names and sizes only."""

import fnmatch
import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

import attrs

from tgi_llama.errors import ConfigError

from .listing import ListedFile
from .sizes import size_text

PREFERRED = "model.gguf"
"""Chosen where there are several and nothing is said, as TGI does with the file that it made."""

_SPLIT = re.compile(r"(?i)(?P<prefix>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})\.gguf")
_TAG = re.compile(r"(?i)[-.]([A-Z0-9_]+)$")
_NO_MODELS = ("mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")
"""Parts of names of GGUF files that are no models of their own: projectors of images, statistics
for quantizing, and heads that draft tokens. llama.cpp's list."""
_MOST_LISTED = 30


@attrs.frozen
class SplitName:
    """``prefix-00002-of-00003.gguf``, as llama.cpp's gguf-split names the parts of one model."""

    prefix: str
    index: int
    """Of this part, from 1 on."""
    count: int

    def part(self, index: int) -> str:
        return f"{self.prefix}-{index:05d}-of-{self.count:05d}.gguf"

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of all parts, in order."""
        return tuple(self.part(index) for index in range(1, self.count + 1))


def split_name(name: str) -> SplitName | None:
    """None for a file that is a whole model."""
    found = _SPLIT.fullmatch(name)
    if found is None:
        return None
    return SplitName(found["prefix"], int(found["index"]), int(found["count"]))


@attrs.frozen
class GgufModel:
    """One model, in one file or in several parts, of which some may be missing."""

    names: Sequence[str]
    """Of all its files, in order; llama.cpp is given the first and finds the others."""
    present: Sequence[ListedFile]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.present)

    @property
    def stem(self) -> str:
        """Its name without ``.gguf`` and without the number of a part."""
        split = split_name(self.names[0])
        return split.prefix if split else self.names[0][: -len(".gguf")]

    @property
    def tag(self) -> str:
        """Its quantization, as its name says it in the end: ``Q4_K_M``."""
        found = _TAG.search(self.stem)
        return found[1].upper() if found else ""

    @property
    def folders(self) -> Sequence[str]:
        """Those that it is in, in upper case; some repositories have the quantization there."""
        return PurePosixPath(self.names[0].upper()).parts[:-1]

    def check_complete(self, where: str, *, option: str) -> None:
        """Raises ConfigError that names the first part that is missing."""
        present = {file.name for file in self.present}
        missing = [name for name in self.names if name not in present]
        if missing:
            raise ConfigError(
                f"{option}: {where} lacks {missing[0]!r}, one of the {len(self.names)} parts of the"
                " model"
            )


def is_gguf(name: str) -> bool:
    return name.lower().endswith(".gguf")


def is_model(name: str) -> bool:
    """Whether a GGUF file of this name is a model."""
    file_name = PurePosixPath(name).name.lower()
    return is_gguf(name) and not any(part in file_name for part in _NO_MODELS)


def gguf_models(files: Iterable[ListedFile]) -> list[GgufModel]:
    """The models among the files, by name; the parts of one are together."""
    groups: dict[tuple[str, ...], list[ListedFile]] = {}
    for file in sorted(files, key=lambda file: file.name):
        if is_model(file.name):
            split = split_name(file.name)
            names = split.parts if split else (file.name,)
            groups.setdefault(names, []).append(file)
    return [GgufModel(names, present) for names, present in groups.items()]


def by_default(models: Sequence[GgufModel], where: str) -> GgufModel:
    """The only one, or the one in the preferred file. ``models`` is not empty. Raises ConfigError
    that lists them where there are several."""
    preferred = [model for model in models if model.names == (PREFERRED,)]
    return _only(preferred or models, where, option="--model-id")


def by_quantization(models: Sequence[GgufModel], wanted: str, where: str) -> GgufModel:
    """The one that ``owner/name:wanted`` names. As in llama.cpp ``wanted`` must be followed by a
    dot or a dash somewhere in the name, in upper or lower case, or a folder ends with it; but it
    must begin there too: ``F16`` is not ``BF16``. Where that is true of several, the one whose name
    ends with just that or whose folder has just this name counts. Raises ConfigError."""
    pattern = re.compile(rf"(?<![A-Z0-9]){re.escape(wanted)}[./-]", re.IGNORECASE)
    found = [model for model in models if pattern.search(model.names[0])]
    exact = [model for model in found if wanted.upper() in (model.tag, *model.folders)]
    if not found:
        raise ConfigError(
            f"--model-id: {where} has no GGUF file of the quantization {wanted!r}{_listed(models)}"
        )
    return _only(exact or found, where, option="--model-id")


def by_pattern(files: Sequence[ListedFile], wanted: str, where: str) -> GgufModel:
    """The one with a file of this name, with or without its folder, or whose name matches this
    pattern, in upper or lower case. Any part of a model stands for all. Raises ConfigError."""
    models = gguf_models(files)
    for matches in (_is_path, _is_file_name, _is_matched):
        found = [
            model for model in models if any(matches(file.name, wanted) for file in model.present)
        ]
        if found:
            return _only(found, where, option="--model-gguf")
    others = [file.name for file in files if _is_path(file.name, wanted)]
    if others:
        kind = "is not a model" if is_gguf(wanted) else "is not a GGUF file"
        raise ConfigError(f"--model-gguf: {wanted!r} in {where} {kind}{_listed(models)}")
    raise ConfigError(
        f"--model-gguf: there is no file {wanted!r} on this machine, and {where} has no GGUF file"
        f" that it matches{_listed(models)}"
    )


def _is_path(name: str, wanted: str) -> bool:
    return name == wanted


def _is_file_name(name: str, wanted: str) -> bool:
    return PurePosixPath(name).name == wanted


def _is_matched(name: str, wanted: str) -> bool:
    names = (name.lower(), PurePosixPath(name).name.lower())
    return any(fnmatch.fnmatchcase(each, wanted.lower()) for each in names)


def _only(models: Sequence[GgufModel], where: str, *, option: str) -> GgufModel:
    if len(models) > 1:
        raise ConfigError(
            f"{option}: {where} has several GGUF files{_listed(models)}; choose one with"
            " --model-gguf NAME, or of a hub model with --model-id owner/name:QUANTIZATION"
        )
    models[0].check_complete(where, option=option)
    return models[0]


def _listed(models: Sequence[GgufModel]) -> str:
    if not models:
        return ""
    shown = [f"{model.names[0]} ({size_text(model.size)})" for model in models[:_MOST_LISTED]]
    n_more = len(models) - len(shown)
    more = f", and {n_more} more" if n_more else ""
    return f": {', '.join(shown)}{more}"
