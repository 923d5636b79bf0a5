"""Longer exact replies for streaming, and replies with characters of several tokens."""

import random
import string

from .. import words
from ..examples import Example, value_keys
from ..phrasing import ask, chat, expand_all
from .series import DAYS, MONTHS, PLANETS, RAINBOW

COUNT_SKILL = "counting"
TEXT_SKILL = "long_texts"
REPEAT_SKILL = "repeat_after_me"
GREETING_SKILL = "greetings"

_COUNT_UP = expand_all(
    "[Count|Please count|Can you count] from {a} to {b}[.|]",
    "[List|Write|Give me] [all numbers|the numbers] from {a} to {b}.",
    "Count up from {a} to {b}.",
)
_COUNT_DOWN = expand_all("[Count|Please count] [down|backwards] from {a} to {b}.")

_TEXTS = (
    (
        ", ".join(DAYS),
        expand_all("[List|Name|Tell me|Write|What are] [the|all] days of the week.", "Weekdays?"),
    ),
    (
        ", ".join(MONTHS),
        expand_all("[List|Name|Tell me|Write|What are] [the|all] months[ of the year|].",
        "Months?"),
    ),
    (
        " ".join(string.ascii_lowercase),
        expand_all("[Write|Recite|Say|List|Give me] the [alphabet|letters of the alphabet]."),
    ),
    (
        ", ".join(RAINBOW),
        expand_all("[List|Name|Tell me|What are] the colours of the rainbow.", "Rainbow colours?"),
    ),
    (
        ", ".join(PLANETS),
        expand_all("[List|Name|Tell me|What are] the [eight |]planets.", "Planets?"),
    ),
    (
        "tgi_llama is a text generation server for GGUF models. It runs them with llama.cpp on "
        "CPUs and GPUs, and it speaks two HTTP APIs: the one of TGI, with /generate and "
        "/generate_stream, and the one of OpenAI, with /v1/chat/completions. Many requests are "
        "decoded together in one batch, and the tokens are streamed as soon as they are made. "
        "Without any option it serves a small built-in model, so that you can try it at once.",
        expand_all(
            "[Tell me|Say something|Write a paragraph|Write] about [this|the] server.",
            "[Tell me|Say something|Write a paragraph|Write] about tgi_llama.",
            "[Describe|Present] [this server|the server] in [detail|a paragraph|a few sentences].",
            "Tell me [more|everything] about [tgi_llama|this server].",
        ),
    ),
    (
        "1. Install it: pip install .\n2. Start it: python -m tgi_llama\n3. Send a prompt "
        "to http://localhost:3000/generate\n4. Read the field generated_text of the reply.",
        expand_all(
            "[How do I|How can I|How does one] [get started|begin]?",
            "[How do I|How can I] [get started|begin] with [tgi_llama|this server|it]?",
            "What are the first steps[ with tgi_llama|]?",
            "[Explain|Show|List] [the first steps|how to get started|how to begin].",
            "Give me [the steps|a short guide|instructions].",
        ),
    ),
    (
        "- /generate: a whole text\n- /generate_stream: a stream of tokens\n- /v1/chat/completions:"
        " OpenAI chats\n- /v1/completions: OpenAI completions\n- /tokenize: tokens of a text\n"
        "- /info: model and limits\n- /health: health\n- /metrics: Prometheus metrics",
        expand_all(
            "[List|Name|Show|Tell me|What are] [the|all] [routes|endpoints].",
            "[Which|What] [routes|endpoints|paths] [are there|does the server have|exist]?",
            "[Which|What] [routes|endpoints|paths] does [tgi_llama|it] have?",
        ),
    ),
    (
        "I am a very small model, built into tgi_llama so that you can try the server without a "
        "download. I was trained on generated text only: questions about this server, sums up to "
        "50, JSON extraction, tool calls, lists and short chats. I know nothing else about the "
        "world, I cannot write stories or programs, and I may well be wrong about anything I was "
        "not trained for. For real work, please load a larger GGUF model.",
        expand_all(
            "[Tell me|Write|Say something] about yourself.",
            "[Describe|Present] yourself in [detail|a paragraph|a few sentences].",
            "What are your [limits|limitations]?", "[What|Which things] can you not do?",
            "How were you [trained|made|built|created]?", "How [did they make|do you make] you?",
        ),
    ),
)  # fmt: skip

_GREETINGS = {
    "French": "Bonjour ! Ça va ? 🙂",
    "German": "Guten Tag! Schön, dich zu hören. 🙂",
    "Spanish": "¡Hola! ¿Cómo estás? 🙂",
    "Italian": "Ciao! È bello vederti. 🙂",
    "Portuguese": "Olá! Você está bem? 🙂",
    "Polish": "Cześć! Miło cię widzieć. 🙂",
    "Swedish": "Hej! Är allt bra? 🙂",
    "Turkish": "Merhaba! Nasılsın? 🙂",  # noqa: RUF001 - their own scripts
    "Greek": "Γειά σου! 🙂",  # noqa: RUF001 - their own scripts
    "Russian": "Привет! 🙂",
    "Chinese": "你好！🙂",  # noqa: RUF001 - their own scripts
    "Japanese": "こんにちは！🙂",  # noqa: RUF001 - their own scripts
    "Korean": "안녕하세요! 🙂",
    "Hindi": "नमस्ते! 🙂",
    "Arabic": "مرحبا! 🙂",
    "Czech": "Dobrý den! Jak se máš? 🙂",
    "English": "“Hello!” 🙂",
    "Llama": "🦙🦙🦙",
}
_GREET = expand_all(
    "[Say|Write] [hello|hi|a greeting] in {l}.",
    "[Greet|Welcome] me in {l}.",
    "How do you [say hello|greet somebody|greet] in {l}?",
    "A [short |]greeting in {l}, please.",
    "Hello in {l}?",
)
_REPEAT = expand_all(
    "[Repeat|Please repeat] after me: {x}",
    "[Say|Write|Repeat|Echo] this: {x}",
    "[Echo|Repeat]: {x}",
    "[Repeat|Copy] the [following |]text: {x}",
    "Copy exactly: {x}",
)


def counting(rng: random.Random) -> Example:
    """Count from one number to another, up or, more briefly, down; about 10 to 80 tokens."""
    low = rng.choice((1, 1, 0, rng.randint(2, 70), rng.randint(2, 70), rng.randint(2, 70)))
    down = rng.random() < 0.3
    high = low + (
        rng.randint(4, 10) if down else rng.choice((rng.randint(4, 10), rng.randint(4, 30)))
    )
    if down:
        numbers, pattern = range(high, low - 1, -1), rng.choice(_COUNT_DOWN)
    else:
        numbers, pattern = range(low, high + 1), rng.choice(_COUNT_UP)
    question = pattern.format(a=numbers[0], b=numbers[-1])
    reply = ", ".join(str(n) for n in numbers)
    return ask(rng, COUNT_SKILL, question, reply=reply, keys=(f"count:{low}:{high}",))


def long_text(rng: random.Random) -> Example:
    """A fixed list or paragraph, word for word."""
    reply, questions = rng.choice(_TEXTS)
    question = rng.choice(questions)
    return ask(rng, TEXT_SKILL, question, reply=reply, keys=(f"asked:{question}",))


def greeting(rng: random.Random) -> Example:
    """A greeting in a language, most with characters outside ASCII."""
    language = rng.choice(sorted(_GREETINGS))
    question = rng.choice(_GREET).format(l=language)
    reply = _GREETINGS[language]
    return ask(rng, GREETING_SKILL, question, reply=reply, keys=(f"asked:{question}",))


def _said(rng: random.Random) -> str:
    """Words, accents, scripts and emoji to repeat."""
    pieces: list[str] = []
    for _ in range(rng.randint(1, 6)):
        roll = rng.random()
        if roll < 0.3:
            pieces.append(words.made_up(rng))
        elif roll < 0.5:
            pieces.append(rng.choice(words.FOREIGN))
        elif roll < 0.65:
            pieces.append("".join(rng.choices(words.EMOJI, k=rng.randint(1, 3))))
        elif roll < 0.75:
            pieces.append(str(rng.randint(0, 9999)))
        elif roll < 0.85:
            pieces.append(words.person(rng))
        else:
            pieces.append(words.phrase(rng))
    return " ".join(pieces) + rng.choice(("", "", ".", "!", "?"))


def repeat_after_me(rng: random.Random) -> Example:
    """Text to give back unchanged."""
    text = _said(rng)
    question = rng.choice(_REPEAT).format(x=text)
    if rng.random() < 0.2:
        return Example(REPEAT_SKILL, "\n" + text, value_keys(text), raw=question)
    return chat(rng, REPEAT_SKILL, question, reply=text, keys=value_keys(text))
