"""Which LoRA adapter a request asks for. Pure functions."""

from collections.abc import Mapping

import attrs

from tgi_llama.errors import ValidationError
from tgi_llama.generation import AdapterId

from .rules import reject

_MAX_LISTED = 20
"""Names in a message; a server may have hundreds."""

_MAX_SHOWN = 100
"""Characters of a name that a client made up."""


@attrs.frozen
class ChosenAdapter:
    """What a request is computed with."""

    name: str
    id: AdapterId


def chosen_adapter(
    ids: Mapping[str, AdapterId], adapter_id: str | None, *, field: str, model: str | None = None
) -> ChosenAdapter | None:
    """The adapter that ``adapter_id`` names, or else ``model``; None for the model alone.

    ``ids``: the adapters that there are. An ``adapter_id`` must be one of them, and ``model`` may
    not name another one; any other ``model`` is but a name. Raises ValidationError about ``field``,
    which is where ``adapter_id`` is.
    """
    by_model = None if model is None else ids.get(model)
    if adapter_id is None:
        return None if model is None or by_model is None else ChosenAdapter(model, by_model)
    chosen = ids.get(adapter_id)
    if chosen is None:
        raise unknown_adapter(ids, adapter_id, field=field)
    if by_model is not None and by_model != chosen:
        reject(
            f"`model` and `adapter_id` name different adapters: {model!r} and {adapter_id!r}",
            field=field,
        )
    return ChosenAdapter(adapter_id, chosen)


def unknown_adapter(
    ids: Mapping[str, AdapterId], name: str, *, field: str | None
) -> ValidationError:
    """The error that there is no such adapter, with those that there are."""
    shown = name if len(name) <= _MAX_SHOWN else name[:_MAX_SHOWN] + "..."
    if not ids:
        return ValidationError(
            f"`adapter_id` must name an adapter, and this server has none. Given: {shown!r}",
            field=field,
        )
    listed = ", ".join(sorted(ids)[:_MAX_LISTED])
    more = f" and {len(ids) - _MAX_LISTED} more" if len(ids) > _MAX_LISTED else ""
    return ValidationError(
        f"`adapter_id` must be one of {listed}{more}. Given: {shown!r}", field=field
    )
