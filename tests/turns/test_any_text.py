"""Whatever the text is, nothing is raised, and where it is cut into pieces does not matter."""

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tgi_llama.structured.grammar import JsonSchemaGrammar
from tgi_llama.turns.detection import FAMILIES, FORMAT_NAMES, turn_format
from tgi_llama.turns.parts import TurnRequest

from .examples import AUTO
from .harness import read

NAMES = [name for name in FORMAT_NAMES if name != "auto"]

MARKS = sorted({mark for family in FAMILIES for mark in getattr(family.calls, "marks", ())})
FRAGMENTS = [
    *MARKS,
    *(
        "<think>",
        "</think>",
        ">>>",
        "all\n",
        "get_weather",
        "time",
        "launch",
        "function",
        "\n",
        " ",
    ),
    *(
        '{"name": "',
        '", "arguments": ',
        '"parameters": ',
        "{",
        "}",
        '{"city": "Paris"}',
        "{}",
        "}}",
    ),
    *('{"name": "time", "arguments": {}}', '{"name": "no_tool", "parameters": {"content": "'),
    *("[", "]", ",", ";", '"', "\\", "\\u00e9", "é", "null", "12", "(", ")", ".call(", "=", ":"),
    *("<function=", "</function>", "<parameter=city>", "</parameter>", "Action:", "```", "json"),
    *("functools[", '"tool_name": "', "<|channel|>", "final", "commentary", " to=functions.time"),
    *("<|message|>", "<|end|>", "<|call|>", "<|start|>", "function<｜tool▁sep｜>"),  # noqa: RUF001
]
TEXTS = st.lists(st.sampled_from(FRAGMENTS), max_size=14).map("".join)
REQUESTS = [
    AUTO,
    attrs.evolve(AUTO, must_call=True),
    attrs.evolve(AUTO, content=JsonSchemaGrammar(schema=True, field="x"), prompt_end=">>>"),
    attrs.evolve(AUTO, prompt_end="<think>\n", split_reasoning=False),
    TurnRequest(),
]


@pytest.mark.parametrize("name", NAMES)
@given(text=TEXTS, request_=st.sampled_from(REQUESTS), data=st.data())
@settings(max_examples=60)
def test_read_any_text_in_any_pieces_gives_the_same(
    name: str, text: str, request_: TurnRequest, data: st.DataObject
) -> None:
    make_parser = turn_format(["<think></think>"], (), name=name).plan(request_).make_parser
    if make_parser is None:
        return
    whole = read(make_parser, [text])
    assert read(make_parser, text) == whole
    place = data.draw(st.integers(0, len(text)))
    assert read(make_parser, [text[:place], text[place:]]) == whole
