"""What loads and unloads LoRA adapters at run time. vLLM's fields and ours."""

import attrs

from .fields import F32, NULL_IS_DEFAULT

_NULLABLE = {NULL_IS_DEFAULT: True}


@attrs.frozen(kw_only=True)
class LoadAdapterRequest:
    lora_name: str
    lora_path: str
    """A file below a ``--lora-adapter-folder``, ``owner/repo[:file][@revision]`` on the hub, or
    what ``--lora-adapters`` said."""
    load_inplace: bool = attrs.field(default=False, metadata=_NULLABLE)
    """Load a name again that is loaded, in its place."""
    scale: F32 | None = None
    """Beyond vLLM. Absent: 1."""


@attrs.frozen(kw_only=True)
class UnloadAdapterRequest:
    lora_name: str
