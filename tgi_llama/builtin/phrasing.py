"""Ways to put a question: phrasing patterns, system prompts, chat and raw text."""

import itertools
import random
import re

from .examples import Example, Message

_CHOICE = re.compile(r"\[([^\]]*)\]")

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a helpful AI assistant.",
    "You are a friendly assistant. Answer briefly.",
    "You are a concise assistant.",
    "Answer the question.",
    "You are an expert. Be precise.",
    "Be brief.",
    "You are a chatbot for testing.",
    "You answer questions and follow instructions exactly.",
    "You are the demo model of tgi_llama.",
    "Reply politely and to the point.",
    "You are an assistant that helps people with their work.",
    "Always tell the truth. If you cannot do something, say so.",
    "You are a test model running on a small server.",
)

_OPENERS = (
    "Hi! ",
    "Hello, ",
    "Please tell me: ",
    "Quick question: ",
    "One question: ",
    "I would like to know: ",
    "Hey, ",
    "Good morning. ",
)


def expand(pattern: str) -> tuple[str, ...]:
    """All texts of a pattern: `[a|b] c` gives `a c` and `b c`; `[a|]` makes `a` optional."""
    parts = _CHOICE.split(pattern)
    choices = [part.split("|") if i % 2 else [part] for i, part in enumerate(parts)]
    return tuple(dict.fromkeys("".join(combination) for combination in itertools.product(*choices)))


def expand_all(*patterns: str) -> tuple[str, ...]:
    """The texts of several patterns, without repeats, in order."""
    return tuple(dict.fromkeys(text for pattern in patterns for text in expand(pattern)))


def casual(rng: random.Random, text: str) -> str:
    """`text` as somebody in a hurry or in a polite mood would type it; often unchanged."""
    roll = rng.random()
    if roll < 0.08:
        return text[0].lower() + text[1:]
    if roll < 0.16:
        return text.rstrip("?.!")
    if roll < 0.20:
        return (text[0].lower() + text[1:]).rstrip("?.!")
    if roll < 0.27:
        return rng.choice(_OPENERS) + text
    if roll < 0.30:
        return text + " Thanks!"
    return text


def system_turns(rng: random.Random) -> tuple[Message, ...]:
    """No system prompt, the usual one, or another one."""
    roll = rng.random()
    if roll < 0.45:
        return ()
    if roll < 0.65:
        return (Message("system", SYSTEM_PROMPTS[0]),)
    return (Message("system", rng.choice(SYSTEM_PROMPTS)),)


def chat(
    rng: random.Random, skill: str, question: str, *, reply: str, keys: tuple[str, ...]
) -> Example:
    """A chat of one user turn, with or without a system prompt."""
    messages = (*system_turns(rng), Message("user", question))
    return Example(skill=skill, reply=reply, keys=keys, messages=messages)


def raw_question(
    rng: random.Random, skill: str, question: str, *, reply: str, keys: tuple[str, ...]
) -> Example:
    """The question as plain text, as `/generate` sends it, in one of four layouts."""
    layout = rng.randrange(4)
    prompts = (
        f"Question: {question}\nAnswer:",
        f"Q: {question}\nA:",
        f"User: {question}\nAssistant:",
        question,
    )
    lead = "\n" if layout == 3 else " "
    return Example(skill=skill, reply=lead + reply, keys=keys, raw=prompts[layout])


def ask(
    rng: random.Random, skill: str, question: str, *, reply: str, keys: tuple[str, ...]
) -> Example:
    """The question as a chat (mostly) or as raw text."""
    if rng.random() < 0.2:
        return raw_question(rng, skill, question, reply=reply, keys=keys)
    return chat(rng, skill, casual(rng, question), reply=reply, keys=keys)
