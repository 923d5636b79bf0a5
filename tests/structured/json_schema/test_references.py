"""References: what they lead to, what stands beside them, recursion, and what is refused."""

import pytest
from jsonschema import Draft202012Validator
from structured.json_schema.llguidance_play import accepts, compile_schema

from tgi_llama.errors import ValidationError
from tgi_llama.structured.json_schema.normalise import normalise

NODE = {
    "type": "object",
    "properties": {"value": {"type": "integer"}, "next": {"$ref": "#/$defs/node"}},
    "required": ["value"],
    "additionalProperties": False,
}
TREE = {
    "anyOf": [{"type": "integer"}, {"type": "array", "items": {"$ref": "#/definitions/tree"}}],
}

CASES: dict[str, tuple[object, list[object], list[object]]] = {
    "to $defs": (
        {"$defs": {"a": {"type": "integer"}}, "type": "array", "items": {"$ref": "#/$defs/a"}},
        [[], [1, 2]],
        [["x"]],
    ),
    "to any pointer": (
        {"properties": {"a/b": {"type": "null"}, "c~%": {"$ref": "#/properties/a~1b"}}},
        [{"a/b": None, "c~%": None}],
        [{"c~%": 1}],
    ),
    "to an item": (
        {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"$ref": "#/anyOf/0"}}]},
        [1, [1]],
        [["x"], "x"],
    ),
    "to an escaped pointer": (
        {"$ref": "#/$defs/a%20b~0", "$defs": {"a b~": {"const": 1}}},
        [1],
        [2],
    ),
    "to an anchor": (
        {"$ref": "#here", "$defs": {"a": {"$anchor": "here", "type": "integer"}}},
        [1],
        ["x"],
    ),
    "to an $id": (
        {
            "$id": "http://example.com/root.json",
            "$ref": "item.json",
            "$defs": {
                "a": {
                    "$id": "item.json",
                    "$ref": "#/$defs/inner",
                    "$defs": {"inner": {"type": "integer"}},
                }
            },
        },
        [1],
        ["x"],
    ),
    "to the root from a part with an id of its own": (
        {
            "$defs": {"a": {"type": "integer"}},
            "properties": {"x": {"id": "http://x/", "items": {"$ref": "#/$defs/a"}}},
        },
        [{"x": [1]}],
        [{"x": ["y"]}],
    ),
    "with siblings": (
        {"$defs": {"a": {"type": "integer"}}, "$ref": "#/$defs/a", "minimum": 3},
        [3],
        [2, "x"],
    ),
    "closed and extended": (
        {
            "$defs": {"a": {"type": "object", "properties": {"a": {"type": "integer"}}}},
            "$ref": "#/$defs/a",
            "properties": {"b": {"type": "string"}},
            "required": ["a", "b"],
        },
        [{"a": 1, "b": "x"}],
        [{"a": 1}, {"a": "x", "b": "x"}],
    ),
    "recursive": (
        {"$ref": "#/$defs/node", "$defs": {"node": NODE}},
        [{"value": 1}, {"value": 1, "next": {"value": 2, "next": {"value": 3}}}],
        [{"value": 1, "next": {}}, {"value": 1, "next": None}],
    ),
    "recursive through the root": (
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "additionalProperties": False},
        [{}, {"a": {"a": {}}}],
        [{"a": {"b": {}}}, {"a": 1}],
    ),
    "recursive arrays": (
        {"$ref": "#/definitions/tree", "definitions": {"tree": TREE}},
        [1, [], [1, [2, []]]],
        ["x", [[None]]],
    ),
    "recursive with siblings": (
        {
            "$ref": "#/$defs/node",
            "properties": {"next": {"$ref": "#/$defs/small"}},
            "$defs": {
                "node": NODE,
                "small": {
                    "properties": {"value": {"maximum": 5}, "next": {"$ref": "#/$defs/small"}}
                },
            },
        },
        [{"value": 9}, {"value": 9, "next": {"value": 5, "next": {"value": 5}}}],
        [
            {"value": 9, "next": {"value": 6}},
            {"value": 9, "next": {"value": 5, "next": {"value": 6}}},
        ],
    ),
    "an option that never ends is left out": (
        {
            "$ref": "#/$defs/a",
            "$defs": {
                "a": {"anyOf": [{"type": "integer"}, {"$ref": "#/$defs/endless"}]},
                "endless": {
                    "type": "object",
                    "properties": {"x": {"$ref": "#/$defs/endless"}},
                    "required": ["x"],
                },
            },
        },
        [1],
        [{}, {"x": 1}],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_reference_is_followed(name: str) -> None:
    schema, valid, invalid = CASES[name]
    matcher = compile_schema(schema)
    validator = Draft202012Validator(schema)
    assert all(map(validator.is_valid, valid))
    assert not any(map(validator.is_valid, invalid))
    assert [value for value in valid if not accepts(matcher, value)] == []
    assert [value for value in invalid if accepts(matcher, value)] == []


def itself_in(keyword: str, other: object) -> object:
    definition = {keyword: [{"$ref": "#/$defs/a"}, other]}
    return {"items": {"$ref": "#/$defs/a"}, "$defs": {"a": definition}}


ENDLESS = {"type": "object", "properties": {"x": {"$ref": "#"}}, "required": ["x"]}


@pytest.mark.parametrize(
    ("schema", "field", "message"),
    [
        ({"$ref": "http://example.com/a.json"}, "f.$ref", "nothing is fetched"),
        ({"items": {"$ref": "other.json#/a"}}, "f.items.$ref", "nothing is fetched"),
        ({"$ref": "#/$defs/a"}, "f.$ref", "leads to nothing"),
        ({"$ref": "#nowhere"}, "f.$ref", "leads to nothing"),
        ({"$ref": 1}, "f.$ref", "must be a string"),
        ({"$dynamicRef": "#a"}, "f.$dynamicRef", "cannot be enforced"),
        ({"$recursiveRef": "#"}, "f.$recursiveRef", "cannot be enforced"),
        ({"$ref": "#"}, "f", "refers to itself"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "f.$defs.a", "itself"),
        (itself_in("allOf", {"minimum": 1}), "f.$defs.a", "itself"),
        (itself_in("anyOf", {"type": "null"}), "f.$defs.a", "itself"),
        (itself_in("oneOf", {"type": "null"}), "f.$defs.a", "itself"),
        (ENDLESS, "f", "unsatisfiable"),
        ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, "f", "unsatisfiable"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"not": {"pattern": "x"}}}}, "f.$defs.a.not", "be"),
    ],
)  # fmt: skip
def test_reference_that_leads_nowhere_is_refused(schema: object, field: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message) as refused:
        normalise(schema, field="f")
    assert refused.value.field == field


def test_definition_that_nothing_refers_to_is_not_looked_at() -> None:
    schema = {"type": "null", "$defs": {"a": {"uniqueItems": True}, "b": {"minLength": "x"}}}
    assert normalise(schema, field="f").schema == {"type": "null"}
