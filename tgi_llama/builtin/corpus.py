"""The mixture of all skills, split into training and held-out examples by content."""

import random
from collections.abc import Callable, Iterator

import attrs

from .examples import Example
from .skills.addition import addition
from .skills.chat_memory import chat_memory
from .skills.json_extraction import json_extraction
from .skills.long_replies import counting, greeting, long_text, repeat_after_me
from .skills.refusals import refusal
from .skills.series import series
from .skills.server_facts import server_fact
from .skills.tool_calls import no_tool_needed, tool_call, tool_result


@attrs.frozen
class Share:
    """A generator of examples and its weight in the mixture."""

    make: Callable[[random.Random], Example]
    weight: float


# Found by trial: sums and skills that copy from the prompt need most examples, fixed answers few.
MIXTURE = (
    Share(server_fact, 9.0),
    Share(addition, 26.0),
    Share(json_extraction, 12.0),
    Share(tool_call, 18.0),
    Share(tool_result, 4.0),
    Share(no_tool_needed, 4.0),
    Share(series, 18.0),
    Share(chat_memory, 8.0),
    Share(refusal, 6.0),
    Share(counting, 7.0),
    Share(long_text, 4.0),
    Share(repeat_after_me, 5.0),
    Share(greeting, 1.5),
)


def training_examples(seed: int) -> Iterator[Example]:
    """Examples of the mixture without any held-out content, without end; `seed` fixes them all."""
    rng = random.Random(f"training {seed}")
    weights = [share.weight for share in MIXTURE]
    while True:
        example = rng.choices(MIXTURE, weights)[0].make(rng)
        if not example.held_out:
            yield example


def held_out_examples(seed: int, *, n_per_skill: int) -> tuple[Example, ...]:
    """Up to `n_per_skill` distinct examples of each skill, all with content not trained on."""
    rng = random.Random(f"held out {seed}")
    chosen: list[Example] = []
    for share in MIXTURE:
        found: dict[Example, None] = {}
        for _ in range(400 * n_per_skill):  # some skills have few held-out examples in all
            example = share.make(rng)
            if example.held_out:
                found[example] = None
            if len(found) == n_per_skill:
                break
        chosen.extend(found)
    return tuple(chosen)
