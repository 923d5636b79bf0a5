"""Content of a given form beside tools: what looks like a mark in it is none."""

import json

import attrs
import pytest

from tgi_llama.structured.grammar import JsonSchemaGrammar, RegexGrammar
from tgi_llama.turns.detection import FAMILIES, FORMAT_NAMES, turn_format

from .examples import AUTO
from .harness import Turn, check_reading
from .walks import Walker

ANY_TEXT = JsonSchemaGrammar(
    schema={
        "type": "object",
        "properties": {"text": {"type": "string"}},
        "required": ["text"],
        "additionalProperties": False,
    },
    field="response_format",
)
MARKS = sorted(
    {mark for family in FAMILIES for mark in getattr(family.calls, "marks", ())}
    | {">>>time\n", "Action: ```json", "functools[", "<|end|>", "<|return|>", "<function=", "{"}
)
FRAMES = {
    "functionary_v3.2": ("all\n", ""),
    "json": ('{"name": "no_tool", "parameters": {"content": ', "}}"),
    "harmony": ("<|channel|>final<|message|>", ""),
    "command_a": ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    "command_a_text": ("<|START_TEXT|>", "<|END_TEXT|>"),
}
"""What stands around the content."""

NAMES = [name for name in FORMAT_NAMES if name != "auto"]


@pytest.mark.parametrize("name", NAMES)
def test_read_json_of_a_given_form_that_spells_marks_is_content(name: str) -> None:
    before, after = FRAMES.get(name, ("", ""))
    prompt_end = ">>>" if name == "functionary_v3.2" else ""
    request = attrs.evolve(AUTO, content=ANY_TEXT, prompt_end=prompt_end)
    plan = turn_format([], (), name=name).plan(request)
    assert plan.grammar is not None
    assert plan.make_parser is not None
    answer = json.dumps({"text": " ".join(MARKS)}, ensure_ascii=False)
    assert Walker().accepts(plan.grammar, f"{before}{answer}{after}")
    check_reading(plan.make_parser, f"{before}{answer}{after}", Turn(answer))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in FRAMES])
def test_read_text_of_a_given_form_that_spells_marks_is_content(name: str) -> None:
    text = RegexGrammar(pattern=" [A-Z](?s:.*)", field="guided_regex")
    plan = turn_format([], (), name=name).plan(attrs.evolve(AUTO, content=text))
    assert plan.grammar is not None
    assert plan.make_parser is not None
    answer = f" So: {' '.join(MARKS)}"
    assert Walker().accepts(plan.grammar, answer)
    check_reading(plan.make_parser, answer, Turn(answer))
