"""Rules 18 to 21 of contract section 2.5, on native requests and on chats (section 2.11), and the
grammars that the fields of all APIs ask for."""

import json

import pytest
from fakes.constraints import RememberingCompiler, constraints
from fakes.validation import ByteTokenizer, TaggedTemplates

from tgi_llama.errors import ValidationError
from tgi_llama.structured.grammar import (
    ChoiceGrammar,
    Grammar,
    JsonSchemaGrammar,
    LarkGrammar,
    RegexGrammar,
)
from tgi_llama.validation.rules import Limits
from tgi_llama.validation.validator import Validator
from tgi_llama.wire.converter import parse
from tgi_llama.wire.generate_requests import GenerateRequest
from tgi_llama.wire.openai_requests import ChatRequest, CompletionRequest

NO_PROPERTIES = "grammar is not valid: Grammar must have a 'properties' field"


def validator(*, grammar_support: bool = True) -> Validator:
    limits = Limits(max_input_tokens=20, max_total_tokens=40, grammar_support=grammar_support)
    return Validator(limits, ByteTokenizer(), TaggedTemplates(), constraints=constraints())


def refusal_of_generate(
    grammar: object, *, inputs: str = "abc", grammar_support: bool = True, **parameters: object
) -> ValidationError:
    body = {"inputs": inputs, "parameters": {"grammar": grammar, **parameters}}
    request = parse(GenerateRequest, json.dumps(body).encode())
    with pytest.raises(ValidationError) as caught:
        validator(grammar_support=grammar_support).generate(request, streaming=False)
    return caught.value


def refusal_of_chat(
    response_format: object, *, grammar_support: bool = True, content: str = "hi"
) -> ValidationError:
    messages = [{"role": "user", "content": content}]
    body = {"messages": messages, "response_format": response_format}
    request = parse(ChatRequest, json.dumps(body).encode())
    with pytest.raises(ValidationError) as caught:
        validator(grammar_support=grammar_support).chat(request)
    return caught.value


# Both fields have TGI's layout in common.
REFUSED = [
    ({"type": "json", "value": 3}, ".value", "grammar is not supported"),
    ({"type": "json", "value": []}, ".value", "grammar is not supported"),
    ({"type": "json", "value": True}, ".value", "grammar is not supported"),
    ({"type": "json", "value": {}}, ".value", NO_PROPERTIES),
    ({"type": "json_object", "value": {"type": "object"}}, ".value", NO_PROPERTIES),
    ({"type": "json", "value": "{}"}, ".value", NO_PROPERTIES),
    ({"type": "json", "value": "true"}, ".value", NO_PROPERTIES),
    (
        {"type": "json", "value": "3"},
        ".value",
        'grammar is not valid: 3 is not of types "boolean", "object"',
    ),
    ({"type": "json_schema", "value": {"schema": {}}}, ".value.schema", NO_PROPERTIES),
    ({"type": "json_schema", "value": {"schema": False}}, ".value.schema", NO_PROPERTIES),
    (
        {"type": "json_schema", "value": {"schema": '{"properties": {}}'}},
        ".value.schema",
        'grammar is not valid: "{\\"properties\\": {}}" is not of types "boolean", "object"',
    ),
]


@pytest.mark.parametrize(("grammar", "place", "text"), REFUSED)
def test_rule_wrong_grammar_is_refused_with_tgis_text(
    grammar: object, place: str, text: str
) -> None:
    for error, field in (
        (refusal_of_generate(grammar), "parameters.grammar"),
        (refusal_of_chat(grammar), "response_format"),
    ):
        assert str(error) == text
        assert error.field == field + place


@pytest.mark.parametrize("value", ["", "{", '{"properties": NaN}', '"\\ud800"', "[" * 1000])
def test_rule_20_grammar_string_that_is_not_json_is_refused(value: str) -> None:
    for error in (
        refusal_of_generate({"type": "json", "value": value}),
        refusal_of_chat({"type": "json", "value": value}),
    ):
        assert str(error).startswith("grammar is not valid: ")
        assert "request body" not in str(error)


def test_rule_19_null_is_neither_object_nor_string() -> None:
    error = refusal_of_generate({"type": "json", "value": None})
    assert str(error) == "grammar is not supported"


def test_rule_21_is_for_tgis_layouts_only() -> None:
    error = refusal_of_chat({"type": "json_schema", "value": {"schema": {}}})
    assert str(error) == NO_PROPERTIES
    asked = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"$ref": "#/$defs/a"}}}
    assert of_chat(response_format=asked) == JsonSchemaGrammar(
        schema={"$ref": "#/$defs/a"}, field="response_format.json_schema.schema"
    )


@pytest.mark.parametrize(
    "grammar",
    [
        {"type": "json", "value": {"properties": {}}},
        {"type": "json", "value": 3},
        {"type": "regex", "value": "a"},
        {"type": "json_schema", "value": {"schema": {}}},
    ],
)
def test_rule_18_without_grammar_support_none_is_looked_at(grammar: object) -> None:
    for error, field in (
        (refusal_of_generate(grammar, grammar_support=False), "parameters.grammar"),
        (refusal_of_chat(grammar, grammar_support=False), "response_format"),
    ):
        assert str(error) == "grammar is not supported"
        assert error.field == field


def test_rule_18_holds_for_any_json_object_too() -> None:
    error = refusal_of_chat({"type": "json_object"}, grammar_support=False)
    assert str(error) == "grammar is not supported"


def test_rule_18_plain_text_is_no_grammar() -> None:
    body = b'{"messages": [], "response_format": {"type": "text"}}'
    (prepared,) = validator(grammar_support=False).chat(parse(ChatRequest, body))
    assert prepared.prompt == "<assistant>"


@pytest.mark.parametrize(
    ("broken", "first"),
    [
        ({"top_k": 0}, "`top_k`"),
        ({"inputs": ""}, "`inputs` cannot be empty"),
        ({"truncate": 0}, "`truncate`"),
        ({"max_new_tokens": 99}, "`inputs` tokens + `max_new_tokens`"),
        ({"inputs": "a" * 21}, "`inputs` must have less than"),
    ],
)
def test_rule_grammar_is_judged_after_everything_else(
    broken: dict[str, object], first: str
) -> None:
    error = refusal_of_generate({"type": "json", "value": 3}, **broken)  # type: ignore[arg-type]
    assert str(error).startswith(first)


def test_rule_response_format_is_judged_after_the_lengths() -> None:
    error = refusal_of_chat({"type": "json", "value": 3}, content="a" * 21)
    assert str(error).startswith("`inputs` must have less than")


# --- what the fields ask for ----------------------------------------------------------------------

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def compiled_by(request: ChatRequest | CompletionRequest | GenerateRequest) -> Grammar:
    compiler = RememberingCompiler()
    limits = Limits(max_input_tokens=20, max_total_tokens=40)
    made_by = Validator(
        limits, ByteTokenizer(), TaggedTemplates(), constraints=constraints(compiler=compiler)
    )
    match request:
        case ChatRequest():
            prepared = made_by.chat(request)
        case CompletionRequest():
            prepared = made_by.completion(request)
        case GenerateRequest():
            prepared = made_by.generate(request, streaming=False)
    (grammar,) = compiler.grammars  # once, however many generations there are
    assert all(one.request.constraint is not None for one in prepared)
    return grammar


def of_chat(**fields: object) -> Grammar:
    messages = [{"role": "user", "content": "hi"}]
    return compiled_by(parse(ChatRequest, json.dumps({"messages": messages, **fields}).encode()))


def of_completion(**fields: object) -> Grammar:
    body = {"prompt": ["a", "b"], "n": 2, **fields}
    return compiled_by(parse(CompletionRequest, json.dumps(body).encode()))


def of_generate(**parameters: object) -> Grammar:
    body = {"inputs": "a", "parameters": {"do_sample": True, "best_of": 2, **parameters}}
    return compiled_by(parse(GenerateRequest, json.dumps(body).encode()))


ANY_ROUTE = [
    ({"guided_json": SCHEMA}, "guided_json", JsonSchemaGrammar, SCHEMA),
    ({"guided_json": json.dumps(SCHEMA)}, "guided_json", JsonSchemaGrammar, SCHEMA),
    ({"guided_json": True}, "guided_json", JsonSchemaGrammar, True),
    ({"guided_regex": "a+"}, "guided_regex", RegexGrammar, "a+"),
    ({"guided_choice": ["a", "b"]}, "guided_choice", ChoiceGrammar, ("a", "b")),
    ({"guided_grammar": "root ::= a"}, "guided_grammar", LarkGrammar, "root ::= a"),
    (
        {"structured_outputs": {"json": SCHEMA}},
        "structured_outputs.json",
        JsonSchemaGrammar,
        SCHEMA,
    ),
    ({"structured_outputs": {"regex": "a"}}, "structured_outputs.regex", RegexGrammar, "a"),
    (
        {"structured_outputs": {"choice": ["a"]}},
        "structured_outputs.choice",
        ChoiceGrammar,
        ("a",),
    ),
    ({"structured_outputs": {"grammar": "x"}}, "structured_outputs.grammar", LarkGrammar, "x"),
    (
        {"structured_outputs": {"json_object": True}},
        "structured_outputs.json_object",
        JsonSchemaGrammar,
        {"type": "object"},
    ),
    ({"grammar": {"type": "json", "value": SCHEMA}}, "grammar.value", JsonSchemaGrammar, SCHEMA),
    (
        {"grammar": {"type": "json_object", "value": json.dumps(SCHEMA)}},
        "grammar.value",
        JsonSchemaGrammar,
        SCHEMA,
    ),
    ({"grammar": {"type": "regex", "value": "a"}}, "grammar.value", RegexGrammar, "a"),
    (
        {"grammar": {"type": "json_schema", "value": {"name": "x", "schema": SCHEMA}}},
        "grammar.value.schema",
        JsonSchemaGrammar,
        SCHEMA,
    ),
]

OPENAI_ROUTES = [
    ({"grammar": "root ::= a"}, "grammar", LarkGrammar, "root ::= a"),
    ({"json_schema": SCHEMA}, "json_schema", JsonSchemaGrammar, SCHEMA),
    (
        {"response_format": {"type": "json_object"}},
        "response_format",
        JsonSchemaGrammar,
        {"type": "object"},
    ),
    (
        {"response_format": {"type": "json_object", "value": SCHEMA}},
        "response_format.value",
        JsonSchemaGrammar,
        SCHEMA,
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
        "response_format.json_schema.schema",
        JsonSchemaGrammar,
        SCHEMA,
    ),
    (
        {"response_format": {"type": "json_schema", "value": {"schema": SCHEMA}}},
        "response_format.value.schema",
        JsonSchemaGrammar,
        SCHEMA,
    ),
    (
        {"response_format": {"type": "regex", "value": "a"}},
        "response_format.value",
        RegexGrammar,
        "a",
    ),
]

NAMES = {
    JsonSchemaGrammar: "schema",
    RegexGrammar: "pattern",
    ChoiceGrammar: "choices",
    LarkGrammar: "text",
}


@pytest.mark.parametrize(("fields", "field", "kind", "content"), ANY_ROUTE + OPENAI_ROUTES)
def test_grammar_of_an_openai_request_is_what_it_asks_for(
    fields: dict[str, object], field: str, kind: type, content: object
) -> None:
    expected = kind(field=field, **{NAMES[kind]: content})
    assert of_chat(**fields, n=2) == expected
    assert of_completion(**fields) == expected


@pytest.mark.parametrize(("fields", "field", "kind", "content"), ANY_ROUTE)
def test_grammar_of_a_native_request_is_what_it_asks_for(
    fields: dict[str, object], field: str, kind: type, content: object
) -> None:
    expected = kind(field=f"parameters.{field}", **{NAMES[kind]: content})
    assert of_generate(**fields) == expected


@pytest.mark.parametrize("name", ["guided_json", "json_schema"])
def test_schema_with_properties_is_of_an_object_unless_it_says_otherwise(name: str) -> None:
    bare = of_chat(**{name: {"properties": {}}})
    assert bare == JsonSchemaGrammar(schema={"type": "object", "properties": {}}, field=name)
    told = {"type": ["object", "null"], "properties": {}}
    assert of_chat(**{name: told}) == JsonSchemaGrammar(schema=told, field=name)


@pytest.mark.parametrize(
    ("fields", "field", "text"),
    [
        (
            {"guided_json": {}, "guided_regex": "a"},
            "guided_regex",
            "`guided_regex` cannot be used with `guided_json`",
        ),
        (
            {"response_format": {"type": "json_object"}, "guided_choice": ["a"]},
            "guided_choice",
            "`guided_choice` cannot be used with `response_format`",
        ),
        ({"guided_json": "{"}, "guided_json", None),
        (
            {"guided_json": 3},
            "guided_json",
            'grammar is not valid: 3 is not of types "boolean", "object"',
        ),
        ({"guided_choice": []}, "guided_choice", "there must be something to choose from"),
        ({"structured_outputs": {}}, "structured_outputs", None),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs", None),
        ({"structured_outputs": {"structural_tag": {}}}, "structured_outputs.structural_tag", None),
        (
            {"guided_json": {}, "guided_whitespace_pattern": " "},
            "guided_whitespace_pattern",
            "`guided_whitespace_pattern` is not supported by this server",
        ),
        (
            {"response_format": {"type": "json_object"}, "guided_whitespace_pattern": " "},
            "guided_whitespace_pattern",
            "`guided_whitespace_pattern` is not supported by this server",
        ),
    ],
)
def test_contradictory_or_empty_grammars_are_refused_at_their_place(
    fields: dict[str, object], field: str, text: str | None
) -> None:
    with pytest.raises(ValidationError) as caught:
        of_chat(**fields)
    assert caught.value.field == field
    assert text in (None, str(caught.value))


def test_grammar_is_not_supported_where_nothing_compiles_it() -> None:
    limits = Limits(max_input_tokens=20, max_total_tokens=40)
    bare = Validator(limits, ByteTokenizer(), TaggedTemplates())
    request = parse(GenerateRequest, b'{"inputs": "a", "parameters": {"guided_regex": "a"}}')
    with pytest.raises(ValidationError, match=r"^grammar is not supported$") as caught:
        bare.generate(request, streaming=False)
    assert caught.value.field == "parameters.guided_regex"
