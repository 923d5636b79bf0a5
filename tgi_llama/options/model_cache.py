"""Where models are kept that were made here."""

import os
import tempfile
from pathlib import Path


def model_cache(given: Path | None) -> Path:
    """The given folder, else one in the user's cache folder (XDG's), which need not exist yet."""
    if given is not None:
        return given
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache):  # XDG's rule: a relative one counts as unset
        cache = os.path.expanduser("~/.cache")
    if not os.path.isabs(cache):  # a user without a home, as in containers
        cache = tempfile.gettempdir()
    return Path(cache) / "tgi_llama" / "models"
