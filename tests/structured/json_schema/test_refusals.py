"""What is refused, with the path of the culprit, and what is dropped where that is wanted."""

import pytest
from structured.json_schema.llguidance_play import accepts, compile_schema, compile_written

from tgi_llama.errors import ValidationError
from tgi_llama.structured.json_schema.normalise import normalise

UNENFORCEABLE: list[tuple[object, str]] = [
    ({"type": "array", "uniqueItems": True}, "f.uniqueItems"),
    ({"type": "array", "items": {"type": "string"}, "uniqueItems": True}, "f.uniqueItems"),
    ({"contains": {"type": "string"}}, "f.contains"),
    ({"contains": {}, "maxContains": 2}, "f.maxContains"),
    ({"contains": {"type": "null"}, "minContains": 2, "maxItems": 4}, "f.minContains"),
    ({"type": "array", "items": {"enum": [1, 2, 3, 4, 5, 6]}, "uniqueItems": True},
     "f.uniqueItems"),
    ({"properties": {c: {} for c in "abcdefghij"}, "additionalProperties": False,
      "minProperties": 5}, "f.minProperties"),
    ({"type": "object", "minProperties": 2}, "f.minProperties"),
    ({"properties": {c: {} for c in "abcdefgh"}, "minProperties": 1}, "f.minProperties"),
    ({"properties": {c: {} for c in "abcdefgh"}, "maxProperties": 3}, "f.maxProperties"),
    ({"allOf": [{}], "unevaluatedProperties": False}, "f.unevaluatedProperties"),
    ({"allOf": [{}], "unevaluatedItems": False}, "f.unevaluatedItems"),
    ({"oneOf": [{"type": "integer"}, {"multipleOf": 2}]}, "f.oneOf"),
    ({"oneOf": [{"pattern": "a"}, {"pattern": "b"}]}, "f.oneOf"),
    ({"not": {"pattern": "a"}}, "f.not"),
    ({"not": {"type": "integer"}}, "f.not"),
    ({"not": {"items": {"type": "string"}}}, "f.not"),
    ({"not": {"additionalProperties": False}}, "f.not"),
    ({"if": {"format": "date"}, "then": {"maxLength": 9}}, "f.if"),
    ({"propertyNames": {"pattern": "a"}, "patternProperties": {"^b": {}}}, "f.propertyNames"),
    ({"propertyNames": {"pattern": "a", "maxLength": 3}}, "f.propertyNames"),
    ({"propertyNames": {"anyOf": [{"maxLength": 1}, {"pattern": "a"}]}}, "f.propertyNames"),
    ({"properties": {"a b": {"properties": {"minlength": {}}, "minlength": 1}}},
     'f.properties["a b"].minlength'),
    ({"requred": ["a"]}, "f.requred"),
    ({"additionalproperties": False}, "f.additionalproperties"),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "field"), UNENFORCEABLE)
def test_keyword_that_cannot_be_enforced_is_refused(schema: object, field: str) -> None:
    with pytest.raises(ValidationError, match=r"cannot be enforced|unknown keyword") as refused:
        normalise(schema, field="f")
    assert refused.value.field == field


@pytest.mark.parametrize(("schema", "field"), UNENFORCEABLE)
def test_keyword_that_cannot_be_enforced_is_dropped_where_wanted(
    schema: object, field: str
) -> None:
    assert normalise(schema, field="f", relaxed=True).relaxed_paths == (field,)
    compile_written(normalise(schema, field="f", relaxed=True).schema)


UNSATISFIABLE: list[tuple[object, str]] = [
    (False, "f"),
    ({"enum": []}, "f.enum"),
    ({"type": []}, "f"),
    ({"anyOf": []}, "f.anyOf"),
    ({"anyOf": [False]}, "f.anyOf[0]"),
    ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "f.allOf"),
    ({"type": "string", "const": 1}, "f"),
    ({"type": "integer", "minimum": 3, "maximum": 2}, "f.maximum"),
    ({"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2}, "f.exclusiveMaximum"),
    ({"type": "integer", "minimum": 1, "maximum": 2, "multipleOf": 5}, "f.maximum"),
    ({"type": "string", "minLength": 3, "maxLength": 2}, "f"),
    ({"type": "string", "pattern": "^abc$", "maxLength": 2}, "f"),
    ({"type": "string", "format": "date", "minLength": 20}, "f"),
    ({"type": "array", "minItems": 3, "maxItems": 2}, "f"),
    ({"type": "array", "items": False, "minItems": 1}, "f"),
    ({"type": "array", "prefixItems": [{}, False], "minItems": 2}, "f"),
    ({"items": {"enum": [1, 2]}, "uniqueItems": True, "minItems": 3, "type": "array"},
     "f.uniqueItems"),
    ({"type": "object", "required": ["a"], "properties": {"a": False}}, "f"),
    ({"type": "object", "required": ["a"], "additionalProperties": False}, "f"),
    ({"type": "object", "required": ["a", "b"], "maxProperties": 1}, "f"),
    ({"type": "object", "required": ["abc"], "propertyNames": {"maxLength": 2}}, "f"),
    ({"type": "object", "minProperties": 2, "maxProperties": 1}, "f"),
    ({"not": {}}, "f.not"),
    ({"oneOf": [{"type": "null"}, {"type": "null"}]}, "f.oneOf"),
    ({"type": "object", "properties": {"a": {"enum": []}}, "required": ["a"]}, "f"),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "field"), UNSATISFIABLE)
def test_schema_without_any_value_is_refused(schema: object, field: str) -> None:
    with pytest.raises(ValidationError, match="unsatisfiable") as refused:
        normalise(schema, field="f")
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("schema", "field"),
    [
        (3, "f"),
        ({"properties": {"a": 3}}, "f.properties.a"),
        ({"properties": []}, "f.properties"),
        ({"type": "text"}, "f.type"),
        ({"type": 3}, "f.type"),
        ({"nullable": 1, "type": "string"}, "f.nullable"),
        ({"required": "a"}, "f.required"),
        ({"required": True}, "f.required"),
        ({"minLength": "3"}, "f.minLength"),
        ({"minLength": -1}, "f.minLength"),
        ({"minItems": 1.5}, "f.minItems"),
        ({"minimum": "3"}, "f.minimum"),
        ({"minimum": float("nan")}, "f.minimum"),
        ({"multipleOf": 0}, "f.multipleOf"),
        ({"pattern": 3}, "f.pattern"),
        ({"format": 3}, "f.format"),
        ({"enum": 3}, "f.enum"),
        ({"enum": [float("inf")]}, "f.enum[0]"),
        ({"const": "\ud800"}, "f.const"),
        ({"allOf": {}}, "f.allOf"),
        ({"uniqueItems": 1}, "f.uniqueItems"),
        ({"patternProperties": {"(": {}}}, 'f.patternProperties["("]'),
        ({"dependentRequired": {"a": "b"}}, "f.dependentRequired.a.dependentRequired"),
    ],
)
def test_what_is_no_schema_is_refused_even_when_relaxed(schema: object, field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        normalise(schema, field="f", relaxed=True)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("schema", "field"),
    [
        ({"const": 2**53 + 1}, "f.const"),
        ({"const": "\x01"}, "f.const"),
        ({"const": [1e300]}, "f.const[0]"),
        ({"minimum": 2**60}, "f.minimum"),
        ({"maximum": -(2**60)}, "f.maximum"),
        ({"type": "integer", "multipleOf": 10_000_019}, "f.multipleOf"),
        ({"type": "number", "multipleOf": 0.07}, "f.multipleOf"),
        ({"type": "number", "multipleOf": 0.00001234567}, "f.multipleOf"),
        ({"allOf": [{"multipleOf": 101}, {"multipleOf": 103}], "type": "integer"}, "f.multipleOf"),
        ({"minItems": 10**6}, "f.minItems"),
        ({"minLength": 10**7}, "f.minLength"),
        ({"patternProperties": {"^a": {}, "b$": {}}}, "f.patternProperties"),
        ({"not": {"enum": ["x" * 200, "y" * 200]}}, "f"),
    ],
)
def test_value_beyond_what_llguidance_computes_with_is_refused(schema: object, field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        normalise(schema, field="f")
    assert refused.value.field == field


def test_unknown_word_is_ignored_and_reported() -> None:
    written = normalise({"type": "null", "x-order": 1, "uniform": 1, "titles": 1}, field="f")
    assert written.schema == {"type": "null"}
    assert written.ignored_paths == ("f.x-order", "f.uniform", "f.titles")


def test_settings_of_llguidance_do_not_come_from_clients() -> None:
    settings = {"whitespace_flexible": True, "lenient": True, "item_separator": ".*"}
    schema = {"x-guidance": settings, "properties": {"x-guidance": {"type": "null"}}}
    written = normalise(schema, field="f").schema
    assert "x-guidance" not in str(written).replace("'x-guidance': {'type': 'null'}", "")
    assert not accepts(compile_schema(schema), {"x-guidance": 1})


def test_nullable_of_openapi_adds_null_to_the_type() -> None:
    matcher = compile_schema({"type": "string", "nullable": True})
    assert accepts(matcher, None)
    assert accepts(matcher, "x")
    assert not accepts(matcher, 1)
    assert not accepts(compile_schema({"type": "string", "nullable": False}), None)


def test_boolean_exclusive_bounds_of_draft_4() -> None:
    matcher = compile_schema(
        {"type": "integer", "exclusiveMinimum": True, "allOf": [{}], "minimum": 3, "maximum": 5,
         "exclusiveMaximum": False}
    )  # fmt: skip
    assert [value for value in range(8) if accepts(matcher, value)] == [4, 5]


def test_lists_of_items_and_additional_items_of_older_drafts() -> None:
    matcher = compile_schema(
        {"type": "array", "items": [{"type": "integer"}], "allOf": [{}], "additionalItems": False}
    )
    assert accepts(matcher, [1])
    assert not accepts(matcher, [1, 2])
    assert not accepts(matcher, ["x"])


def test_dependencies_of_older_drafts() -> None:
    matcher = compile_schema(
        {
            "type": "object",
            "properties": {"a": {}, "b": {}, "c": {}},
            "dependencies": {"a": ["b"], "b": {"properties": {"c": {"type": "null"}}}},
        }
    )
    assert accepts(matcher, {"a": 1, "b": 1, "c": None})
    assert not accepts(matcher, {"a": 1})
    assert not accepts(matcher, {"b": 1, "c": 1})
