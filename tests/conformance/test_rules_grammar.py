"""Rules 18 to 21 of contract section 2.5, on native requests and on chats (section 2.11)."""

import json

import pytest
from fakes.validation import ByteTokenizer, TaggedTemplates

from tgi_llama.errors import ValidationError
from tgi_llama.validation.rules import Limits
from tgi_llama.validation.validator import Validator
from tgi_llama.wire.converter import parse
from tgi_llama.wire.generate_requests import GenerateRequest
from tgi_llama.wire.openai_requests import ChatRequest

NO_PROPERTIES = "grammar is not valid: Grammar must have a 'properties' field"


def validator(*, grammar_support: bool = True) -> Validator:
    limits = Limits(max_input_tokens=20, max_total_tokens=40, grammar_support=grammar_support)
    return Validator(limits, ByteTokenizer(), TaggedTemplates())


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


def test_rule_21_openais_layout_needs_properties_too() -> None:
    error = refusal_of_chat({"type": "json_schema", "json_schema": {"name": "n", "schema": {}}})
    assert str(error) == NO_PROPERTIES
    assert error.field == "response_format.json_schema.schema"


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
