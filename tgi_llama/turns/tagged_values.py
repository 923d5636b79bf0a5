"""Arguments that a model writes between tags, one parameter after the other, instead of as JSON.

What stands between the tags is the text itself where the parameter is a string, and JSON otherwise;
which of them it is, only the tool's schema tells. Pure functions, any thread.
"""

import json
from collections.abc import Mapping
from typing import TypeGuard

import attrs

from tgi_llama.errors import ValidationError

_WORDS = frozenset(
    (
        *("$dynamicRef", "$recursiveRef", "$ref", "additionalItems", "allOf", "anyOf", "const"),
        *("contains", "dependencies", "dependentRequired", "dependentSchemas", "else", "enum"),
        *("exclusiveMaximum", "exclusiveMinimum", "format", "if", "items", "maxContains"),
        *("maxItems", "maxLength", "maxProperties", "maximum", "minContains", "minItems"),
        *("minLength", "minProperties", "minimum", "multipleOf", "not", "nullable", "oneOf"),
        *("pattern", "patternProperties", "prefixItems", "propertyNames", "then", "type"),
        *("unevaluatedItems", "unevaluatedProperties", "uniqueItems"),
    )
)
"""Keywords that say something about a value; ``properties``, ``required`` and
``additionalProperties`` are read by themselves. Others, known or not, say nothing."""

_OBJECT_WORDS = frozenset(("additionalProperties", "properties", "required"))
_DEFINITIONS = ("$defs", "definitions")
_DEFINED = tuple(f"#/{key}/" for key in _DEFINITIONS)
_SCALARS = frozenset(("boolean", "integer", "null", "number"))
_ANY = _SCALARS | {"array", "object"}
_MAX_REFERENCES = 32
"""More in a row are a circle."""

_LARGEST_LEAST = 200
_LONGEST_TEXT = 2_000
"""Bounds of a text's length up to which it is written as itself. Larger ones would make a large
automaton, and strings in JSON are counted without one."""

_PYTHON_WORDS = {"True": "true", "False": "false", "None": "null"}
"""Templates that print values with Jinja's ``string`` filter teach models these."""


@attrs.frozen(kw_only=True)
class ValueType:
    """How a parameter's value is written."""

    is_text: bool
    """The text itself, without quotes."""
    others: frozenset[str] = frozenset()
    """JSON types that a text is taken for where it reads as one."""
    choices: tuple[str, ...] | None = None
    """The only texts that are allowed."""
    min_length: int = 0
    max_length: int | None = None
    """In characters."""

    @property
    def is_plain(self) -> bool:
        """Text that can be passed on as it comes."""
        return self.is_text and not self.others


ANYTHING = ValueType(is_text=True, others=_ANY)
_JSON = ValueType(is_text=False)


@attrs.frozen(kw_only=True)
class Parameter:
    """One of a tool's parameters."""

    name: str
    schema: object
    """Complete in itself: it brings the definitions that it refers to."""
    is_required: bool
    kind: ValueType


@attrs.frozen(kw_only=True)
class Parameters:
    """What may stand between a call's tags."""

    known: tuple[Parameter, ...]
    """In the schema's order."""
    further: Parameter | None = None
    """What parameters of other names are like; None where there may be none."""

    def find(self, name: str) -> ValueType:
        for parameter in self.known:
            if parameter.name == name:
                return parameter.kind
        return self.further.kind if self.further is not None else ANYTHING


def read_parameters(schema: object, field: str) -> Parameters:
    """Takes the schema of an arguments object apart.

    Raises ValidationError where it says more about the object than which parameters it has: tags
    cannot express it. ``field`` is the JSON path of the schema.
    """
    if schema is False:
        raise ValidationError(f"{field}: no arguments object is valid", field=field)
    root = schema if isinstance(schema, Mapping) else {}
    top = _resolved(root, root)
    _check_top(top, field)
    parts = top.get("properties")
    parts = parts if isinstance(parts, Mapping) else {}
    required = top.get("required")
    names = [str(name) for name in required] if isinstance(required, list) else []
    further = top.get("additionalProperties", True)
    schemas = {**parts, **{name: further for name in names if name not in parts}}
    for name, part in schemas.items():
        _check_parameter(name, part, f"{field}.properties.{name}", is_required=name in names)
    known = tuple(
        _parameter(name, part, root, is_required=name in names)
        for name, part in schemas.items()
        if part is not False
    )
    if schemas or further is False:
        return Parameters(known=known)
    _check_references(further, f"{field}.additionalProperties")
    return Parameters(known=(), further=_parameter("", further, root, is_required=False))


def _check_parameter(name: str, schema: object, path: str, *, is_required: bool) -> None:
    if not name or set(name) & set("<>\r\n"):
        raise ValidationError(f"{path}: no tag of this model can hold the name", field=path)
    if schema is False and is_required:
        raise ValidationError(f"{path}: is required, and no value is valid", field=path)
    _check_references(schema, path)


def _check_references(schema: object, path: str) -> None:
    """A parameter's schema stands for itself, with the definitions of the whole."""
    if isinstance(schema, Mapping):
        reference = schema.get("$ref")
        if isinstance(reference, str) and not reference.startswith(_DEFINED):
            raise ValidationError(
                f"{path}.$ref: must begin with {' or '.join(_DEFINED)} with this model, which "
                "writes each parameter by itself",
                field=f"{path}.$ref",
            )
        for key, part in schema.items():
            if key not in ("const", "default", "enum", "example", "examples"):
                _check_references(part, f"{path}.{key}")
    elif isinstance(schema, list):
        for index, part in enumerate(schema):
            _check_references(part, f"{path}[{index}]")


def _check_top(top: Mapping[str, object], field: str) -> None:
    for keyword in top:
        if keyword in _WORDS and keyword not in ("format", "type"):
            raise ValidationError(
                f"{field}.{keyword}: not supported for a tool's arguments with this model, "
                "which writes each parameter by itself",
                field=f"{field}.{keyword}",
            )
    kinds = top.get("type", "object")
    if kinds != "object" and not (isinstance(kinds, list) and "object" in kinds):
        raise ValidationError(f"{field}.type: arguments are an object", field=f"{field}.type")


def _parameter(
    name: str, schema: object, root: Mapping[str, object], *, is_required: bool
) -> Parameter:
    whole = schema
    if isinstance(schema, Mapping):
        definitions = {key: root[key] for key in _DEFINITIONS if key in root}
        whole = {**definitions, **schema}
    return Parameter(
        name=name, schema=whole, is_required=is_required, kind=_value_type(schema, root)
    )


def _value_type(schema: object, root: Mapping[str, object]) -> ValueType:
    if not isinstance(schema, Mapping):
        return ANYTHING
    schema = _resolved(schema, root)
    keywords = _said(schema)
    if not keywords:
        return ANYTHING
    texts = _texts(schema)
    if texts is not None and keywords <= {"type", "enum", "const"}:
        return ValueType(is_text=True, choices=texts)
    if schema.get("type") == "string" and keywords <= {"type", "minLength", "maxLength"}:
        return _bounded_text(schema)
    types = _simple_types(schema, root)
    if types is not None and "string" in types:
        return ValueType(is_text=True, others=types - {"string"})
    return _JSON


def _texts(schema: Mapping[str, object]) -> tuple[str, ...] | None:
    """The strings that an ``enum`` or ``const`` lists; None where there is none, or where tags
    could not hold one of them."""
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if not isinstance(values, list) or not values or schema.get("type", "string") != "string":
        return None
    texts = [value for value in values if isinstance(value, str) and value and "</" not in value]
    return tuple(dict.fromkeys(texts)) if len(texts) == len(values) else None


def _bounded_text(schema: Mapping[str, object]) -> ValueType:
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    if not _is_length(least, _LARGEST_LEAST) or not (
        most is None or (_is_length(most, _LONGEST_TEXT) and least <= most)
    ):
        return _JSON  # where what is wrong with it is told
    return ValueType(is_text=True, min_length=least, max_length=most)


def _is_length(value: object, largest: int) -> TypeGuard[int]:
    """What a repetition of a regular expression takes, within reason."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= largest


def _simple_types(
    schema: Mapping[str, object], root: Mapping[str, object]
) -> frozenset[str] | None:
    """The types of a schema that says no more than them, all scalar: ``{"type": ["string",
    "null"]}`` or ``anyOf`` of such."""
    keywords = _said(schema)
    branches = schema.get("anyOf")
    if keywords == {"anyOf"} and isinstance(branches, list):
        found: frozenset[str] = frozenset()
        for branch in branches:
            types = (
                _simple_types(_resolved(branch, root), root)
                if isinstance(branch, Mapping)
                else None
            )
            if types is None:
                return None
            found |= types
        return found
    named = schema.get("type")
    listed = named if isinstance(named, list) else [named]
    names = frozenset(name for name in listed if isinstance(name, str))
    simple = keywords == {"type"} and len(names) == len(listed) and names <= _SCALARS | {"string"}
    return names if simple else None


def _said(schema: Mapping[str, object]) -> frozenset[str]:
    """The keywords in it that say something."""
    return (_WORDS | _OBJECT_WORDS) & schema.keys()


def _resolved(schema: Mapping[str, object], root: Mapping[str, object]) -> Mapping[str, object]:
    """The schema behind a local ``$ref`` that stands alone; else the schema itself."""
    for _ in range(_MAX_REFERENCES):
        reference = schema.get("$ref")
        if not isinstance(reference, str) or _said(schema) != {"$ref"}:
            return schema
        target: object = root
        for step in reference.removeprefix("#").strip("/").split("/"):
            key = step.replace("~1", "/").replace("~0", "~")
            target = target.get(key) if isinstance(target, Mapping) else None
        if not reference.startswith("#/") or not isinstance(target, Mapping):
            return schema
        schema = target
    return schema


def as_json(text: str, kind: ValueType) -> str:
    """The JSON that a value's text stands for. What is meant as JSON and is none is a string."""
    if kind.is_plain:
        return json.dumps(text, ensure_ascii=False)
    word = text.strip()
    word = _PYTHON_WORDS.get(word, word)
    try:
        value = json.loads(word, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return json.dumps(text, ensure_ascii=False)
    if kind.is_text and _type_names(value).isdisjoint(kind.others):
        return json.dumps(text, ensure_ascii=False)
    return word


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is no JSON")


def _type_names(value: object) -> frozenset[str]:
    if value is None:
        return frozenset(("null",))
    if isinstance(value, bool):
        return frozenset(("boolean",))
    if isinstance(value, int):
        return frozenset(("integer", "number"))
    if isinstance(value, float):
        return frozenset(("number", "integer") if value.is_integer() else ("number",))
    if isinstance(value, list):
        return frozenset(("array",))
    return frozenset(("object",)) if isinstance(value, dict) else frozenset()
