"""The answer of ``/chat_tokenize``; ``/tokenize`` answers a list of its entries."""

import attrs

from .generate_responses import TokenizeEntry


@attrs.frozen(kw_only=True)
class ChatTokenizeResponse:
    tokenize_response: tuple[TokenizeEntry, ...]
    """Their offsets are those in ``templated_text``."""
    templated_text: str
    """What the chat template made of the messages."""
