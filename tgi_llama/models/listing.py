"""What a repository or a folder holds."""

from collections.abc import Mapping, Sequence

import attrs

from tgi_llama.errors import ConfigError, StartError

Problem = ConfigError | StartError


@attrs.frozen
class ListedFile:
    name: str
    """Its path in the repository or folder, with slashes."""
    size: int
    """In bytes; 0 where the hub did not tell."""


@attrs.frozen(kw_only=True)
class Listing:
    """What a repository of the hub holds at one commit."""

    commit: str
    files: Sequence[ListedFile]
    etags: Mapping[str, str] = attrs.field(factory=dict)
    """Of files whose hash the hub told: what the cache calls their bytes, whatever their name."""
    problem: Problem | None = None
    """Why the hub was not asked, or could not be: these are the files of the cache only."""

    @property
    def names(self) -> frozenset[str]:
        return frozenset(file.name for file in self.files)
