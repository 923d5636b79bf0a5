"""What ``--model-id`` means: a local folder, a model of the hub, or a name and nothing else."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import attrs

from tgi_llama.errors import ConfigError

_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
_HUB_NAME = re.compile(rf"(?P<repo>(?:{_PART}/)?{_PART})(?::(?P<quantization>[A-Za-z0-9_.-]+))?")
_PATH_STARTS = ("/", "./", "../", "~")


@attrs.frozen
class LocalFolder:
    path: Path


@attrs.frozen
class HubModel:
    repo_id: str
    """``owner/name``; a few old models have no owner."""
    quantization: str | None
    """What follows a colon."""

    @property
    def has_owner(self) -> bool:
        return "/" in self.repo_id


def model_source(model_id: str | None) -> LocalFolder | HubModel | None:
    """A folder that exists wins over a model of the same name. None for a text that can be neither,
    and for no text. Raises ConfigError for a path with nothing or a file at its end."""
    if model_id is None:
        return None
    if os.path.isdir(model_id):  # these two accept any text, where Path's raise on some
        return LocalFolder(Path(model_id))
    if os.path.isfile(model_id):
        raise ConfigError(
            f"--model-id: expected a folder or a name, but {model_id!r} is a file; give it with"
            " --model-gguf"
        )
    if is_path(model_id):  # no hub has such a name: a mistyped path
        raise ConfigError(f"--model-id: there is no folder {model_id!r}")
    found = _HUB_NAME.fullmatch(model_id)
    if found is None or "--" in found["repo"] or ".." in found["repo"]:  # the hub's rules
        return None
    return HubModel(found["repo"], found["quantization"])


def is_path(text: str) -> bool:
    """Whether it can be nothing but a path on this machine."""
    return text.startswith(_PATH_STARTS)


@contextlib.contextmanager
def importing_the_hub() -> Iterator[None]:
    """Around the import of huggingface_hub, which reads its variables then: raises ConfigError
    where one of them is no number."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"one of the variables HF_HUB_* has a wrong value: {error}") from error
