"""Random schemas in the vocabulary that tgi_llama knows, most of them with a meaning.

hypothesis-jsonschema makes instances of given schemas; what is wanted here are the schemas.
"""

from typing import Any

from hypothesis import strategies as st

NAMES = ["a", "b", "ab", "é", "c d", 'q"\n']
PATTERNS = [
    "^a", "^[a-z]+$", "\\d{2}", "a|^b", "^(x|y)?$", "\\w\\W", "\\s", "[^\\d]", "^.{1,3}$", "^\\S+$",
    "^[a-f]*$", "\\D",
]  # fmt: skip
NAME_PATTERNS = ["^a", "^b", "^x-", "^[^ab]", "^\\w+$", "\\s", "^\\W", "\\d"]
FORMATS = [
    "date", "time", "date-time", "email", "ipv4", "ipv6", "uuid", "uri", "hostname", "duration",
    "json-pointer",
]  # fmt: skip
TYPES = ["null", "boolean", "number", "integer", "string", "array", "object"]
SCALARS = [None, True, False, 0, 1, -1, 2, 1.5, -0.5, 10, "", "a", "ab", "b", 'q"', "\n", [], {}]
BOUNDS = [0, 1, -1, 5, 10, -10, 0.5, -2.5, 100, 1e5, -1e-3]
SMALL = st.integers(0, 3)

Schemas = st.SearchStrategy[Any]


def values() -> Schemas:
    return st.sampled_from([*SCALARS, [1], ["a", "b"], {"a": 1}, {"a": 1, "b": None}])


def types() -> Schemas:
    several = st.lists(st.sampled_from(TYPES), min_size=2, max_size=2, unique=True)
    return st.one_of(
        st.sampled_from(TYPES), st.sampled_from(["object", "array", "string"]), several
    )


def flat_keywords() -> dict[str, Schemas]:
    bounds = st.sampled_from(BOUNDS)
    return {
        "minimum": bounds,
        "maximum": bounds,
        "exclusiveMinimum": bounds,
        "exclusiveMaximum": bounds,
        "multipleOf": st.sampled_from([1, 2, 3, 5, 0.5, 0.25, 10, 1000]),
        "minLength": SMALL,
        "maxLength": st.integers(0, 6),
        "pattern": st.sampled_from(PATTERNS),
        "format": st.sampled_from(FORMATS),
        "enum": st.lists(values(), min_size=1, max_size=4),
        "const": values(),
    }


def nested_keywords(inner: Schemas) -> dict[str, Schemas]:
    """``inner`` are schemas for places inside values; in place they are used as well."""
    several = st.lists(inner, min_size=1, max_size=3)
    names = st.lists(st.sampled_from(NAMES), max_size=2, unique=True)
    return {
        "properties": st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
        "required": names,
        "additionalProperties": inner,
        "patternProperties": st.dictionaries(st.sampled_from(NAME_PATTERNS), inner, max_size=2),
        "propertyNames": st.sampled_from(
            [
                {"pattern": "^a"},
                {"maxLength": 2},
                {"enum": ["a", "b"]},
                {"minLength": 1},
                {"const": 3},
            ]
        ),
        "minProperties": SMALL,
        "maxProperties": SMALL,
        "items": inner,
        "prefixItems": several,
        "minItems": SMALL,
        "maxItems": SMALL,
        "uniqueItems": st.booleans(),
        "contains": inner,
        "allOf": several,
        "anyOf": several,
        "oneOf": several,
        "not": inner,
        "if": inner,
        "then": inner,
        "else": inner,
        "dependentRequired": st.dictionaries(st.sampled_from(NAMES), names, max_size=2),
        "dependentSchemas": st.dictionaries(st.sampled_from(NAMES), inner, max_size=1),
        "unevaluatedProperties": inner,
        "unevaluatedItems": inner,
    }


@st.composite
def nodes(draw: st.DrawFn, depth: int) -> Any:
    """A schema of some levels; recursion goes through properties and items only."""
    if draw(st.integers(0, 19)) == 0:
        return draw(st.sampled_from([True, False, {}]))
    keywords = flat_keywords()
    if depth > 0:
        keywords.update(nested_keywords(nodes(depth - 1)))
    node: dict[str, Any] = {"type": draw(types())} if draw(st.integers(0, 3)) else {}
    for word in draw(st.lists(st.sampled_from(sorted(keywords)), max_size=3, unique=True)):
        node[word] = draw(keywords[word])
    place = draw(st.sampled_from(["nowhere"] * 6 + ["items", "properties"]))
    if depth > 0 and place != "nowhere":
        target = {"$ref": draw(st.sampled_from(["#", "#/$defs/A"]))}
        node[place] = target if place == "items" else {draw(st.sampled_from(NAMES)): target}
    return node


@st.composite
def schemas(draw: st.DrawFn) -> Any:
    root = draw(nodes(2))
    return {**root, "$defs": {"A": draw(nodes(1))}} if isinstance(root, dict) else root
