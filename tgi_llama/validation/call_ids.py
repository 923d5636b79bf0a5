"""Ids of earlier tool calls as a model's template will have them. Pure functions."""

import hashlib
from collections.abc import Mapping, Sequence

_LENGTH = 9
"""Mistral's templates refuse ids of any other length, and models were trained on letters and
digits."""


def needs_short_ids(format_name: str) -> bool:
    return format_name.startswith("mistral")


def with_short_ids(messages: Sequence[Mapping[str, object]]) -> list[Mapping[str, object]]:
    """The messages with ids that such a template takes. Equal ids stay equal, and those that are
    right already stay as they are."""
    return [_with_short_ids(message) for message in messages]


def _with_short_ids(message: Mapping[str, object]) -> Mapping[str, object]:
    changed = dict(message)
    calls = message.get("tool_calls")
    if isinstance(calls, Sequence):
        changed["tool_calls"] = [{**call, "id": _short(str(call["id"]))} for call in calls]
    call_id = message.get("tool_call_id")
    if call_id is not None:
        changed["tool_call_id"] = _short(str(call_id))
    return changed


def _short(call_id: str) -> str:
    if len(call_id) == _LENGTH and call_id.isascii() and call_id.isalnum():
        return call_id
    return hashlib.sha256(call_id.encode()).hexdigest()[:_LENGTH]
