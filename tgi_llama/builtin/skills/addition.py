"""Sums of two numbers up to 50. Pairs are held out, in both orders."""

import random

from ..examples import Example, sum_key
from ..phrasing import ask, casual, chat, expand_all

SKILL = "addition"
MAX_SUMMAND = 50

_QUESTIONS = expand_all(
    "What is {a} [+|plus] {b}?",
    "What's {a} [+|plus] {b}?",
    "[How much|What] is {a} and {b} [together|in total]?",
    "[Calculate|Compute|Work out] {a} [+|plus] {b}.",
    "[Add|Please add|Can you add] {a} and {b}.",
    "What is the sum of {a} and {b}?",
    "[Find|Give me|Tell me] the sum of {a} and {b}.",
    "{a} [+|plus] {b}?",
    "{a} + {b} =",
    "If I have {a} and get {b} more, how many do I have?",
    "How much is {a} [+|plus] {b}?",
    "Do you know what {a} [+|plus] {b} is?",
)
_NUMBER_ONLY = expand_all(
    "What is {a} + {b}? [Answer with the number only.|Just the number.|Only the number, please.]",
    "[Answer|Reply] with just the number: what is {a} [+|plus] {b}?",
)
_RAW = (
    ("{a} + {b} =", " {c}"),
    ("{a}+{b}=", "{c}"),
    ("Question: What is {a} + {b}?\nAnswer:", " {c}"),
    ("Question: What is {a} plus {b}?\nAnswer:", " {c}"),
    ("Q: What is {a} + {b}?\nA:", " {c}"),
    ("Q: {a} + {b}?\nA:", " {c}"),
    ("What is {a} + {b}?", "\n{c}"),
    ("The sum of {a} and {b} is", " {c}"),
)


def summands(rng: random.Random) -> tuple[int, int]:
    """Two numbers from 0 to 50."""
    return rng.randint(0, MAX_SUMMAND), rng.randint(0, MAX_SUMMAND)


def addition(rng: random.Random) -> Example:
    """A sum as a chat (replying with the whole equation or the number) or as raw text."""
    a, b = summands(rng)
    keys = (sum_key(a, b),)
    roll = rng.random()
    if roll < 0.3:
        prompt, reply = (text.format(a=a, b=b, c=a + b) for text in rng.choice(_RAW))
        return Example(skill=SKILL, reply=reply, keys=keys, raw=prompt)
    if roll < 0.4:
        question = rng.choice(_NUMBER_ONLY).format(a=a, b=b)
        return chat(rng, SKILL, question, reply=str(a + b), keys=keys)
    question = casual(rng, rng.choice(_QUESTIONS).format(a=a, b=b))
    return chat(rng, SKILL, question, reply=f"{a} + {b} = {a + b}", keys=keys)


def plain_sum(rng: random.Random) -> Example:
    """A sum asked plainly; other skills put it beside tools or a second turn."""
    a, b = summands(rng)
    question = f"What is {a} + {b}?"
    return ask(rng, SKILL, question, reply=f"{a} + {b} = {a + b}", keys=(sum_key(a, b),))
