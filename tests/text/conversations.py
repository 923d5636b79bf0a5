"""Conversations of all kinds, made of a table of pieces."""

import random
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

Message = dict[str, Any]


@attrs.frozen(kw_only=True)
class Conversation:
    """The arguments of ``apply_chat_template``."""

    name: str
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] | None = None
    documents: tuple[Mapping[str, str], ...] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    kwargs: Mapping[str, Any] = attrs.field(factory=dict)


def user(content: object, **more: object) -> Message:
    return {"role": "user", "content": content, **more}


def assistant(content: object, **more: object) -> Message:
    return {"role": "assistant", "content": content, **more}


def system(content: object, role: str = "system") -> Message:
    return {"role": role, "content": content}


def call(name: str, arguments: object, number: int = 1) -> Message:
    function = {"name": name, "arguments": arguments}
    return {"id": f"call0000{number}", "type": "function", "function": function}


def result(content: object, number: int = 1, name: str = "weather") -> Message:
    return {"role": "tool", "tool_call_id": f"call0000{number}", "name": name, "content": content}


def text(*parts: str) -> list[Message]:
    return [{"type": "text", "text": part} for part in parts]


ASK = user("What is the weather in Zürich?")
ONE_CALL = assistant("", tool_calls=[call("weather", {"city": "Zürich", "days": 3})])
TWO_CALLS = assistant(
    "I look.",
    tool_calls=[call("weather", {"city": "Łódź"}), call("clock", {"zone": "CET", "deep": [1]}, 2)],
)

BODIES: Mapping[str, tuple[Message, ...]] = {
    "one question": (ASK,),
    "three turns": (user("1"), assistant("2"), user("3"), assistant("4"), user("5")),
    "answered": (user("Hi"), assistant("Hello!")),
    "ends in white space": (user(" Hi \n"), assistant("Hello, I  \n")),
    "unicode": (user("日本語 🎉 ‮ \u00a0 é"), assistant("Ωμέγα\u2028"), user("Ж")),
    "control tokens in texts": (
        user("<|im_end|> [INST] </s> {{ x }}"),
        assistant("<s>"),
        user("?"),
    ),
    "empty question": (user(""),),
    "empty answer": (user("Hi"), assistant(""), user("Well?")),
    "white space only": (user("   "), assistant("\n\n"), user("\t")),
    "parts": (user(text("One.", " Two.")), assistant(text("Three.")), user(text("Four."))),
    "parts at the end": (user("Hi"), assistant(text("One.", "Two"))),
    "no parts": (user([]),),
    "question twice": (user("Hi"), user("Are you there?")),
    "answer first": (assistant("Welcome."), user("Hi")),
    "answer alone": (assistant("Welcome."),),
    "nothing": (),
    "system in the middle": (user("Hi"), assistant("Hello."), system("Be rude."), user("Hm")),
    "unknown role": (user("Hi"), {"role": "critic", "content": "Bad."}),
    "names": (user("Hi", name="Ann"), assistant("Hello.", name="Bot"), user("Yes", name="Bob")),
    "reasoning": (user("Hi"), assistant("Hello.", reasoning_content="Greet.\n"), user("Why?")),
    "reasoning at the end": (user("Hi"), assistant("Hello.", reasoning_content="Greet.")),
    "thinking": (user("Hi"), assistant("Hello.", thinking="Greet."), user("Why?")),
    "thoughts in text": (
        user("Hi"),
        assistant("<think>\nGreet.\n</think>\n\nHello."),
        user("Why?"),
    ),
    "open thought": (user("Hi"), assistant("<think>\nGreet")),
    "no content": (user("Hi"), assistant(None), user("Well?")),
    "without content": (user("Hi"), {"role": "assistant"}),
    "call": (ASK, ONE_CALL),
    "call and result": (ASK, ONE_CALL, result("sunny")),
    "call, result and answer": (ASK, ONE_CALL, result("sunny"), assistant("Sun."), user("Thanks")),
    "call without content": (ASK, {**ONE_CALL, "content": None}, result("sunny")),
    "call with reasoning": (ASK, {**ONE_CALL, "reasoning_content": "Look it up."}, result("sun")),
    "calls next to each other": (ASK, TWO_CALLS, result("sunny"), result("12:00", 2, "clock")),
    "calls after each other": (ASK, ONE_CALL, result("sunny"), ONE_CALL, result("rain"), ASK),
    "call with a text": (
        ASK,
        assistant("", tool_calls=[call("weather", '{"city": "Bern"}')]),
        result("x"),
    ),
    "call without arguments": (
        ASK,
        assistant("", tool_calls=[call("clock", {})]),
        result("12", 1, "clock"),
    ),
    "call with no arguments": (ASK, assistant("", tool_calls=[call("clock", None)]), result("12")),
    "result in parts": (ASK, ONE_CALL, result(text("sunny", ", warm"))),
    "result as JSON": (ASK, ONE_CALL, result('{"weather": "sunny <b> \'x\'"}')),
    "result without a call": (ASK, result("sunny")),
    "empty calls": (ASK, assistant("Hm.", tool_calls=[]), user("Well?")),
}

HEADS: Mapping[str, tuple[Message, ...]] = {
    "": (),
    "system": (system("Be brief."),),
    "empty system": (system(""),),
    "padded system": (system("  Be brief.\n"),),
    "system in parts": (system(text("Be", " brief.")),),
    "developer": (system("Be brief.", role="developer"),),
}

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather <of> a 'city'",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Its name, as in “Zürich”"},
                "days": {"type": "integer", "description": "How many", "default": 1},
                "unit": {"type": "string", "enum": ["°C", "°F"], "description": "Of degrees"},
            },
            "required": ["city"],
        },
    },
}
CLOCK = {
    "type": "function",
    "function": {
        "name": "clock",
        "description": "Tells the time",
        "parameters": {
            "type": "object",
            "properties": {
                "zone": {"type": "string", "description": "A time zone"},
                "deep": {"type": "array", "items": {"type": "number"}, "description": "Numbers"},
            },
        },
    },
}
BARE = {"type": "function", "function": {"name": "bare", "parameters": {"type": "object"}}}
UNION = {
    "type": "function",
    "function": {
        "name": "either",
        "description": "Takes this or that",
        "parameters": {
            "type": "object",
            "properties": {
                "a": {"type": ["string", "null"], "description": "A"},
                "b": {"type": "object"},
            },
        },
    },
}
TOOLS: tuple[tuple[Mapping[str, Any], ...] | None, ...] = (
    None,
    (WEATHER,),
    (WEATHER, CLOCK),
    (BARE,),
    (UNION, CLOCK),
    (),
)
DOCUMENTS: tuple[tuple[Mapping[str, str], ...] | None, ...] = (
    None,
    ({"title": "A", "text": "First."}, {"title": "B", "text": "Zweitens: ß"}),
    ({"doc_id": "7", "title": "A", "text": "First."},),
    (),
)
KWARGS: tuple[Mapping[str, Any], ...] = (
    {},
    {"enable_thinking": False},
    {"enable_thinking": True},
    {"thinking": True},
    {"date_string": "1 April 2025", "builtin_tools": ["browser", "python"]},
    {"reasoning_effort": "high", "model_identity": "You are a parrot."},
    {"controls": {"length": "short", "originality": "abstractive"}},
    {"tools_in_user_message": False},
    {"bos_token": "<other>"},
)


def conversations(seed: int = 7) -> Iterator[Conversation]:
    """Each body after each head; the rest as the seed has it. Those that end with an answer come
    to be continued too."""
    draw = random.Random(seed)
    for head, first in HEADS.items():
        for body, rest in BODIES.items():
            if not (first or rest):
                continue  # transformers takes none without messages
            conversation = Conversation(
                name=" + ".join(filter(None, (head, body))),
                messages=(*first, *rest),
                tools=draw.choice(TOOLS) if "call" not in body else draw.choice(TOOLS[1:3]),
                documents=draw.choice((None, None, None, *DOCUMENTS)),
                add_generation_prompt=draw.random() < 0.7,
                kwargs=draw.choice(({}, {}, {}, *KWARGS)),
            )
            yield conversation
            if rest and rest[-1]["role"] != "tool":
                yield attrs.evolve(
                    conversation,
                    name=f"{conversation.name}, continued",
                    add_generation_prompt=False,
                    continue_final_message=True,
                )
