"""The values a skill produces: one prompt, the one right reply, and what must stay out of training.

Every example carries *keys*, one for each piece of content it uses (a pair of summands, a name, a
tool, a phrasing). A key is held out for good or not at all, decided by its hash alone, so the split
does not depend on a seed, on the order of generation, or on the skill that uses the content.
"""

import hashlib
import json

import attrs

HELD_OUT_ONE_IN = 16  # about 6 % of all content is never trained on


@attrs.frozen
class Message:
    """One turn of a chat. `role` is system, user, assistant or tool."""

    role: str
    content: str


@attrs.frozen
class Parameter:
    """One parameter of a tool. `kind` is a JSON schema type."""

    name: str
    kind: str
    description: str | None = None
    choices: tuple[str, ...] = ()

    def schema(self) -> dict[str, object]:
        """The parameter's JSON schema."""
        schema: dict[str, object] = {"type": self.kind}
        if self.description is not None:
            schema["description"] = self.description
        if self.choices:
            schema["enum"] = list(self.choices)
        return schema


@attrs.frozen
class Tool:
    """A function the model may call, as a client would declare it."""

    name: str
    description: str | None
    parameters: tuple[Parameter, ...]
    required: tuple[str, ...] | None = None
    description_first: bool = False

    def declaration(self) -> dict[str, object]:
        """The tool in the layout of OpenAI's `tools` field; clients differ in the order of keys."""
        properties = {parameter.name: parameter.schema() for parameter in self.parameters}
        schema: dict[str, object] = {"type": "object", "properties": properties}
        if self.required is not None:
            schema["required"] = list(self.required)
        named: dict[str, object] = {"name": self.name}
        if self.description is not None:
            described: dict[str, object] = {"description": self.description}
            named = described | named if self.description_first else named | described
        return {"type": "function", "function": named | {"parameters": schema}}


@attrs.frozen
class Example:
    """A prompt and its one right reply.

    Either `messages` (a chat, rendered with the chat template) or `raw` (text without any markup)
    is set. `reply` is the exact text up to the end token.
    """

    skill: str
    reply: str
    keys: tuple[str, ...]
    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = ()
    raw: str | None = None

    @property
    def held_out(self) -> bool:
        """Whether any of its content is reserved for evaluation."""
        return any(is_held_out(key) for key in self.keys)


def is_held_out(key: str) -> bool:
    """Whether content with this key is reserved for evaluation. Depends on nothing but `key`."""
    digest = hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[:4], "big") % HELD_OUT_ONE_IN == 0


def value_keys(*values: object) -> tuple[str, ...]:
    """Keys of names, places and other values that a reply copies."""
    return tuple(f"value:{value}" for value in values if not isinstance(value, int | float))


def combination_keys(*values: object) -> tuple[str, ...]:
    """The key of values that stand together, or none where none of them is reserved: so a reserved
    value occurs in training in other company, and its held-out combinations do not."""
    if not any(is_held_out(key) for key in value_keys(*values)):
        return ()
    return ("together:" + "|".join(str(value) for value in values),)


def sum_key(first: int, second: int) -> str:
    """Key of a pair of summands; both orders of a pair share it."""
    return f"sum:{min(first, second)}+{max(first, second)}"


def compact_json(value: object) -> str:
    """JSON as the model writes it: one line, a space after colons and commas, UTF-8 as it is."""
    return json.dumps(value, ensure_ascii=False)
