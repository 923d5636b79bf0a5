"""Made-up tools: many names, styles and parameters, each with requests that call for it.

What is held out is a tool together with its arguments: that request never occurs in training, so
it can only be answered by reading the definitions and the request.
"""

import random
from collections.abc import Callable

import attrs

from .. import words
from ..examples import Parameter, Tool, combination_keys, compact_json
from .tool_words import (
    LANGUAGES,
    LEVELS,
    OBJECTS,
    PERSON_TOPICS,
    PLACE_TOPICS,
    THING_TOPICS,
    UNITS,
    VERBS,
)

MADE_UP_SHARE = 0.35

Value = str | int
Arguments = dict[str, Value]


@attrs.frozen
class Call:
    """A tool, a request for it, the arguments it should get, and the content they are made of."""

    tool: Tool
    request: str
    arguments: Arguments
    keys: tuple[str, ...]
    topic: str  # what it is about, in words
    is_lookup: bool = False  # whether its result is a value to tell

    def reply(self) -> str:
        """The tool call as the model writes it."""
        call = {"name": self.tool.name, "arguments": self.arguments}
        return f"<tool_call>\n{compact_json(call)}\n</tool_call>"


def _known_or_made_up(rng: random.Random, pool: tuple[str, ...]) -> str:
    """A word of the pool, or often one that nobody knows: a name to be read and not remembered."""
    return words.made_up(rng) if rng.random() < MADE_UP_SHARE else rng.choice(pool)


def _function_name(rng: random.Random, verb: str, noun: str) -> str:
    """A function name of verb and noun, mostly with underscores, now and then in camel case."""
    parts = [*verb.split(), *noun.split()]
    if rng.random() < 0.95:
        return "_".join(parts)
    return parts[0] + "".join(part.capitalize() for part in parts[1:])


def _tool(
    rng: random.Random, name: str, description: str, *, parameters: tuple[Parameter, ...]
) -> Tool:
    """A declaration with the liberties clients take: no description, no `required`, other order."""
    described = tuple(
        attrs.evolve(parameter, description=parameter.description if rng.random() < 0.3 else None)
        for parameter in parameters
    )
    names = tuple(parameter.name for parameter in parameters)
    return Tool(
        name=name,
        description=None if rng.random() < 0.06 else description,
        parameters=described,
        required=names if rng.random() < 0.85 else None,
        description_first=rng.random() < 0.2,
    )


def _lookup(
    topics: tuple[str, ...],
    subjects: Callable[[random.Random], str],
    *,
    parameter_names: tuple[str, ...],
    requests: tuple[str, ...],
) -> Callable[[random.Random], Call]:
    """A family of tools that look one thing up, such as the weather of a place."""

    def make(rng: random.Random) -> Call:
        topic, subject = _known_or_made_up(rng, topics), subjects(rng)
        parameter = rng.choice(parameter_names)
        verb = rng.choice(("get", "get", "fetch", "find", "lookup", "show", "query", "read"))
        description = rng.choice(
            (
                f"{rng.choice(('Get', 'Find', 'Look up', 'Return'))} the {topic} of a {parameter}.",
                f"Returns the {topic} for the given {parameter}",
                f"The {topic} of one {parameter}",
            )
        )
        spec = Parameter(
            parameter, "string", rng.choice((f"The {parameter}", f"Name of the {parameter}"))
        )
        tool = _tool(rng, _function_name(rng, verb, topic), description, parameters=(spec,))
        request = rng.choice(requests).format(topic=topic, subject=subject)
        keys = combination_keys(f"tool:{topic}", subject)
        return Call(
            tool=tool,
            request=request,
            arguments={parameter: subject},
            keys=keys,
            topic=topic,
            is_lookup=True,
        )

    return make


def _set_level(rng: random.Random) -> Call:
    topic, value = _known_or_made_up(rng, LEVELS), rng.randint(0, 120)
    parameter = rng.choice(("value", "level", "amount", "number", "setting"))
    verb = rng.choice(("set", "set", "change", "adjust"))
    spec = Parameter(parameter, "integer", f"The new {topic}")
    name = _function_name(rng, verb, topic)
    tool = _tool(rng, name, f"{verb.capitalize()} the {topic}", parameters=(spec,))
    request = rng.choice(
        (
            "Set the {t} to {v}.", "Change the {t} to {v}, please.", "Put the {t} at {v}.",
            "I want the {t} at {v}.", "Please set the {t} to {v}.", "{t} to {v}",
        )
    ).format(t=topic, v=value)  # fmt: skip
    return Call(
        tool=tool,
        request=request,
        arguments={parameter: value},
        keys=combination_keys(f"tool:{topic}", value),
        topic=topic,
    )


def _act_on_object(rng: random.Random) -> Call:
    verb, noun, name = rng.choice(VERBS), _known_or_made_up(rng, OBJECTS), words.title(rng)
    parameter = rng.choice(("name", "title", f"{noun}_name", "label", noun))
    spec = Parameter(parameter, "string", f"Name of the {noun}")
    description = f"{verb.capitalize()} a {noun}"
    tool = _tool(rng, _function_name(rng, verb, noun), description, parameters=(spec,))
    request = rng.choice(
        (
            "{V} the {n} {x}.", "Please {v} the {n} called {x}.", "Can you {v} the {n} {x}?",
            "I want to {v} the {n} {x}.", "{V} the {n} named {x}, please.", "{V} my {n} {x}.",
        )
    ).format(V=verb.capitalize(), v=verb, n=noun, x=name)  # fmt: skip
    keys = combination_keys(f"tool:{verb} {noun}", name)
    return Call(
        tool=tool,
        request=request,
        arguments={parameter: name},
        keys=keys,
        topic=f"{verb} {noun}",
    )


def _message(rng: random.Random) -> Call:
    to, text = words.person(rng), words.phrase(rng)
    kind = rng.choice(("message", "email", "text", "letter", "reminder", "postcard", "fax", "memo"))
    who, what = rng.choice(
        (("to", "text"), ("recipient", "body"), ("name", "content"), ("person", "message"))
    )
    parameters = (
        Parameter(who, "string", "Who gets it"),
        Parameter(what, "string", "What it says"),
    )
    name = _function_name(rng, "send", kind)
    tool = _tool(rng, name, f"Send a {kind} to somebody", parameters=parameters)
    request = rng.choice(
        (
            "Send {to} a {k} saying {x}.", "Send a {k} to {to}: {x}",
            "Please send {to} this {k}: {x}",
            'Send a {k} to {to} that says "{x}".',
        )
    ).format(to=to, k=kind, x=text)  # fmt: skip
    keys = combination_keys(f"tool:send {kind}", to, text)
    return Call(
        tool=tool,
        request=request,
        arguments={who: to, what: text},
        keys=keys,
        topic=f"send {kind}",
    )


def _order(rng: random.Random) -> Call:
    verb = rng.choice(("order", "buy", "reserve", "add", "pack", "ship", "return"))
    thing, count = words.item(rng), rng.randint(2, 60)
    noun = rng.choice(("item", "product", "article", "goods"))
    number = rng.choice(("quantity", "count", "amount", "number"))
    parameters = (
        Parameter(noun, "string", f"The {noun}"),
        Parameter(number, "integer", "How many"),
    )
    name = _function_name(rng, verb, noun)
    tool = _tool(rng, name, f"{verb.capitalize()} some {noun}", parameters=parameters)
    request = rng.choice(
        (
            "{V} {c} of the {x}.",
            "Please {v} {c} x {x}.",
            "{V} the {x}, {c} pieces.",
            "I want to {v} {c} of the {x}.",
        )
    ).format(V=verb.capitalize(), v=verb, c=count, x=thing)
    keys = combination_keys(f"tool:{verb} {noun}", thing)
    return Call(
        tool=tool,
        request=request,
        arguments={noun: thing, number: count},
        keys=keys,
        topic=f"{verb} {noun}",
    )


def _convert(rng: random.Random) -> Call:
    source, target = rng.sample(UNITS, 2)
    amount = rng.randint(1, 500)
    names = rng.choice(
        (
            ("amount", "from", "to"),
            ("value", "from_unit", "to_unit"),
            ("number", "source", "target"),
        )
    )
    parameters = (
        Parameter(names[0], rng.choice(("integer", "number")), "How much"),
        Parameter(names[1], "string", "Unit to convert from"),
        Parameter(names[2], "string", "Unit to convert to"),
    )
    noun = rng.choice(("units", "amount", "measure", "value"))
    tool = _tool(rng, _function_name(rng, "convert", noun), "Convert units", parameters=parameters)
    request = rng.choice(
        (
            "Convert {a} {s} to {t}.",
            "How much is {a} {s} in {t}?",
            "{a} {s} in {t}, please.",
            "Change {a} {s} into {t}.",
        )
    ).format(a=amount, s=source, t=target)
    arguments: Arguments = {names[0]: amount, names[1]: source, names[2]: target}
    return Call(
        tool=tool,
        request=request,
        arguments=arguments,
        keys=(f"units:{source}:{target}",),
        topic="convert",
    )


def _calculate(rng: random.Random) -> Call:
    verb, sentence = rng.choice(
        (
            ("multiply", "Multiply {a} by {b}."), ("multiply", "What is {a} times {b}?"),
            ("divide", "Divide {a} by {b}."), ("subtract", "What is {a} minus {b}?"),
            ("divide", "What is {a} divided by {b}?"), ("power",
            "What is {a} to the power of {b}?"),
        )
    )  # fmt: skip
    a, b = rng.randint(2, 999), rng.randint(2, 99)
    names = rng.choice((("a", "b"), ("x", "y"), ("first", "second"), ("left", "right")))
    parameters = tuple(Parameter(name, rng.choice(("integer", "number"))) for name in names)
    noun = rng.choice(("", "numbers", "values"))
    name = _function_name(rng, verb, noun) if noun else verb
    tool = _tool(rng, name, f"{verb.capitalize()} two numbers", parameters=parameters)
    request = sentence.format(a=a, b=b)
    keys = (f"numbers:{verb}:{a}:{b}",)
    return Call(
        tool=tool,
        request=request,
        arguments={names[0]: a, names[1]: b},
        keys=keys,
        topic=verb,
    )


def _translate(rng: random.Random) -> Call:
    text, language = words.phrase(rng), rng.choice(LANGUAGES)
    names = rng.choice((("text", "language"), ("sentence", "target"), ("input", "target_language")))
    language_parameter = Parameter(
        names[1], "string", "The language to translate to", LANGUAGES if rng.random() < 0.2 else ()
    )
    parameters = (Parameter(names[0], "string", "What to translate"), language_parameter)
    name = rng.choice(("translate", "translate_text", "translateText", "text_translate"))
    tool = _tool(rng, name, "Translate a text", parameters=parameters)
    request = rng.choice(
        ('Translate "{x}" into {l}.', "Translate to {l}: {x}", "How do you say {x} in {l}?")
    ).format(x=text, l=language)
    arguments: Arguments = {names[0]: text, names[1]: language}
    return Call(
        tool=tool,
        request=request,
        arguments=arguments,
        keys=combination_keys("tool:translate", text, language),
        topic="translate",
    )


_FAMILIES: tuple[Callable[[random.Random], Call], ...] = (
    _lookup(
        PLACE_TOPICS,
        words.city,
        parameter_names=("city", "location", "place", "town"),
        requests=(
            "What is the {topic} in {subject}?", "Tell me the {topic} for {subject}.",
            "{topic} in {subject}?", "How is the {topic} in {subject}?",
            "Show the {topic} of {subject}.",
            "I need the {topic} for {subject}.", "Can you look up the {topic} in {subject}?",
            "What's the {topic} like in {subject} today?",
        ),
    ),
    _lookup(
        THING_TOPICS,
        words.item,
        parameter_names=("item", "product", "article", "object"),
        requests=(
            "What is the {topic} of the {subject}?", "Tell me the {topic} of the {subject}.",
            "{topic} of the {subject}?", "Find the {topic} of the {subject}.",
            "I need the {topic} for the {subject}.", "Can you check the {topic} of the {subject}?",
        ),
    ),
    _lookup(
        PERSON_TOPICS,
        words.person,
        parameter_names=("name", "person", "employee", "user"),
        requests=(
            "What is the {topic} of {subject}?", "Tell me {subject}'s {topic}.",
            "What is {subject}'s {topic}?", "Find the {topic} of {subject}.",
            "I need the {topic} for {subject}.", "Can you look up the {topic} of {subject}?",
        ),
    ),
    _set_level, _act_on_object, _act_on_object, _message, _order, _convert, _calculate, _translate,
)  # fmt: skip

LOOKUPS = _FAMILIES[:3]


def any_call(rng: random.Random) -> Call:
    """A tool of any family with a request for it."""
    return rng.choice(_FAMILIES)(rng)


def lookup_call(rng: random.Random) -> Call:
    """A tool that looks one thing up, whose result can be told in a sentence."""
    return rng.choice(LOOKUPS)(rng)
