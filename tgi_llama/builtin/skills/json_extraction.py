"""Fields of a sentence as JSON: all of them, or those the prompt lists, in the order it lists them.

Held out by combination: the values of a held-out sentence never stand together in training.
"""

import random
from collections.abc import Callable

import attrs

from .. import words
from ..examples import Example, combination_keys, compact_json
from ..phrasing import chat, expand_all

SKILL = "json_extraction"

Value = str | int | float


@attrs.frozen
class Kind:
    """Sentence shapes that name the same fields, which are in the order of the usual reply."""

    fields: tuple[tuple[str, Callable[[random.Random], Value]], ...]
    shapes: tuple[str, ...]


def _integer(low: int, high: int) -> Callable[[random.Random], Value]:
    return lambda rng: rng.randint(low, high)


def _price(rng: random.Random) -> Value:
    whole = rng.randint(1, 300)
    return whole if rng.random() < 0.6 else whole + rng.choice((0.25, 0.5, 0.75, 0.95))


def _any_of(pool: tuple[str, ...]) -> Callable[[random.Random], Value]:
    return lambda rng: words.made_up(rng) if rng.random() < 0.03 else rng.choice(pool)


_KINDS = (
    Kind(
        (("name", words.person), ("age", _integer(1, 99)), ("city", words.city)),
        (
            "{name} is {age} years old and lives in {city}.",
            "{name}, {age}, lives in {city}.",
            "My name is {name}, I am {age} and I live in {city}.",
            "In {city} lives {name}, who is {age}.",
            "{name} from {city} is {age} years old.",
            "At the age of {age}, {name} moved to {city}.",
            "Meet {name}: {age} years old, from {city}.",
        ),
    ),
    Kind(
        (("name", words.person), ("item", words.item), ("price", _price)),
        (
            "{name} bought a {item} for {price} euros.",
            "{name} paid {price} dollars for the {item}.",
            "The {item} cost {name} {price} euros.",
            "For {price} €, {name} got a {item}.",
            "{name} sold the {item} for {price} dollars.",
            "A {item} was ordered by {name} for ${price}.",
        ),
    ),
    Kind(
        (("name", words.person), ("city", words.city)),
        (
            "{name} lives in {city}.",
            "{name} is from {city}.",
            "{name} travelled to {city}.",
            "I met {name} in {city}.",
            "Yesterday {name} arrived in {city}.",
        ),
    ),
    Kind(
        (("item", words.item), ("price", _price)),
        (
            "The {item} costs {price} euros.",
            "A {item} for {price} €.",
            "One {item} is {price} dollars.",
            "You can get the {item} for ${price}.",
        ),
    ),
    Kind(
        (("name", words.person), ("city", words.city), ("date", words.date)),
        (
            "{name} flies to {city} on {date}.",
            "On {date}, {name} goes to {city}.",
            "{name} will be in {city} on {date}.",
            "The trip of {name} to {city} starts on {date}.",
        ),
    ),
    Kind(
        (("name", words.person), ("guests", _integer(2, 20)), ("time", words.clock_time)),
        (
            "{name} booked a table for {guests} at {time}.",
            "A table for {guests} people at {time}, please, under the name {name}.",
            "At {time}, {name} comes with {guests} guests.",
            "Reservation: {name}, {guests} people, {time}.",
        ),
    ),
    Kind(
        (
            ("name", words.person),
            ("age", _integer(18, 80)),
            ("job", _any_of(words.JOBS)),
            ("city", words.city),
        ),
        (
            "{name} is a {age}-year-old {job} from {city}.",
            "{name}, {age}, works as a {job} in {city}.",
            "In {city}, {name} ({age}) works as a {job}.",
            "The {job} {name} is {age} and lives in {city}.",
        ),
    ),
    Kind(
        (
            ("name", words.person),
            ("quantity", _integer(2, 40)),
            ("item", words.item),
            ("date", words.date),
        ),
        (
            "{name} ordered {quantity} of the {item} on {date}.",
            "On {date}, {name} ordered the {item}, {quantity} pieces.",
            "Order by {name}: {quantity} x {item}, {date}.",
        ),
    ),
    Kind(
        (
            ("name", words.person),
            ("colour", _any_of(words.COLOURS)),
            ("pet", _any_of(words.ANIMALS)),
        ),
        (
            "{name} has a {colour} {pet}.",
            "The {pet} of {name} is {colour}.",
            "{name} owns a {pet}, and it is {colour}.",
        ),
    ),
)

_ALL_FIELDS = expand_all(
    "[Extract|Please extract|Give me] the [fields|data|facts|information] [as|in] JSON: {text}",
    "[Turn|Convert|Put] this [sentence|text] into JSON: {text}",
    "JSON: {text}",
    "Extract JSON from[ this text| the text|]: {text}",
    "{text} [Extract the fields as JSON.|As JSON, please.|Return this as JSON.]",
)
_LISTED_FIELDS = expand_all(
    "[Extract|Give me|Return] {fields} as JSON[:| from:| from this text:] {text}",
    "[Extract|Find] [the fields |]{fields} [in JSON|as JSON]: {text}",
    "Return JSON with the fields {fields}.[ Text:|] {text}",
    "{text} Extract {fields} as JSON.",
    "{text}\nJSON with {fields}:",
)
_RAW = (
    ("Text: {text}\nJSON:", " "),
    ("Sentence: {text}\nJSON:", " "),
    ("Extract the fields as JSON: {text}", "\n"),
    ("Question: Extract the fields as JSON: {text}\nAnswer:", " "),
)


def _listed(rng: random.Random, fields: list[str]) -> str:
    """`a, b and c`, or another way to list field names."""
    if len(fields) == 1:
        return fields[0]
    if rng.random() < 0.5:
        return ", ".join(fields)
    return ", ".join(fields[:-1]) + " and " + fields[-1]


def json_extraction(rng: random.Random) -> Example:
    """A sentence and the JSON object of its fields."""
    kind = rng.choice(_KINDS)
    values = {name: draw(rng) for name, draw in kind.fields}
    text = rng.choice(kind.shapes).format(**values)
    keys = combination_keys(*values.values())
    if rng.random() < 0.45:
        chosen = rng.sample(sorted(values), rng.randint(1, len(values)))
        question = rng.choice(_LISTED_FIELDS).format(fields=_listed(rng, chosen), text=text)
        reply = compact_json({name: values[name] for name in chosen})
        return chat(rng, SKILL, question, reply=reply, keys=keys)
    reply = compact_json(values)
    if rng.random() < 0.25:
        prompt, lead = rng.choice(_RAW)
        return Example(skill=SKILL, reply=lead + reply, keys=keys, raw=prompt.format(text=text))
    question = rng.choice(_ALL_FIELDS).format(text=text)
    return chat(rng, SKILL, question, reply=reply, keys=keys)
