"""Each keyword: what is valid is accepted to its end, what is not is rejected, and ``jsonschema``
agrees about both. Properties of valid objects are in the schema's order."""

import pytest
from jsonschema import Draft202012Validator
from structured.json_schema.llguidance_play import accepts, compile_schema

ANY = [None, True, 0, -1.5, "x", [], [1, "y"], {}, {"a": {"b": []}}]

CASES: dict[str, tuple[object, list[object], list[object]]] = {
    "true": (True, ANY, []),
    "empty": ({}, ANY, []),
    "annotations": ({"title": "t", "default": 3, "x-mine": 1, "$comment": ""}, ANY, []),
    "type": ({"type": "integer"}, [0, -7, 12], [1.5, "1", None, True, []]),
    "type number": ({"type": "number"}, [0, -7.25, 1e20], ["1", None]),
    "type list": ({"type": ["string", "null"]}, ["", None], [1, True, {}]),
    "type integer or number": ({"type": ["integer", "number"]}, [1, 1.5], ["1"]),
    "properties": (
        {"properties": {"a": {"type": "integer"}, "b": {"type": "string"}}},
        [{}, {"a": 1}, {"b": "x"}, {"a": 1, "b": "x", "c": None}, 3],
        [{"a": "x"}, {"b": 1}],
    ),
    "properties false": ({"properties": {"a": False}}, [{"b": 1}], [{"a": 1}]),
    "required": (
        {"type": "object", "properties": {"a": {}, "b": {}}, "required": ["b"]},
        [{"b": 1}, {"a": 0, "b": 1}],
        [{}, {"a": 1}],
    ),
    "required beyond properties": (
        {"type": "object", "required": ["a"], "additionalProperties": {"type": "integer"}},
        [{"a": 1}, {"a": 1, "b": 2}],
        [{}, {"b": 1}, {"a": "x"}, {"a": 1, "b": "x"}],
    ),
    "required by pattern": (
        {"type": "object", "required": ["xa"], "patternProperties": {"^x": {"type": "null"}}},
        [{"xa": None}, {"xa": None, "b": 1}],
        [{"xa": 1}, {}],
    ),
    "additionalProperties false": (
        {"properties": {"a": {}}, "additionalProperties": False},
        [{}, {"a": 1}],
        [{"b": 1}, {"a": 1, "b": 1}],
    ),
    "additionalProperties before properties": (
        {"additionalProperties": False, "allOf": [{}], "properties": {"a": {}}},
        [{}, {"a": 1}],
        [{"b": 1}],
    ),
    "patternProperties": (
        {
            "type": "object",
            "properties": {"n1": {"minimum": 5}},
            "patternProperties": {"^n": {"type": "integer"}, "^x.*s$": {"type": "string"}},
            "additionalProperties": False,
        },
        [{"n1": 5}, {"n2": 1}, {"xs": "x"}],
        [{"n1": 4}, {"n1": "x"}, {"n2": "x"}, {"q": 1}],
    ),
    "patternProperties that dialects read differently": (
        {
            "type": "object",
            "properties": {"ü": {"minimum": 2}},
            "patternProperties": {"^\\w$": {"type": "integer"}},
        },
        [{"a": 1}, {"é": 1}, {"ü": 2}, {"ab": "x"}, {"-": "x"}],
        [{"a": "x"}, {"é": "x"}, {"ü": 1}, {"ü": "x"}],
    ),
    "patternProperties that are merged": (
        {
            "type": "object",
            "allOf": [
                {"patternProperties": {"^\\w$": {"type": "integer"}}},
                {"patternProperties": {"^\\w$": {}}, "additionalProperties": False},
            ],
        },
        [{"a": 1}, {}],
        [{"a": "x"}, {"é": "x"}, {"-": 1}],
    ),
    "patternProperties with classes of both kinds": (
        {
            "type": "object",
            "patternProperties": {"^[^\\W]$": {"type": "integer"}},
            "additionalProperties": False,
        },
        [{"a": 1}, {}],
        [{"a": "x"}, {"-": 1}],
    ),
    "propertyNames": (
        {"type": "object", "propertyNames": {"pattern": "^[a-c]+$"}},
        [{}, {"a": 1, "cab": 2}],
        [{"d": 1}, {"a": 1, "ad": 2}],
    ),
    "propertyNames maxLength": (
        {"type": "object", "propertyNames": {"maxLength": 2}, "properties": {"abc": {}}},
        [{}, {"ab": 1}],
        [{"abc": 1}],
    ),
    "propertyNames enum": (
        {"propertyNames": {"enum": ["a", "b"]}, "additionalProperties": {"type": "integer"}},
        [{}, {"a": 1, "b": 2}, "x"],
        [{"c": 1}, {"a": "x"}],
    ),
    "propertyNames of a closed object": (
        {
            "properties": {"a": {}, "bb": {}},
            "additionalProperties": False,
            "propertyNames": {"maxLength": 1, "pattern": "^[a-z]"},
        },
        [{}, {"a": 1}],
        [{"bb": 1}, {"c": 1}],
    ),
    "propertyNames false": ({"type": "object", "propertyNames": False}, [{}], [{"a": 1}]),
    "minProperties": (
        {"type": "object", "properties": {"a": {}, "b": {}}, "minProperties": 1},
        [{"a": 1}, {"b": 1}, {"z": 1}, {"a": 1, "z": 2}],
        [{}],
    ),
    "minProperties closed": (
        {
            "type": "object",
            "properties": {"a": {}, "b": {}, "c": {}},
            "additionalProperties": False,
            "minProperties": 2,
        },
        [{"a": 1, "b": 1}, {"a": 1, "c": 1}, {"b": 1, "c": 1}, {"a": 1, "b": 1, "c": 1}],
        [{}, {"a": 1}, {"c": 1}],
    ),
    "maxProperties": (
        {"type": "object", "properties": {"a": {}, "b": {}}, "maxProperties": 2},
        [{}, {"a": 1, "b": 1}, {"b": 1, "z": 1}, {"y": 1, "z": 1}],
        [{"a": 1, "b": 1, "z": 1}, {"x": 1, "y": 1, "z": 1}],
    ),
    "maxProperties closed": (
        {
            "type": "object",
            "properties": {"a": {}, "b": {}, "c": {}},
            "required": ["b"],
            "additionalProperties": False,
            "maxProperties": 2,
        },
        [{"b": 1}, {"a": 1, "b": 1}, {"b": 1, "c": 1}],
        [{"a": 1, "b": 1, "c": 1}, {"a": 1, "c": 1}],
    ),
    "dependentRequired": (
        {"type": "object", "properties": {"a": {}, "b": {}}, "dependentRequired": {"a": ["b"]}},
        [{}, {"b": 1}, {"a": 1, "b": 1}],
        [{"a": 1}],
    ),
    "dependentSchemas": (
        {
            "properties": {"a": {}, "b": {}},
            "dependentSchemas": {"a": {"properties": {"b": {"type": "null"}}}},
        },
        [{"b": 1}, {"a": 1}, {"a": 1, "b": None}, 5],
        [{"a": 1, "b": 1}],
    ),
    "unevaluatedProperties": (
        {"type": "object", "properties": {"a": {}}, "unevaluatedProperties": False},
        [{}, {"a": 1}],
        [{"b": 1}],
    ),
    "items": ({"type": "array", "items": {"type": "integer"}}, [[], [1, 2]], [["x"], [1, "x"]]),
    "items false": ({"type": "array", "items": False}, [[]], [[1]]),
    "prefixItems": (
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]},
        [[], [1], [1, "x"], [1, "x", None]],
        [["x"], [1, 1]],
    ),
    "items after prefixItems": (
        {"items": False, "allOf": [{}], "prefixItems": [{"type": "integer"}]},
        [[], [1], "no array"],
        [[1, 2], ["x"]],
    ),
    "prefixItems false": ({"type": "array", "prefixItems": [True, False]}, [[], [1]], [[1, 2]]),
    "unevaluatedItems": (
        {"type": "array", "prefixItems": [{}], "unevaluatedItems": {"type": "null"}},
        [[1], [1, None]],
        [[1, 2]],
    ),
    "minItems": ({"type": "array", "minItems": 2}, [[1, 2], [1, 2, 3]], [[], [1]]),
    "maxItems": ({"type": "array", "maxItems": 2}, [[], [1, 2]], [[1, 2, 3]]),
    "maxItems 0": ({"type": "array", "maxItems": 0}, [[]], [[1]]),
    "contains": (
        {"type": "array", "contains": {"type": "string"}, "maxItems": 3},
        [["x"], [1, "x"], [1, 2, "x"], ["x", "y"]],
        [[], [1], [1, 2, 3]],
    ),
    "contains anything": ({"type": "array", "contains": {}}, [[1]], [[]]),
    "minContains 0": ({"type": "array", "contains": False, "minContains": 0}, [[], [1]], []),
    "uniqueItems": (
        {"type": "array", "items": {"enum": ["a", 1, None]}, "uniqueItems": True, "minItems": 1},
        [["a"], [1, "a"], [None, "a", 1]],
        [[], ["a", "a"], [1, None, 1]],
    ),
    "uniqueItems of one item": (
        {"type": "array", "maxItems": 1, "uniqueItems": True},
        [[], [1]],
        [[1, 1]],
    ),
    "uniqueItems of booleans": (
        {"type": "array", "items": {"type": "boolean"}, "uniqueItems": True},
        [[], [True], [True, False], [False, True]],
        [[True, True], [1]],
    ),
    "uniqueItems of different kinds": (
        {
            "type": "array",
            "prefixItems": [{"type": "integer"}, {"type": "string"}],
            "items": False,
            "uniqueItems": True,
        },
        [[], [1], [1, "x"]],
        [[1, 1]],
    ),
    "enum": (
        {"enum": ["a", 1, 1.5, None, False, [1, {"b": []}], {"c": {"d": "e"}, "f": 2}]},
        ["a", 1, 1.5, None, False, [1, {"b": []}], {"c": {"d": "e"}, "f": 2}],
        ["b", 2, 1.25, True, [], [1], [1, {"b": [1]}], {}, {"c": {"d": "e"}}],
    ),
    "enum beside type": (
        {"type": "string", "enum": ["a", "bb", 3], "minLength": 2},
        ["bb"],
        ["a", 3, "cc"],
    ),
    "enum beside pattern": ({"enum": ["ab", "ac", "xx"], "pattern": "^a"}, ["ab", "ac"], ["xx"]),
    "const": ({"const": {"a": [None, 'é\n"\\']}}, [{"a": [None, 'é\n"\\']}], [{}, {"a": []}]),
    "const 1.0": ({"const": 1.0}, [1], [2, 1.5, "1", True]),
    "const 0.1": ({"const": 0.1}, [0.1], [0.2, 0]),
    "const beside properties": (
        {"const": {"a": 1, "b": 2}, "properties": {"a": {"type": "integer"}}},
        [{"a": 1, "b": 2}],
        [{"a": 1}, {"a": 2, "b": 2}],
    ),
    "minimum": ({"type": "integer", "minimum": -3}, [-3, 0, 99], [-4]),
    "minimum of numbers": ({"type": "number", "minimum": 0.5}, [0.5, 0.75, 7], [0.4, 0, -1]),
    "maximum": ({"type": "number", "maximum": 2.5}, [2.5, -100.125, 0], [2.6, 3, 10]),
    "bounds": ({"type": "integer", "minimum": 95, "maximum": 103}, [95, 100, 103], [94, 104]),
    "bounds not whole": ({"type": "integer", "minimum": 0.5, "maximum": 2.5}, [1, 2], [0, 3]),
    "exclusiveMinimum": ({"type": "number", "exclusiveMinimum": 0}, [0.001, 1], [0, -1]),
    "exclusiveMaximum": ({"type": "integer", "exclusiveMaximum": 3}, [2, -9], [3, 4]),
    "minimum large": ({"type": "integer", "minimum": -(2**63)}, [0, -5], ["x"]),
    "maximum large": ({"type": "integer", "maximum": 2**64, "minimum": 0}, [0, 2**53], [-1]),
    "multipleOf": ({"type": "integer", "multipleOf": 3}, [0, 3, -6, 27], [1, 4, -2]),
    "multipleOf in bounds": (
        {"type": "integer", "multipleOf": 7, "exclusiveMinimum": 7, "maximum": 29},
        [14, 21, 28],
        [7, 10, 29, 35],
    ),
    "multipleOf of numbers": ({"type": "number", "multipleOf": 0.25}, [0.25, 1, 1.75], [0.1, 1.3]),
    "multipleOf of integers": ({"type": "integer", "multipleOf": 1.5}, [3, -6], [1, 4]),
    "bounds with one integer part": (
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.5},
        [0.25, 0.001],
        [0, 0.5, -0.1],
    ),
    "negative bounds with one integer part": (
        {"type": "number", "minimum": -1.5, "exclusiveMaximum": -1},
        [-1.5, -1.001],
        [-1, -1.6, 0],
    ),
    "multipleOf of numbers in bounds": (
        {"type": "number", "minimum": 28.85, "maximum": 29.05, "multipleOf": 0.1},
        [],
        [28.8, 28.85, 29.05, 29.1],
    ),
    "const in bounds of a step": ({"const": 1.5, "multipleOf": 0.25}, [1.5], [1.25, ""]),
    "minLength": ({"type": "string", "minLength": 2}, ["ab", "é\n", "😀😀"], ["", "a", "😀"]),
    "maxLength": ({"type": "string", "maxLength": 2}, ["", "ab", "\n\n", "😀é"], ["abc"]),
    "pattern": ({"type": "string", "pattern": "b+c"}, ["bc", "abbcd"], ["b", "cb"]),
    "pattern and length": (
        {"type": "string", "pattern": "^[a-c]*$", "minLength": 2, "maxLength": 3},
        ["ab", "ccc"],
        ["a", "abca", "xy"],
    ),
    "pattern and pattern": (
        {"type": "string", "pattern": "a", "allOf": [{"pattern": "b"}, {"maxLength": 3}]},
        ["ab", "bxa"],
        ["a", "b", "axxb"],
    ),
    "format and pattern": (
        {"type": "string", "format": "date", "pattern": "-29$"},
        ["2024-02-29"],
        ["2023-02-29", "2024-02-28", "-29"],
    ),
    "anyOf": (
        {"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 1}]},
        [1, "a"],
        ["ab", None],
    ),
    "anyOf beside properties": (
        {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
        },
        [{"a": 1}, {"b": 1}, {"a": 1, "b": 1}],
        [{}, {"c": 1}, {"a": "x"}],
    ),
    "oneOf by type": ({"oneOf": [{"type": "integer"}, {"type": "null"}]}, [1, None], ["x"]),
    "oneOf by discriminator": (
        {
            "oneOf": [
                {
                    "type": "object",
                    "properties": {"kind": {"const": kind}, "value": {"type": kind}},
                    "required": ["kind", "value"],
                }
                for kind in ("integer", "string")
            ]
        },
        [{"kind": "integer", "value": 1}, {"kind": "string", "value": "x"}],
        [{"kind": "integer", "value": "x"}, {"kind": "null", "value": None}],
    ),
    "oneOf by presence": (
        {
            "type": "object",
            "properties": {"a": {}, "b": {}},
            "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
        },
        [{"a": 1}, {"b": 1}],
        [{}, {"a": 1, "b": 1}],
    ),
    "oneOf overlapping bounds": (
        {"type": "number", "oneOf": [{"minimum": 5}, {"minimum": 7}]},
        [5, 6.5],
        [4, 7, 8],
    ),
    "allOf": (
        {
            "allOf": [
                {"properties": {"a": {"type": "integer"}}, "required": ["a"]},
                {"properties": {"a": {"minimum": 3}, "b": {"type": "null"}}},
            ],
            "type": "object",
        },
        [{"a": 3}, {"a": 4, "b": None}],
        [{"a": 2}, {"a": "x"}, {"b": None}, {"a": 3, "b": 1}],
    ),
    "allOf closed": (
        {
            "allOf": [
                {"properties": {"a": {}}, "additionalProperties": {"type": "integer"}},
                {"properties": {"b": {"minimum": 2}}},
            ],
            "type": "object",
        },
        [{"a": "x", "b": 2, "c": 1}],
        [{"b": 1}, {"b": "x"}, {"c": "x"}],
    ),
    "not const": ({"not": {"const": "no"}}, ["", "n", "nope", "yes", 1, None], ["no"]),
    "not enum": ({"type": "string", "not": {"enum": ["a", "ab"]}}, ["", "b", "abc"], ["a", "ab"]),
    "not type": ({"not": {"type": ["string", "object"]}}, [1, None, []], ["", {}]),
    "not required": ({"type": "object", "not": {"required": ["a"]}}, [{}, {"b": 1}], [{"a": 1}]),
    "not minimum": ({"type": "number", "not": {"minimum": 3}}, [2.5, -1], [3, 4]),
    "not lengths": (
        {"type": "string", "not": {"minLength": 2, "maxLength": 3}},
        ["", "a", "abcd"],
        ["ab", "abc"],
    ),
    "not not": ({"type": "string", "not": {"not": {"enum": ["a", "b"]}}}, ["a", "b"], ["", "c"]),
    "not array": (
        {
            "type": "array",
            "not": {"minItems": 1, "maxItems": 2, "prefixItems": [{"type": "string"}]},
        },
        [[], [1], ["x", 2, 3]],
        [["x"], ["x", 1]],
    ),
    "not counts of properties": (
        {"type": "object", "not": {"minProperties": 1}},
        [{}],
        [{"a": 1}],
    ),
    "not boolean": ({"type": ["boolean", "null"], "not": {"const": True}}, [False, None], [True]),
    "not false": ({"not": False}, ANY, []),
    "not maximum": ({"type": "number", "not": {"maximum": 3}}, [3.5, 4], [2, 3]),
    "if then else": (
        {
            "type": "object",
            "properties": {"kind": {"type": "string"}, "value": {}},
            "required": ["kind", "value"],
            "if": {"properties": {"kind": {"const": "n"}}},
            "then": {"properties": {"value": {"type": "number"}}},
            "else": {"properties": {"value": {"type": "string"}}},
        },
        [{"kind": "n", "value": 1}, {"kind": "s", "value": "x"}, {"kind": "", "value": "x"}],
        [{"kind": "n", "value": "x"}, {"kind": "s", "value": 1}],
    ),
    "if alone": ({"if": {"type": "integer"}}, ANY, []),
    "then alone": ({"then": {"type": "integer"}}, ANY, []),
    "names that need escapes": (
        {"properties": {'q"\\\n': {"type": "integer"}}, "additionalProperties": {"type": "null"}},
        [{'q"\\\n': 1}, {"q": None}],
        [{'q"\\\n': None}, {"q": 1}],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_keyword_is_enforced(name: str) -> None:
    schema, valid, invalid = CASES[name]
    matcher = compile_schema(schema)
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    assert all(map(validator.is_valid, valid))
    assert not any(map(validator.is_valid, invalid))
    assert [value for value in valid if not accepts(matcher, value)] == []
    assert [value for value in invalid if accepts(matcher, value)] == []
