"""The built-in model calls tools and extracts JSON through the API: on examples that it was not
trained on, as its card says of the bare model."""

import json
import random
from collections.abc import Callable, Iterator

import pytest
from openai import OpenAI

from tgi_llama.builtin.examples import Example
from tgi_llama.builtin.skills.json_extraction import json_extraction
from tgi_llama.builtin.skills.tool_calls import no_tool_needed, tool_call

N_EXAMPLES = 40


@pytest.fixture
def client(server_url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server_url}/v1", api_key="none", max_retries=0) as client:
        yield client


def held_out(make: Callable[[random.Random], Example]) -> list[Example]:
    rng = random.Random("through the API")
    found: dict[Example, None] = {}
    while len(found) < N_EXAMPLES:
        example = make(rng)
        if example.held_out and example.raw is None:
            found[example] = None
    return list(found)


def ask(client: OpenAI, example: Example, **fields: object):  # type: ignore[no-untyped-def]
    answer = client.chat.completions.create(
        model="tgi",
        messages=[{"role": m.role, "content": m.content} for m in example.messages],  # type: ignore[arg-type,misc]
        temperature=0,
        max_tokens=150,
        **fields,  # type: ignore[arg-type]
    )
    return answer.choices[0].message


def declared(example: Example) -> list[object]:
    return [tool.declaration() for tool in example.tools]


def call_of(reply: str) -> tuple[str, object]:
    call = json.loads(reply.removeprefix("<tool_call>\n").removesuffix("\n</tool_call>"))
    return call["name"], call["arguments"]


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_tools_are_called_as_the_model_was_taught(client: OpenAI, choice: str) -> None:
    examples = held_out(tool_call)
    n_right = 0
    for example in examples:
        message = ask(client, example, tools=declared(example), tool_choice=choice)
        calls = [
            (c.function.name, json.loads(c.function.arguments)) for c in message.tool_calls or ()
        ]
        n_right += calls == [call_of(example.reply)]
    assert n_right >= 0.85 * len(examples)


def test_questions_beside_tools_are_answered(client: OpenAI) -> None:
    examples = held_out(no_tool_needed)
    answers = [ask(client, example, tools=declared(example)).content for example in examples]
    right = [a == e.reply for a, e in zip(answers, examples, strict=True)]
    assert sum(right) >= 0.85 * len(examples)


def schema_of(value: object) -> dict[str, object]:
    """Of an object like this one."""
    assert isinstance(value, dict)
    kinds = {str: "string", int: "integer", float: "number"}
    return {
        "type": "object",
        "properties": {name: {"type": kinds[type(one)]} for name, one in value.items()},
        "required": list(value),
        "additionalProperties": False,
    }


def test_fields_of_a_sentence_come_as_the_schema_says(client: OpenAI) -> None:
    examples = held_out(json_extraction)
    n_right = 0
    for example in examples:
        expected = json.loads(example.reply)
        schema = {"name": "fields", "schema": schema_of(expected)}
        made_to = {"type": "json_schema", "json_schema": schema}
        got = json.loads(ask(client, example, response_format=made_to).content)
        n_right += got == expected
    assert n_right >= 0.85 * len(examples)
