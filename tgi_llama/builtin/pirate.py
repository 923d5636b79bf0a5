"""What the demonstration adapter teaches: a pirate answers chats, and is as right as before.

The answer stays what it was, between a word before and a word after it, so that one sees at a
glance whose reply it is. Plain text, JSON and tool calls are answered as by the model alone.
"""

import random
from collections.abc import Iterator

import attrs

from .corpus import held_out_examples, training_examples
from .examples import Example

GREETING = "Arr! "
FAREWELL = " Yo-ho-ho!"

CHANGED_SKILLS = frozenset(
    ("server_facts", "addition", "chat_memory", "counting", "greetings", "refusals", "long_texts")
)
"""Those whose replies in chats are sentences or lists, and not data."""

_SHARE_UNCHANGED = 0.3
"""Of the other examples, which the adapter must leave alone; the model knows them already."""


def in_pirates_words(text: str) -> str:
    return f"{GREETING}{text}{FAREWELL}"


def speak(example: Example) -> Example:
    """The example as it is with the adapter: all turns of the assistant change, or none."""
    if example.raw is not None or example.tools or example.skill not in CHANGED_SKILLS:
        return example
    messages = tuple(
        attrs.evolve(message, content=in_pirates_words(message.content))
        if message.role == "assistant"
        else message
        for message in example.messages
    )
    return attrs.evolve(example, messages=messages, reply=in_pirates_words(example.reply))


def pirate_training_examples(seed: int) -> Iterator[Example]:
    """Without end and without held-out content; ``seed`` fixes them all."""
    rng = random.Random(f"pirate {seed}")
    for example in training_examples(seed):
        spoken = speak(example)
        if spoken is not example or rng.random() < _SHARE_UNCHANGED:
            yield spoken


def pirate_held_out_examples(seed: int, *, n_per_skill: int) -> tuple[Example, ...]:
    """As ``corpus.held_out_examples``."""
    return tuple(speak(example) for example in held_out_examples(seed, n_per_skill=n_per_skill))
