"""Chats of two or three turns whose last question refers back to an earlier one."""

import random

import attrs

from .. import words
from ..examples import Example, Message, sum_key, value_keys
from ..phrasing import casual, expand_all, system_turns
from .addition import summands

SKILL = "chat_memory"


@attrs.frozen
class Trait:
    """Something users say about themselves, the question for it, and the answer."""

    says: tuple[str, ...]
    asks: tuple[str, ...]
    answer: str


_TRAITS = {
    "name": Trait(
        ("My name is {v}.", "I am {v}.", "I'm {v}.", "You can call me {v}.",
        "Hello, my name is {v}."),
        expand_all("What is my name?", "Who am I?", "What's my name?",
        "[Do you know|Tell me] my name[?|.]"),
        "Your name is {v}.",
    ),
    "city": Trait(
        ("I live in {v}.", "I am from {v}.", "My home is {v}.", "My city is {v}."),
        ("Where do I live?", "Where am I from?", "Which city am I from?", "What is my city?"),
        "You live in {v}.",
    ),
    "colour": Trait(
        ("My favourite colour is {v}.", "I like the colour {v}.", "The colour I like best is {v}."),
        ("What is my favourite colour?", "Which colour do I like?", "What colour do I like best?"),
        "Your favourite colour is {v}.",
    ),
    "food": Trait(
        ("My favourite food is {v}.", "I like to eat {v}.", "I love eating {v}."),
        ("What is my favourite food?", "What do I like to eat?", "Which food do I like?"),
        "Your favourite food is {v}.",
    ),
    "age": Trait(
        ("I am {v} years old.", "My age is {v}.", "I'm {v} years old."),
        ("How old am I?", "What is my age?", "Do you know how old I am?"),
        "You are {v} years old.",
    ),
    "job": Trait(
        ("I work as a {v}.", "My job is {v}.", "I earn my money as a {v}."),
        ("What is my job?", "What do I do for a living?", "What do I work as?"),
        "Your job is {v}.",
    ),
    "pet": Trait(
        ("My pet is called {v}.", "I have a pet named {v}.", "The name of my pet is {v}."),
        ("What is my pet called?", "What is the name of my pet?", "Who is my pet?"),
        "Your pet is called {v}.",
    ),
    "hobby": Trait(
        ("My hobby is {v}.", "I like {v} in my free time.", "In my free time I do {v}."),
        ("What is my hobby?", "What do I do in my free time?", "Which hobby do I have?"),
        "Your hobby is {v}.",
    ),
}  # fmt: skip
_REPEATS = expand_all(
    "Repeat what I [said|wrote].",
    "What did I [say|write|tell you]?",
    "[Please repeat|Repeat] my [first|last] message.",
)
_PLUS = (
    "And plus {c}?",
    "Plus {c}?",
    "And {c} more?",
    "Now add {c}.",
    "Add {c} to that.",
    "And + {c}?",
)
_NEXT = ("Go on.", "Continue.", "And the next ones?", "More, please.", "And then?")


def _value(rng: random.Random, trait: str) -> str:
    if trait == "name":
        return words.person(rng)
    if trait == "city":
        return words.city(rng)
    if trait == "age":
        return str(rng.randint(5, 99))
    if trait == "pet":
        return words.made_up(rng).capitalize() if rng.random() < 0.6 else rng.choice(words.NAMES)
    pools = {
        "colour": words.COLOURS,
        "food": words.FOODS,
        "job": words.JOBS,
        "hobby": words.HOBBIES,
    }
    return words.made_up(rng) if rng.random() < 0.15 else rng.choice(pools[trait])


def _acknowledgement(traits: dict[str, str]) -> str:
    """What the model says to the first turn."""
    if "name" in traits:
        return f"Nice to meet you, {traits['name']}!"
    return "Thank you, I will remember that."


def _example(rng: random.Random, turns: list[str], keys: tuple[str, ...]) -> Example:
    """A chat of alternating turns; the last one is the reply."""
    roles = ("user", "assistant")
    messages = tuple(Message(roles[i % 2], text) for i, text in enumerate(turns[:-1]))
    return Example(SKILL, turns[-1], keys, messages=(*system_turns(rng), *messages))


def recall(rng: random.Random) -> Example:
    """One to three things about the user, then a question for one; or the first turn alone."""
    chosen = rng.sample(sorted(_TRAITS), rng.choice((1, 2, 2, 3)))
    traits = {trait: _value(rng, trait) for trait in chosen}
    keys = value_keys(*(value for value in traits.values() if not value.isdigit()))
    said = " ".join(rng.choice(_TRAITS[trait].says).format(v=traits[trait]) for trait in chosen)
    turns = [said, _acknowledgement(traits)]
    if rng.random() < 0.2:
        return _example(rng, turns, keys)
    if rng.random() < 0.2:
        a, b = summands(rng)
        turns += [f"What is {a} + {b}?", f"{a} + {b} = {a + b}"]
        keys = (*keys, sum_key(a, b))
    asked = rng.choice(chosen)
    question = casual(rng, rng.choice(_TRAITS[asked].asks))
    return _example(rng, [*turns, question, _TRAITS[asked].answer.format(v=traits[asked])], keys)


def repeat_back(rng: random.Random) -> Example:
    """The user's first message, word for word."""
    trait = rng.choice(sorted(_TRAITS))
    value = _value(rng, trait)
    said = rng.choice(_TRAITS[trait].says).format(v=value)
    answered = _acknowledgement({trait: value})
    turns = [said, answered, rng.choice(_REPEATS), f"You said: {said}"]
    return _example(rng, turns, value_keys(value) if not value.isdigit() else ())


def follow_up_sum(rng: random.Random) -> Example:
    """A sum, then some more on top of it."""
    a, b = rng.randint(0, 25), rng.randint(0, 25)
    total, c = a + b, rng.randint(1, 20)
    turns = [
        f"What is {a} {rng.choice(('+', 'plus'))} {b}?",
        f"{a} + {b} = {total}",
        rng.choice(_PLUS).format(c=c),
        f"{total} + {c} = {total + c}",
    ]
    return _example(rng, turns, (sum_key(a, b), sum_key(total, c)))


def count_on(rng: random.Random) -> Example:
    """Counting that goes on in the second turn."""
    start, length = rng.randint(1, 60), 5
    first = ", ".join(str(n) for n in range(start, start + length))
    second = ", ".join(str(n) for n in range(start + length, start + 2 * length))
    turns = [f"Count from {start} to {start + length - 1}.", first, rng.choice(_NEXT), second]
    return _example(rng, turns, (f"count on:{start}",))


def chat_memory(rng: random.Random) -> Example:
    """One of the above."""
    roll = rng.random()
    if roll < 0.55:
        return recall(rng)
    if roll < 0.75:
        return repeat_back(rng)
    return follow_up_sum(rng) if roll < 0.92 else count_on(rng)
