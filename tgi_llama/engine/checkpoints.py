"""Where the cells of a prompt are saved on the way, because this memory cannot be cut later."""

from collections.abc import Callable, Sequence

from tgi_llama.generation import TokenId


def checkpoints(
    prompt_ids: Sequence[TokenId], ends_turn: Callable[[TokenId], bool], *, fewest: int
) -> tuple[int, ...]:
    """Behind the first message, which many chats may share, before the last one, and before the
    last token, for this chat's next turn. Ascending; messages of fewer than ``fewest`` tokens are
    not worth it."""
    last = len(prompt_ids) - 1
    ends = [
        position
        for position, token in enumerate(prompt_ids[:last], start=1)
        if position >= fewest and ends_turn(token)
    ]
    return tuple(sorted({*ends[:1], *ends[-1:], last} - {0}))
