import pytest

from tgi_llama.errors import ValidationError
from tgi_llama.structured.grammar import CompositeGrammar
from tgi_llama.turns.formats import MarkedFormat, arguments_grammar
from tgi_llama.turns.hermes import HermesCalls
from tgi_llama.turns.parts import TurnRequest, TurnTool

from .walks import Walker


def tool(parameters: object, name: str = "time") -> TurnTool:
    return TurnTool(name=name, parameters=parameters, field="tools[3].function")


@pytest.mark.parametrize(
    ("parameters", "schema"),
    [
        (None, {"type": "object"}),
        (True, {"type": "object"}),
        ({}, {"type": "object"}),
        ({"properties": {"a": {}}}, {"properties": {"a": {}}, "type": "object"}),
        ({"type": ["object", "null"]}, {"type": "object"}),
        ({"type": "object", "required": ["a"]}, {"type": "object", "required": ["a"]}),
    ],
)
def test_arguments_grammar_is_that_of_an_object(parameters: object, schema: object) -> None:
    grammar = arguments_grammar(tool(parameters))
    assert grammar.schema == schema
    assert grammar.field == "tools[3].function.parameters"


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        (False, "tools[3].function.parameters"),
        ([], "tools[3].function.parameters"),
        ({"type": "string"}, "tools[3].function.parameters.type"),
        ({"type": ["array", "null"]}, "tools[3].function.parameters.type"),
    ],
)
def test_arguments_grammar_of_something_else_is_refused(parameters: object, field: str) -> None:
    with pytest.raises(ValidationError, match="must be a JSON Schema of an object") as caught:
        arguments_grammar(tool(parameters))
    assert caught.value.field == field


def test_plan_names_that_begin_alike_are_told_apart() -> None:
    names = ["get", "get_weather", "get_weather_now", 'a "b"', "日本", "a/b.c:d-e"]
    request = TurnRequest(tools=[tool(None, name) for name in names])
    grammar = MarkedFormat(HermesCalls()).plan(request).grammar
    assert isinstance(grammar, CompositeGrammar)
    walker = Walker()
    for name in names:
        quoted = name.replace('"', '\\"')
        call = f'<tool_call>\n{{"name": "{quoted}", "arguments": {{}}}}\n</tool_call>'
        assert walker.accepts(grammar, call)
    assert not walker.accepts(grammar, call.replace("a/b", "a/c"))


def test_plan_parts_have_names_of_their_own() -> None:
    request = TurnRequest(tools=[tool(None, name) for name in ("a", "b", "c")])
    grammar = MarkedFormat(HermesCalls()).plan(request).grammar
    assert isinstance(grammar, CompositeGrammar)
    names = [name for name, _ in grammar.parts]
    assert len(set(names)) == len(names) == 3
    assert all(f"@{name}" in grammar.lark for name in names)
