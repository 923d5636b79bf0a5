"""Continue a list: numbers with a fixed step, days, months, letters, colours and more."""

import random
import string

import attrs

from ..examples import Example
from ..phrasing import casual, chat, expand_all
from ..words import word_list

SKILL = "series"
N_CONTINUED = 4  # how many members a reply adds

DAYS = word_list("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = word_list(
    "January February March April May June July August September October November December"
)
RAINBOW = word_list("red orange yellow green blue indigo violet")
PLANETS = word_list("Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune")
GREEK = word_list("alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu")
NUMBER_WORDS = word_list(
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty"
)
ORDINALS = word_list("first second third fourth fifth sixth seventh eighth ninth tenth")
CYCLES = (DAYS, MONTHS)
LINES = (
    RAINBOW,
    PLANETS,
    GREEK,
    NUMBER_WORDS,
    ORDINALS,
    tuple(string.ascii_lowercase),
    tuple(string.ascii_uppercase),
)
STEPS = (1, 1, 1, 2, 2, 3, 5, 5, 10, 10, -1, -1, -2, -10)

_CHAT = expand_all(
    "[Continue|Please continue|Go on with] [this list|the list|this series|the series]: {shown}",
    "[Continue|Please continue|Carry on]: {shown}",
    "What comes next[ in this list|]: {shown}",
    "What comes after {shown}?",
    "[Complete|Extend] the [list|series|sequence]: {shown}",
    "[Give|Write|Name] the next [four|4]: {shown}",
    "{shown}, ...",
)


@attrs.frozen
class Series:
    """The members shown in the prompt and those the reply adds."""

    shown: tuple[str, ...]
    continued: tuple[str, ...]
    key: str


def number_series(rng: random.Random) -> Series:
    """Numbers with a fixed step, from zero to a few hundred, never below zero."""
    step = rng.choice(STEPS)
    n_shown = rng.choice((3, 4, 4, 5, 6))
    length = n_shown + N_CONTINUED
    start = rng.choice((0, 1, step)) if rng.random() < 0.35 and step > 0 else rng.randint(0, 99)
    if step < 0:
        start += -step * (length - 1)
    numbers = [str(start + step * i) for i in range(length)]
    return Series(tuple(numbers[:n_shown]), tuple(numbers[n_shown:]), f"step:{step}:{start}")


def word_series(rng: random.Random) -> Series:
    """Members of a known list; days and months start over, the other lists end."""
    cyclic = rng.random() < 0.45
    words = rng.choice(CYCLES if cyclic else LINES)
    n_shown = rng.choice((2, 3, 3, 4, 5))
    last_start = len(words) if cyclic else max(1, len(words) - n_shown - 1)
    start = rng.randrange(last_start)
    step = 2 if len(words) == 26 and rng.random() < 0.2 and start < 12 else 1
    indices = range(start, start + step * (n_shown + N_CONTINUED), step)
    members = [words[i % len(words)] for i in indices if cyclic or i < len(words)]
    if len(members) <= n_shown:
        return word_series(rng)
    key = f"words:{words[0]}:{step}:{start}:{n_shown}"
    return Series(tuple(members[:n_shown]), tuple(members[n_shown:]), key)


def raw_layout(rng: random.Random, series: Series) -> tuple[str, str]:
    """Prompt and continuation as plain text: the separator, and where exactly the prompt stops."""
    separator = rng.choice((", ", ", ", ", ", ", ", " ", "\n"))
    shown, continued = separator.join(series.shown), separator.join(series.continued)
    if separator.strip() and rng.random() < 0.6:
        mark = separator.strip()
        return shown + mark, separator.removeprefix(mark) + continued
    return shown, separator + continued


def series(rng: random.Random) -> Example:
    """A list to continue, half of the time as raw text."""
    chosen = number_series(rng) if rng.random() < 0.6 else word_series(rng)
    keys = (chosen.key,)
    if rng.random() < 0.5:
        prompt, reply = raw_layout(rng, chosen)
        return Example(skill=SKILL, reply=reply, keys=keys, raw=prompt)
    shown = ", ".join(chosen.shown) + rng.choice(("", "", ",", ", ..."))
    question = rng.choice(_CHAT)
    if question.startswith("{shown}") or "?" in question:
        shown = ", ".join(chosen.shown)
    text = question.format(shown=shown)
    text = casual(rng, text) if not question.startswith("{shown}") else text
    return chat(rng, SKILL, text, reply=", ".join(chosen.continued), keys=keys)
