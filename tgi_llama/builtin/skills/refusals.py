"""Honest answers to what so small a model cannot do. Questions on some topics are held out."""

import random

import attrs

from .. import words
from ..examples import Example, combination_keys
from ..phrasing import ask, expand_all

SKILL = "refusals"

_I_AM = "I am a very small demonstration model"

_TOPICS = (
    "the sea", "love", "autumn", "the moon", "my cat", "winter", "a dragon", "friendship", "rain",
    "the mountains", "a robot", "coffee", "time", "my garden", "a lonely tree", "summer", "freedom",
    "two friends", "an old house", "the stars", "a train", "my grandmother", "music", "snow",
    "a brave knight", "the night", "happiness", "the city", "a river", "birds", "spring", "dreams",
)  # fmt: skip
_COUNTRIES = words.word_list(
    "France Germany Italy Spain Portugal Austria Norway Sweden Finland Denmark Poland Greece "
    "Turkey Egypt Kenya Nigeria Ghana Japan China India Thailand Vietnam Australia Canada Mexico "
    "Brazil Argentina Chile Peru Cuba Ireland Iceland Hungary Romania Ukraine Morocco"
)
_LANGUAGES = words.word_list(
    "French German Spanish Italian Portuguese Dutch Polish Greek Turkish Russian Japanese Chinese "
    "Korean Arabic Hindi Swedish Finnish Czech Danish Latin"
)
_COMPLAINTS = (
    "a headache", "a cold", "back pain", "a fever", "a cough", "a rash", "stomach pain", "the flu",
    "a sore throat", "an allergy", "a broken arm", "toothache", "dizziness", "insomnia", "asthma",
)  # fmt: skip
_PEOPLE = (
    "Einstein", "Mozart", "Shakespeare", "Napoleon", "Picasso", "Newton", "Cleopatra", "Darwin",
    "Beethoven", "Galileo", "Gandhi", "Marie Curie", "Leonardo da Vinci", "Bach", "Plato",
)  # fmt: skip
_SUBJECTS = (
    "the sky blue", "grass green", "the sea salty", "water wet", "fire hot", "ice slippery",
    "the moon round", "the night dark", "gold valuable", "snow white", "iron heavy", "space cold",
)  # fmt: skip
_TASKS = (
    "sorts a list", "reads a file", "prints hello", "sends a mail", "parses a date", "draws a tree",
    "counts words", "reverses a string", "downloads a page", "plays chess", "finds primes",
)  # fmt: skip


@attrs.frozen
class Kind:
    """Requests of one kind, the topics they are about and the one answer to all of them."""

    topics: tuple[str, ...]
    requests: tuple[str, ...]
    answer: str


_KINDS = (
    Kind(
        _TOPICS,
        expand_all(
            "[Write|Please write|Can you write|Compose] a [poem|short poem|haiku] about {t}[.|!]",
            "[I want|Give me|Make me] a poem about {t}.",
        ),
        f"{_I_AM} and cannot write poems. A larger model can.",
    ),
    Kind(
        _TOPICS,
        expand_all(
            "[Write|Tell me|Please tell me|Invent|Make up] a [story|short story|tale] about {t}.",
            "[Can you|Could you|Will you] tell [me|us] a story about {t}?",
        ),
        f"{_I_AM} and cannot tell stories. A larger model can.",
    ),
    Kind(
        _TOPICS,
        expand_all(
            "[Tell me|Do you know|Make] a [joke|good joke] about {t}[.|!]",
            "[Write|Sing|Compose] a song about {t}.",
        ),
        f"{_I_AM} and know no jokes or songs.",
    ),
    Kind(
        _COUNTRIES,
        expand_all(
            "[What is|What's|Name|Tell me|Do you know] the capital of {t}?",
            "[What is|Which city is] the [biggest|largest] city in {t}?",
            "How many people live in {t}?",
            "Where is {t}?",
            "Who is the president of {t}?",
            "[Which language|What language] do they speak in {t}?",
        ),
        f"{_I_AM} and know nothing about countries.",
    ),
    Kind(
        _LANGUAGES,
        expand_all(
            "[Translate|Please translate|Can you translate] [this|a letter] [into|to] {t}.",
            "What do you call [a table|a friend|a station] in {t}?",
            "[What is|What's] the {t} word for [dog|house|bread]?",
        ),
        f"{_I_AM} and cannot translate.",
    ),
    Kind(
        words.CITIES,
        expand_all(
            "[What is the|How is the] weather [today|tomorrow] in {t}?",
            "Will it rain in {t} [today|tomorrow]?",
            "[What is|What's] [in the news|new|happening] in {t}[ today|]?",
        ),
        f"{_I_AM}. I have no news, weather or other live data.",
    ),
    Kind(
        _COMPLAINTS,
        expand_all(
            "I have {t}[. What should I do?|, what can I take?|. What helps?]",
            "[What helps|Which medicine helps|What can I do] against {t}?",
            "Is {t} dangerous?",
        ),
        f"{_I_AM} and cannot give medical advice. Please ask a doctor.",
    ),
    Kind(
        _PEOPLE,
        expand_all(
            "Who was {t}?",
            "When was {t} born?",
            "[What did|Why did] {t} [do|become famous]?",
            "[Tell me something|What do you know] about {t}.",
            "When did {t} die?",
        ),
        f"{_I_AM} and know nothing about people or history.",
    ),
    Kind(
        _SUBJECTS,
        expand_all("Why is {t}?", "[Can you explain|Explain|Do you know] why is {t}?"),
        f"{_I_AM} and cannot explain the world.",
    ),
    Kind(
        _TASKS,
        expand_all(
            "[Write|Give me|Show me] a [program|script|function|Python script] that {t}.",
            "Can you [write|code] [a program|a function] that {t}?",
        ),
        f"{_I_AM} and cannot write programs.",
    ),
    Kind(
        tuple(str(n) for n in range(3, 99)),
        expand_all(
            "What is {t} [times|multiplied by|divided by|minus] {u}?",
            "[Calculate|Compute] {t} [*|/|-|x] {u}.",
            "What is the square root of {t}?",
        ),
        f"{_I_AM}. I can only add numbers up to 50.",
    ),
)


def refusal(rng: random.Random) -> Example:
    """A request that is beyond the model, and the answer that says so."""
    kind = rng.choice(_KINDS)
    topic = rng.choice(kind.topics)
    question = rng.choice(kind.requests).format(t=topic, u=rng.randint(2, 99))
    return ask(rng, SKILL, question, reply=kind.answer, keys=combination_keys(topic, question))
