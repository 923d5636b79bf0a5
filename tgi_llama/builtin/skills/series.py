"""Continue a list: numbers with a fixed step, days, months, letters, colours and more."""

import random
import string

import attrs

from ..examples import Example
from ..phrasing import casual, chat, expand_all
from ..words import word_list

SKILL = "series"
N_ADDED = 4  # members a reply in a chat adds
N_IN_ALL = 8  # members of a raw list with its continuation: raw text has no mark where the prompt
# ends, so only the length of the whole tells the model where to stop

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


def number_series(rng: random.Random, *, n_shown: int, n_added: int) -> Series:
    """Numbers with a fixed step, from zero to a few hundred, never below zero."""
    step = rng.choice(STEPS)
    start = rng.choice((0, 1, step)) if rng.random() < 0.35 and step > 0 else rng.randint(0, 99)
    if step < 0:
        start += -step * (n_shown + n_added - 1)
    numbers = [str(start + step * i) for i in range(n_shown + n_added)]
    return Series(tuple(numbers[:n_shown]), tuple(numbers[n_shown:]), f"step:{step}:{start}")


def word_series(rng: random.Random, *, n_shown: int, n_added: int) -> Series:
    """Members of a known list; days and months start over, the other lists end."""
    cyclic = rng.random() < 0.45
    words = rng.choice(CYCLES if cyclic else LINES)
    step = 2 if len(words) == 26 and rng.random() < 0.2 else 1
    last_start = len(words) if cyclic else len(words) - n_shown * step
    start = rng.randrange(last_start)
    indices = range(start, start + step * (n_shown + n_added), step)
    members = [words[i % len(words)] for i in indices if cyclic or i < len(words)]
    key = f"words:{words[0]}:{step}:{start}:{n_shown}"
    return Series(tuple(members[:n_shown]), tuple(members[n_shown:]), key)


def raw_layout(rng: random.Random, series: Series) -> tuple[str, str]:
    """Prompt and continuation as plain text: the separator, and where exactly the prompt stops."""
    separator = rng.choice((", ", ", ", ", ", " ", "\n"))
    shown, continued = separator.join(series.shown), separator.join(series.continued)
    if separator.strip() and rng.random() < 0.6:
        mark = separator.strip()
        return shown + mark, separator.removeprefix(mark) + continued
    return shown, separator + continued


def series(rng: random.Random) -> Example:
    """A list to continue, half of the time as raw text."""
    as_raw = rng.random() < 0.5
    n_shown = rng.choice((3, 4, 4, 5, 6))
    n_added = N_IN_ALL - n_shown if as_raw else N_ADDED
    draw = number_series if rng.random() < 0.6 else word_series
    chosen = draw(rng, n_shown=n_shown, n_added=n_added)
    keys = (chosen.key,)
    if as_raw:
        prompt, reply = raw_layout(rng, chosen)
        return Example(skill=SKILL, reply=reply, keys=keys, raw=prompt)
    shown = ", ".join(chosen.shown) + rng.choice(("", "", ",", ", ..."))
    question = rng.choice(_CHAT)
    if question.startswith("{shown}") or "?" in question:
        shown = ", ".join(chosen.shown)
    text = question.format(shown=shown)
    text = casual(rng, text) if not question.startswith("{shown}") else text
    return chat(rng, SKILL, text, reply=", ".join(chosen.continued), keys=keys)
