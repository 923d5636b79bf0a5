import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tgi_llama.errors import ValidationError
from tgi_llama.structured.grammar import CompositeGrammar, JsonSchemaGrammar
from tgi_llama.turns.formats import MarkedFormat
from tgi_llama.turns.parts import TurnRequest, TurnTool
from tgi_llama.turns.qwen_coder import QwenCoderCalls

from .examples import AUTO, REQUESTS, parser_of
from .harness import Call, Turn, check_cut_off, check_reading, read
from .walks import Walker, check_walks

CONTROLS = ("<tool_call>", "</tool_call>")
MARKS = (*CONTROLS, "<function=", "</function>", "<parameter=", "</parameter>")
WORDS = (">\n", "<parameter=", "</parameter>", "</parameter>\n", "</function>", "\n</function>")
CODER = MarkedFormat(QwenCoderCalls())


def written(name: str, **values: str) -> str:
    """A call as the template shows it."""
    parameters = [f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values.items()]
    return f"<tool_call>\n<function={name}>\n{''.join(parameters)}</function>\n</tool_call>"


PARIS = written("get_weather", city="Paris")
PARIS_CALL = Call("get_weather", '{"city": "Paris"}')
TIME = written("time")
TIME_CALL = Call("time", "{}")

TEXTS = [
    ("Hello there.", Turn("Hello there.")),
    (" a <b> <tool <function", Turn(" a <b> <tool <function")),
    (PARIS, Turn(calls=(PARIS_CALL,))),
    (f"{PARIS}\n{TIME}", Turn(calls=(PARIS_CALL, TIME_CALL))),
    (f"I look.\n\n{PARIS} Done.", Turn("I look.Done.", (PARIS_CALL,))),
    (PARIS[:-13], Turn(calls=(PARIS_CALL,))),
    (PARIS[:-5], Turn(calls=(PARIS_CALL,))),
    # Without the outer tags, and without line breaks.
    (PARIS[12:-13], Turn(calls=(PARIS_CALL,))),
    (PARIS.replace("\n", ""), Turn(calls=(PARIS_CALL,))),
    (
        written("get_weather", city="Paris", days="3"),
        Turn(calls=(Call("get_weather", '{"city": "Paris", "days": 3}'),)),
    ),
    # A string is what stands there, whatever it looks like.
    (written("get_weather", city="3"), Turn(calls=(Call("get_weather", '{"city": "3"}'),))),
    (written("get_weather", city=""), Turn(calls=(Call("get_weather", '{"city": ""}'),))),
    (
        written("get_weather", city='\n a "b"\\\t</par>\né日\n'),
        Turn(calls=(Call("get_weather", r'{"city": "\n a \"b\"\\\t</par>\né日\n"}'),)),
    ),
    (
        written("get_note", text="x", tags='["a", "b"]'),
        Turn(calls=(Call("get_note", '{"text": "x", "tags": ["a", "b"]}'),)),
    ),
    # The end tag may stand in a string of a JSON value.
    (
        written("get_note", text="x", tags='["</parameter>", {"a\\"</parameter>": 1}]'),
        Turn(
            calls=(
                Call(
                    "get_note",
                    '{"text": "x", "tags": ["</parameter>", {"a\\"</parameter>": 1}]}',
                ),
            )
        ),
    ),
    # What is no JSON is a string, so that the arguments are.
    (
        written("get_weather", days="three", tags="[1, "),
        Turn(calls=(Call("get_weather", '{"days": "three", "tags": "[1, "}'),)),
    ),
    (
        written("get_weather", days="None", x="True", y="NaN"),
        Turn(calls=(Call("get_weather", '{"days": null, "x": true, "y": "NaN"}'),)),
    ),
    # A text ends at the first end tag, also one that looks like the beginning of JSON.
    (
        written("time", a='"b') + written("time", a='"'),
        Turn(calls=(Call("time", '{"a": "\\"b"}'), Call("time", '{"a": "\\""}'))),
    ),
    # Parameters that the schema does not know.
    (
        written("time", a="x y", b="7", c='{"d": [null]}', e='"f"'),
        Turn(calls=(Call("time", '{"a": "x y", "b": 7, "c": {"d": [null]}, "e": "\\"f\\""}'),)),
    ),
]

BROKEN = [
    "<tool_call>get the weather</tool_call>",
    '<tool_call>{"name": "time", "arguments": {}}</tool_call>',
    written("launch"),
    "<tool_call>\n<function=>",
    f"<tool_call>\n<function={'x' * 300}>",
    "<tool_call>\n<function=get_w",
    "<tool_call>",
    "a <function= b",
]


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_read_a_text_gives_its_parts(text: str, expected: Turn) -> None:
    check_reading(parser_of(CODER), text, expected)
    check_cut_off(parser_of(CODER), text, MARKS)


@pytest.mark.parametrize("text", BROKEN)
def test_read_broken_markup_is_content(text: str) -> None:
    check_reading(parser_of(CODER), f"So: {text}", Turn(f"So: {text}", failed=True))


def test_read_markup_that_breaks_after_its_name_keeps_the_call() -> None:
    text = PARIS.replace("</function>", "and so on")
    expected = Turn(
        "and so on\n</tool_call>", (Call("get_weather", '{"city": "Paris"'),), failed=True
    )
    check_reading(parser_of(CODER), text, expected)


def test_read_a_string_is_given_out_as_it_comes() -> None:
    parser_ = parser_of(CODER)()
    beginning = "<tool_call>\n<function=get_weather>\n<parameter=city>\nSaint-"
    parts = [*parser_.push(beginning), *parser_.push("Denis\n</par"), *parser_.push("t")]
    texts = [part.text for part in parts[1:]]
    assert "".join(texts) == '{"city": "Saint-Denis\\n</part'
    assert len(texts) > 3


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("controls", [(), CONTROLS], ids=["text", "tokens"])
def test_walk_what_the_grammar_allows_is_read(
    request_: TurnRequest, controls: tuple[str, ...]
) -> None:
    walker = Walker(controls, WORDS)
    request = attrs.evolve(request_, control_spellings=walker.controls)
    turns = check_walks(CODER, request, walker)
    assert any(turn.calls for turn in turns)


FORM: dict[str, Any] = {
    "type": "object",
    "$defs": {"color": {"enum": ["red", "dark\nblue"]}, "size": {"type": "integer", "minimum": 3}},
    "properties": {
        "free": {"type": "string", "description": "Any"},
        "color": {"$ref": "#/$defs/color"},
        "size": {"$ref": "#/$defs/size"},
        "word": {"type": "string", "minLength": 2, "maxLength": 6},
        "code": {"type": "string", "pattern": "^[A-C]{2}$"},
        "date": {"type": "string", "format": "date"},
        "optional": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        "either": {"type": ["integer", "string"]},
        "mixed": {"enum": ["a", 1, None]},
        "nested": {
            "type": "object",
            "properties": {"size": {"$ref": "#/$defs/size"}},
            "required": ["size"],
            "additionalProperties": False,
        },
        "flag": {"type": "boolean"},
        "anything": {"x-unit": "m"},
        "never": False,
    },
    "x-order": ["free", "color"],
    "required": ["color", "size", "word", "code", "nested", "extra"],
    "additionalProperties": {"type": "number"},
}


@pytest.mark.parametrize(
    "schema",
    [
        FORM,
        {**FORM, "required": ["date", "optional", "either", "mixed", "flag", "anything"]},
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"$ref": "#/$defs/form", "$defs": {**FORM["$defs"], "form": FORM}},
        {"properties": {}, "additionalProperties": False},
        True,
    ],
    ids=["form", "others required", "free names", "reference", "none", "anything"],
)
def test_walk_values_are_valid_by_their_schema(schema: object) -> None:
    tool = TurnTool(name="fill", parameters=schema, field="tools[0].function")
    walker = Walker((), (*WORDS, "null", "12", "true"))
    request = TurnRequest(tools=(tool,), must_call=True, parallel=False)
    turns = check_walks(CODER, request, walker, n_walks=40)
    assert len(turns) > 8


@pytest.mark.parametrize(
    ("schema", "field"),
    [
        ({"type": "object", "minProperties": 2}, "parameters.minProperties"),
        ({"type": "array"}, "parameters.type"),
        ({"properties": {"a>b": {}}}, "parameters.properties.a>b"),
        (False, "parameters"),
        ({"properties": {"a": False}, "required": ["a"]}, "parameters.properties.a"),
        (
            {"required": ["a"], "additionalProperties": False},
            "parameters.properties.a",
        ),
        (
            {"properties": {"a": {"anyOf": [{}, {"$ref": "#"}]}}},
            "parameters.properties.a.anyOf[1].$ref",
        ),
        (
            {"additionalProperties": {"$ref": "#/properties/b"}},
            "parameters.additionalProperties.$ref",
        ),
    ],
)
def test_plan_what_tags_cannot_express_is_refused(schema: object, field: str) -> None:
    tool = TurnTool(name="fill", parameters=schema, field="tools[3].function")
    with pytest.raises(ValidationError) as refused:
        CODER.plan(TurnRequest(tools=(tool,)))
    assert refused.value.field == f"tools[3].function.{field}"
    assert str(refused.value).startswith(f"tools[3].function.{field}: ")


def test_grammar_allows_what_the_template_shows() -> None:
    text = "I look.\n" + written("get_weather", city="Paris", days="3") + f"\n{TIME}"
    for controls in ((), CONTROLS):
        walker = Walker(controls)
        plan = CODER.plan(attrs.evolve(AUTO, control_spellings=walker.controls))
        assert plan.grammar is not None
        assert walker.accepts(plan.grammar, text)
        for old, new in (("get_weather", "launch"), ("days", "hours"), (">\n3\n<", ">\nx\n<")):
            assert not walker.accepts(plan.grammar, text.replace(old, new))
        without_city = written("get_weather", days="3")
        assert not walker.accepts(plan.grammar, without_city)


@given(city=st.text().filter(lambda text: "</parameter>" not in text), days=st.integers())
def test_read_any_text_is_what_was_written(city: str, days: int) -> None:
    turn = read(parser_of(CODER), [written("get_weather", city=city, days=str(days))])
    (call,) = turn.calls
    assert call.value == {"city": city, "days": days}
    assert not turn.failed


def test_read_what_was_written_gives_back_the_arguments() -> None:
    arguments = {"free": "a\n</function>b", "color": "red", "size": 5, "nested": {"size": 3}}
    values = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in arguments.items()
    }
    tool = TurnTool(name="fill", parameters=FORM, field="f")
    plan = CODER.plan(TurnRequest(tools=(tool,)))
    assert plan.make_parser is not None
    (call,) = read(plan.make_parser, [written("fill", **values)]).calls
    assert call.value == arguments
    Draft202012Validator({**FORM, "required": []}).validate(call.value)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": [{}]},
        {"type": [["string"]]},
        {"type": ["string", 5]},
        {"anyOf": [{"type": [{}]}]},
        {"type": "string", "minLength": -1},
        {"type": "string", "minLength": True},
        {"type": "string", "maxLength": 10**9},
        {"type": "string", "maxLength": "3"},
        {"type": "string", "minLength": 5, "maxLength": 3},
        {"type": "string", "minLength": 1000},
    ],
)
def test_plan_leaves_schemas_that_are_wrong_or_large_to_those_who_know_them(schema: object) -> None:
    """What is neither a text nor simple is JSON, of which the compiler says what is wrong."""
    parameters = {"properties": {"a": schema}, "required": ["a"]}
    tool = TurnTool(name="fill", parameters=parameters, field="tools[0].function")
    grammar = CODER.plan(TurnRequest(tools=(tool,))).grammar
    assert isinstance(grammar, CompositeGrammar)
    ((_, part),) = grammar.parts
    assert isinstance(part, JsonSchemaGrammar)
    assert part.schema == schema
    assert part.field == "tools[0].function.parameters.properties.a"
