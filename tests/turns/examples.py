"""Tools that the tests of all formats offer, and ways of asking for them."""

import attrs

from tgi_llama.structured.grammar import ChoiceGrammar, JsonSchemaGrammar
from tgi_llama.turns.parts import ParserFactory, TurnFormat, TurnRequest, TurnTool

WEATHER_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
    "additionalProperties": False,
}
NOTE_SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
    },
    "required": ["text", "tags"],
    "additionalProperties": False,
}

WEATHER = TurnTool(name="get_weather", parameters=WEATHER_SCHEMA, field="tools[0].function")
NOTE = TurnTool(name="get_note", parameters=NOTE_SCHEMA, field="tools[1].function")
TIME = TurnTool(name="time", parameters=None, field="tools[2].function")
TOOLS = (WEATHER, NOTE, TIME)

ANSWER = JsonSchemaGrammar(
    schema={
        "type": "object",
        "properties": {"answer": {"type": "integer"}},
        "required": ["answer"],
        "additionalProperties": False,
    },
    field="response_format",
)
YES_OR_NO = ChoiceGrammar(choices=("yes", "no"), field="guided_choice")

AUTO = TurnRequest(tools=TOOLS)
REQUESTS = {
    "auto": AUTO,
    "one": attrs.evolve(AUTO, parallel=False),
    "must": attrs.evolve(AUTO, must_call=True),
    "must one": attrs.evolve(AUTO, must_call=True, parallel=False),
    "named": TurnRequest(tools=(NOTE,), must_call=True),
    "answer or call": attrs.evolve(AUTO, content=ANSWER),
    "choice or call": attrs.evolve(AUTO, content=YES_OR_NO),
}
"""What formats must be able to do."""

TOOL_OBJECTS = tuple(
    {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": f"Does {tool.name}",
            "parameters": tool.parameters or {"type": "object", "properties": {}},
        },
    }
    for tool in TOOLS
)
"""The tools as a chat template sees them."""


def parser_of(turn_format: TurnFormat) -> ParserFactory:
    """Reads turns that may call the tools."""
    plan = turn_format.plan(AUTO)
    assert plan.make_parser is not None
    return plan.make_parser
