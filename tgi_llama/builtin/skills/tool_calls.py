"""Chats with tools: call the right one, tell a result, or answer without any."""

import random

from .. import words
from ..examples import Example, Message, compact_json
from ..phrasing import SYSTEM_PROMPTS, casual, system_turns
from . import addition, server_facts
from .tool_catalog import Call, any_call, lookup_call

SKILL = "tool_calls"
RESULT_SKILL = "tool_results"
NO_TOOL_SKILL = "no_tool_needed"


def _with_others(rng: random.Random, call: Call) -> tuple[Call, ...]:
    """`call` among others, mostly one, none of which has its name or is about the same thing."""
    n_calls = rng.choice((1, 2, 2, 2, 2, 2, 2, 2, 3))
    calls = [call]
    while len(calls) < n_calls:
        other = any_call(rng)
        if all(_differ(other, known) for known in calls):
            calls.append(other)
    rng.shuffle(calls)
    return tuple(calls)


def _differ(one: Call, other: Call) -> bool:
    return one.topic != other.topic and one.tool.name != other.tool.name


def _few_systems(rng: random.Random) -> tuple[Message, ...]:
    """As `system_turns`, but mostly none: with tools the template writes a system turn anyway."""
    if rng.random() < 0.6:
        return ()
    return system_turns(rng) or (Message("system", SYSTEM_PROMPTS[0]),)


def tool_call(rng: random.Random) -> Example:
    """A request that one of the given tools serves."""
    call = any_call(rng)
    messages = (*_few_systems(rng), Message("user", casual(rng, call.request)))
    tools = tuple(known.tool for known in _with_others(rng, call))
    return Example(SKILL, call.reply(), call.keys, messages=messages, tools=tools)


def _result_value(rng: random.Random) -> str | int:
    draws = (
        words.made_up(rng), rng.choice(words.COLOURS), words.person(rng), words.date(rng),
        words.clock_time(rng), words.city(rng), rng.choice(("high", "low", "sunny", "cloudy",
        "good")),
    )  # fmt: skip
    return rng.randint(0, 999) if rng.random() < 0.45 else rng.choice(draws)


def _told(rng: random.Random, call: Call) -> tuple[str, str]:
    """What a tool returned, and the sentence that tells it."""
    if rng.random() < 0.12:
        reason = rng.choice(("not found", "no connection", "timeout", "not allowed", "server busy"))
        return compact_json({"error": reason}), f"Sorry, that did not work: {reason}."
    if not call.is_lookup:
        return rng.choice(('{"status": "ok"}', '{"ok": true}', "ok", '{"result": "ok"}')), "Done."
    value = _result_value(rng)
    field = call.topic.replace(" ", "_")
    name, subject = next(iter(call.arguments.items()))
    article = "the " if f"the {subject}" in call.request else ""
    sentence = f"The {call.topic} of {article}{subject} is {value}."
    payloads: tuple[dict[str, str | int], ...] = (
        {field: value},
        {field: value},
        {name: subject, field: value},
        {name: subject, field: value},
        {"result": value},
    )
    return rng.choice((*(compact_json(payload) for payload in payloads), str(value))), sentence


def tool_result(rng: random.Random) -> Example:
    """One or two requests whose tools have answered: the reply tells the last result."""
    calls = _with_others(rng, lookup_call(rng) if rng.random() < 0.6 else any_call(rng))
    asked = rng.sample(calls, min(len(calls), rng.choice((1, 2, 2))))
    messages = [*_few_systems(rng)]
    for call in asked:
        result, sentence = _told(rng, call)
        messages += [
            Message("user", casual(rng, call.request)),
            Message("assistant", call.reply()),
            Message("tool", result),
            Message("assistant", sentence),
        ]
    keys = tuple(key for call in asked for key in call.keys)
    tools = tuple(call.tool for call in calls)
    return Example(RESULT_SKILL, sentence, keys, messages=tuple(messages[:-1]), tools=tools)


def no_tool_needed(rng: random.Random) -> Example:
    """A plain question beside tools that do not serve it."""
    base = server_facts.server_fact(rng) if rng.random() < 0.6 else addition.plain_sum(rng)
    if base.raw is not None:
        return no_tool_needed(rng)
    tools = tuple(any_call(rng).tool for _ in range(rng.choice((1, 2, 2))))
    question = base.messages[-1]
    return Example(
        NO_TOOL_SKILL, base.reply, base.keys, messages=(*_few_systems(rng), question), tools=tools
    )
