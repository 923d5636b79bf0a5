"""Every prompt is byte for byte what ``transformers`` makes of the same conversation, and what it
refuses is refused, but for the rules below.

Needs TEST_REFERENCE_PYTHON, the Python of an environment with transformers.
"""

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from tgi_llama.text.template_dialects import described, simplified, with_object_arguments

from .conversations import Conversation, conversations
from .own_templates import (
    NOW,
    OWN,
    SPECIAL,
    prompt_of,
    recorded,
    recorded_conversations,
    template_of,
)

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "chat-templates"
NAMES = sorted(path.name for path in FOLDER.glob("*.jinja"))
PROGRAM = Path(__file__).with_name("reference_prompts.py")
PYTHON = os.environ.get("TEST_REFERENCE_PYTHON", "")
CONVERSATIONS = list(conversations())

pytestmark = pytest.mark.skipif(not PYTHON, reason="TEST_REFERENCE_PYTHON is not set")

# Where we differ on purpose. Each rule changes a conversation into one of which transformers makes
# what we make of the original.


def as_system(source: str, conversation: Conversation) -> Conversation:
    """OpenAI's newer word for a system message, which OpenAI's clients send, is unknown to most
    models: they get the word that they know."""
    if "developer" in source:
        return conversation
    return with_messages(
        conversation,
        lambda m: {**m, "role": "system"} if m["role"] == "developer" else m,
    )


def with_both_names(source: str, conversation: Conversation) -> Conversation:  # noqa: ARG001
    """Templates read an answer's reasoning as ``reasoning_content`` or as ``thinking``, clients
    send one of both: it comes under both names."""

    def both(message: dict[str, Any]) -> dict[str, Any]:
        reasoning = message.get("reasoning_content") or message.get("thinking")
        if reasoning is None:
            return message
        return {"thinking": reasoning, **message, "reasoning_content": reasoning}

    return with_messages(conversation, both)


def with_text_arguments(source: str, conversation: Conversation) -> Conversation:
    """Servers get arguments as a text or an object and cannot know what the template wants; those
    that join them to a text want a text, and DeepSeek's shows calls where there is no content
    only."""
    if "+ tool['function']['arguments'] +" not in "".join(source.split("\n")):
        return conversation

    def as_text(message: dict[str, Any]) -> dict[str, Any]:
        if not message.get("tool_calls"):
            return message
        calls = []
        for call in message["tool_calls"]:
            arguments = call["function"]["arguments"]
            if not isinstance(arguments, str):
                arguments = json.dumps(arguments, ensure_ascii=False)
            calls.append({**call, "function": {**call["function"], "arguments": arguments}})
        return {**message, "tool_calls": calls, "content": message.get("content") or None}

    return with_messages(conversation, as_text)


RULES = (as_system, with_both_names, with_text_arguments)

# What transformers fails at, not on purpose, is tried in easier forms: a chat with tools should not
# end in an error because a description is missing. Names for the variants after the first.

EASIER = (
    "arguments as objects",
    "tools with descriptions, and an empty list where there are none",
    "tools with simple schemas",
)


def easier(conversation: Conversation) -> list[Conversation]:
    chat = with_object_arguments(list(conversation.messages))
    tools = described(conversation.tools or ())
    return [
        attrs.evolve(conversation, messages=tuple(chat)),
        attrs.evolve(conversation, messages=tuple(chat), tools=tuple(tools)),
        attrs.evolve(conversation, messages=tuple(chat), tools=tuple(simplified(tools))),
    ]


def with_messages(
    conversation: Conversation, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> Conversation:
    return attrs.evolve(conversation, messages=tuple(map(change, conversation.messages)))


def ruled(source: str, conversation: Conversation) -> Conversation:
    for rule in RULES:
        conversation = rule(source, conversation)
    return conversation


@pytest.fixture(scope="module")
def sources() -> Mapping[str, str]:
    return {name: (FOLDER / name).read_text() for name in NAMES} | OWN


@pytest.fixture(scope="module")
def reference(sources: Mapping[str, str]) -> Mapping[str, list[dict[str, Any]]]:
    """What transformers makes of all conversations, by template."""
    jobs = []
    for name, source in sources.items():
        for conversation in CONVERSATIONS:
            first = ruled(source, conversation)
            jobs.append([name, list(map(attrs.asdict, (first, *easier(first))))])
    for _, variants in jobs:
        for variant in variants:
            assert isinstance(variant, dict)
            del variant["name"]
    work = {"templates": sources, "now": NOW.isoformat(), "special_tokens": SPECIAL, "jobs": jobs}
    child = subprocess.run(
        [PYTHON, "-W", "ignore", str(PROGRAM)],
        input=json.dumps(work),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
    )
    results = json.loads(child.stdout)
    assert len(results) == len(jobs)
    n = len(CONVERSATIONS)
    return {name: results[i * n : (i + 1) * n] for i, name in enumerate(sources)}


@pytest.mark.parametrize("name", [*NAMES, *OWN])
def test_prompts_are_those_of_transformers(
    name: str, sources: Mapping[str, str], reference: Mapping[str, list[dict[str, Any]]]
) -> None:
    template = template_of(sources[name])
    n_rendered = 0
    different = {}
    for conversation, expected in zip(CONVERSATIONS, reference[name], strict=True):
        prompt = prompt_of(template, conversation)
        n_rendered += prompt is not None
        if prompt != expected.get("prompt"):
            different[conversation.name] = (prompt, expected)
    assert not different
    assert n_rendered >= 30


@pytest.mark.parametrize("name", OWN)
def test_recorded_prompts_are_those_of_transformers(
    name: str, reference: Mapping[str, list[dict[str, Any]]]
) -> None:
    """Those that the tests without transformers expect; ``own_templates`` says how to record."""
    made = {
        conversation.name: one.get("prompt")
        for conversation, one in zip(CONVERSATIONS, reference[name], strict=True)
        if conversation in recorded_conversations()
    }
    assert recorded()[name] == made


@pytest.mark.skipif(not NAMES, reason="the templates of models are not there")
def test_each_rule_is_needed(
    sources: Mapping[str, str], reference: Mapping[str, list[dict[str, Any]]]
) -> None:
    for rule in RULES:
        assert any(
            rule(source, conversation) != conversation
            for source in sources.values()
            for conversation in CONVERSATIONS
        ), rule.__name__
    used = {one.get("index", 0) for results in reference.values() for one in results}
    assert used == {0, *range(1, len(EASIER) + 1)}
