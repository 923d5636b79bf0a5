"""How the bodies of the native routes are read: contract sections 2.1 to 2.3 and 2.11."""

import json

import attrs
import pytest

from tgi_llama.wire.converter import parse
from tgi_llama.wire.generate_requests import (
    CompatGenerateRequest,
    GenerateParameters,
    GenerateRequest,
)
from tgi_llama.wire.grammar_requests import (
    JsonGrammar,
    JsonSchema,
    JsonSchemaGrammar,
    RegexGrammar,
)
from tgi_llama.wire.parse_error import ParseError

OPTIONAL = [
    "best_of",
    "temperature",
    "repetition_penalty",
    "frequency_penalty",
    "top_k",
    "top_p",
    "typical_p",
    "max_new_tokens",
    "return_full_text",
    "truncate",
    "seed",
    "top_n_tokens",
    "grammar",
    "adapter_id",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "guided_whitespace_pattern",
    "structured_outputs",
]

NOT_NULLABLE = ["stop", "do_sample", "watermark", "details", "decoder_input_details"]


def read(**parameters: object) -> GenerateParameters:
    body = json.dumps({"inputs": "a", "parameters": parameters})
    return parse(GenerateRequest, body.encode()).parameters


def refusal(wire_type: type, body: object) -> ParseError:
    with pytest.raises(ParseError) as caught:
        parse(wire_type, json.dumps(body).encode())
    assert caught.value.status == 422
    return caught.value


def test_generate_without_parameters_samples() -> None:
    assert parse(GenerateRequest, b'{"inputs": "a"}').parameters.do_sample is True


def test_generate_with_empty_parameters_is_greedy() -> None:
    assert read() == GenerateParameters(do_sample=False)


@pytest.mark.parametrize("name", OPTIONAL)
def test_generate_optional_parameter_accepts_null(name: str) -> None:
    assert read(**{name: None}) == GenerateParameters()


@pytest.mark.parametrize("name", NOT_NULLABLE)
def test_generate_plain_parameter_rejects_null(name: str) -> None:
    error = refusal(GenerateRequest, {"inputs": "a", "parameters": {name: None}})
    assert error.path == f"parameters.{name}"
    assert error.message.endswith("got null")


def test_generate_all_fields_are_covered_by_the_null_rules() -> None:
    fields = [field.name for field in attrs.fields(GenerateParameters)]
    assert sorted(OPTIONAL + NOT_NULLABLE) == sorted(fields)


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "inputs"),
        ({"inputs": None}, "inputs"),
        ({"inputs": ["a"]}, "inputs"),
        ({"inputs": "a", "parameters": None}, "parameters"),
        ({"inputs": "a", "parameters": []}, "parameters"),
        ({"inputs": "a", "stream": None}, "stream"),
        ({"inputs": "a", "stream": "true"}, "stream"),
    ],
)
def test_compat_generate_wrong_shape_is_refused(body: object, path: str) -> None:
    assert refusal(CompatGenerateRequest, body).path == path


def test_generate_ignores_stream_whatever_it_is() -> None:
    assert parse(GenerateRequest, b'{"inputs": "a", "stream": "maybe"}').inputs == "a"


def test_compat_generate_reads_stream() -> None:
    assert parse(CompatGenerateRequest, b'{"inputs": "a", "stream": true}').stream is True


def test_generate_unknown_fields_are_ignored() -> None:
    assert read(future_option={"x": 1}, do_sample=True).do_sample is True


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("best_of", -1),
        ("best_of", 1.0),
        ("temperature", "1"),
        ("top_k", 10.0),
        ("top_k", 2**31),
        ("max_new_tokens", -1),
        ("max_new_tokens", 2**32),
        ("max_new_tokens", "10"),
        ("seed", -1),
        ("seed", 2**64),
        ("truncate", -5),
        ("top_n_tokens", -1),
        ("do_sample", "false"),
        ("details", 1),
        ("stop", "a"),
        ("stop", [1]),
        ("adapter_id", 3),
    ],
)
def test_generate_parameter_of_wrong_type_is_refused(name: str, value: object) -> None:
    error = refusal(GenerateRequest, {"inputs": "a", "parameters": {name: value}})
    assert error.path.startswith(f"parameters.{name}")


@pytest.mark.parametrize(
    ("name", "value"),
    [("seed", 2**64 - 1), ("top_k", -(2**31)), ("max_new_tokens", 2**32 - 1)],
)
def test_generate_extreme_integers_are_read(name: str, value: int) -> None:
    assert getattr(read(**{name: value}), name) == value


def test_generate_floats_accept_integers_and_are_rounded_to_single_precision() -> None:
    assert read(temperature=2).temperature == 2.0
    assert read(temperature=0.7).temperature == 0.699999988079071


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs": "a", "inputs": "b"}',
        b'{"inputs": "a", "parameters": {"top_k": 1, "top_k": 1}}',
    ],
)
def test_generate_key_given_twice_is_refused(body: bytes) -> None:
    with pytest.raises(ParseError, match="given twice"):
        parse(GenerateRequest, body)


def test_generate_number_of_thousands_of_digits_is_refused_in_our_words() -> None:
    with pytest.raises(ParseError) as caught:
        parse(GenerateRequest, b'{"inputs": "a", "parameters": {"seed": %s}}' % (b"9" * 5000))
    assert caught.value.status == 400
    assert str(caught.value) == (
        "Failed to parse the request body as JSON: Exceeds the limit of 4300 digits for an integer"
    )


def test_generate_key_given_twice_inside_a_free_value_is_taken_as_serde_json_takes_it() -> None:
    body = b'{"inputs": "a", "parameters": {"grammar": {"type": "json", "value": {"a":1,"a":2}}}}'
    assert parse(GenerateRequest, body).parameters.grammar == (
        JsonGrammar(type="json", value={"a": 2})
    )


def test_generate_python_client_nulls_are_accepted() -> None:
    assert read(**dict.fromkeys(OPTIONAL), stop=[], do_sample=False, watermark=False) == (
        GenerateParameters()
    )


@pytest.mark.parametrize(
    ("grammar", "expected"),
    [
        ({"type": "json", "value": {"a": 1}}, JsonGrammar(type="json", value={"a": 1})),
        ({"value": "{}", "type": "json_object"}, JsonGrammar(type="json_object", value="{}")),
        ({"type": "regex", "value": "a+"}, RegexGrammar(type="regex", value="a+")),
        (
            {"type": "json_schema", "value": {"schema": {}, "strict": True, "name": "n"}},
            JsonSchemaGrammar(type="json_schema", value=JsonSchema(schema={}, name="n")),
        ),
    ],
)
def test_generate_grammar_shapes_are_read(grammar: object, expected: object) -> None:
    assert read(grammar=grammar).grammar == expected


@pytest.mark.parametrize(
    ("grammar", "path"),
    [
        ({"type": "json"}, "parameters.grammar.value"),
        ({"value": {}}, "parameters.grammar.type"),
        ({"type": "text", "value": ""}, "parameters.grammar.type"),
        ({"type": "regex", "value": 1}, "parameters.grammar.value"),
        ({"type": "json_schema", "value": {}}, "parameters.grammar.value.schema"),
        ("json", "parameters.grammar"),
    ],
)
def test_generate_wrong_grammar_shape_is_refused(grammar: object, path: str) -> None:
    error = refusal(GenerateRequest, {"inputs": "a", "parameters": {"grammar": grammar}})
    assert error.path == path
