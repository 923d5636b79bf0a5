"""JSON Schemas of wire types, in the dialect of OpenAPI 3.1.

They say what ``converter`` does: a type of requests is described as ``parse`` reads it (with its
ranges, aliases, and where ``null`` is accepted), a type of answers as ``dump`` writes it.
Descriptions are the docstrings of classes and fields.
"""

import ast
import enum
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from types import NoneType
from typing import Final, NewType, get_args

import attrs

from .fields import (
    ALIASES,
    NULL_IS_DEFAULT,
    OMIT_WHEN_DEFAULT,
    IntegerRange,
    SinglePrecision,
    ValueRange,
)
from .grammar_requests import JsonSchemaFormat
from .openai_requests import AllowedTools, Message, NamedToolChoice
from .shapes import (
    is_attrs_class,
    is_float,
    is_integer,
    is_literal,
    is_mapping,
    is_tuple,
    is_union,
)

Schema = dict[str, object]
"""Plain JSON."""

_REFERENCE = "#/components/schemas/"

_NULL: Final[Schema] = {"type": "null"}

_NOT_NULL: Final[Schema] = {"not": _NULL}


def _is_given(name: str, schema: Schema) -> Schema:
    return {"required": [name], "properties": {name: schema}}


CLASS_RULES: Final[Mapping[type, Schema]] = {
    Message: {
        "anyOf": [
            _is_given("content", _NOT_NULL),
            _is_given("tool_calls", {"type": "array", "minItems": 1}),
            _is_given("refusal", _NOT_NULL),
            _is_given("reasoning_content", _NOT_NULL),
        ]
    },
    AllowedTools: {"properties": {"tools": {"minItems": 1}}},
    NamedToolChoice: {
        "oneOf": [_is_given("function", _NOT_NULL), _is_given("allowed_tools", _NOT_NULL)]
    },
    JsonSchemaFormat: {
        "anyOf": [_is_given("json_schema", _NOT_NULL), _is_given("value", _NOT_NULL)]
    },
}
"""What ``__attrs_post_init__`` of request types checks, which cannot be read off their fields."""


@attrs.define(eq=False)
class Schemas:
    """Describes types. Classes are described once, in ``definitions``, and referred to by name.

    ``ValueError`` where two classes have the same name, or one class is met in requests and in
    answers, which read and write differently.
    """

    definitions: dict[str, Schema] = attrs.field(factory=dict, init=False)
    """For ``components/schemas`` of the API document."""
    _owners: dict[str, tuple[type, bool]] = attrs.field(factory=dict, init=False)

    def of_request(self, t: object) -> Schema:
        """What ``converter.parse`` accepts for ``t``, but for values that ``validation`` judges
        by how the server was started."""
        return self._schema(t, reading=True)

    def of_answer(self, t: object) -> Schema:
        """What ``converter.dump`` writes for ``t``."""
        return self._schema(t, reading=False)

    def _schema(self, t: object, *, reading: bool) -> Schema:
        if isinstance(t, NewType):
            return self._schema(t.__supertype__, reading=reading)
        if is_attrs_class(t):
            assert isinstance(t, type)
            return self._reference(t, reading=reading)
        if is_union(t):
            return self._union(t, reading=reading)
        if is_tuple(t):
            return self._array(t, reading=reading)
        if is_mapping(t):
            values = self._schema(get_args(t)[1], reading=reading)
            return {"type": "object", "additionalProperties": values}
        return _scalar(t, reading=reading)

    # --- arrays and unions ---

    def _array(self, t: object, *, reading: bool) -> Schema:
        members = [self._schema(m, reading=reading) for m in get_args(t) if m is not Ellipsis]
        if Ellipsis in get_args(t):
            return {"type": "array", "items": members[0]}
        n = len(members)
        return {"type": "array", "prefixItems": members, "minItems": n, "maxItems": n}

    def _union(self, t: object, *, reading: bool) -> Schema:
        members = get_args(t)
        tagged = [m for m in members if is_attrs_class(m) and _tags(m)] if reading else []
        if len(tagged) < 2:
            return _any_of(self._schema(member, reading=reading) for member in members)
        others = [member for member in members if member not in tagged]
        return _any_of(
            [self._tagged(tagged), *(self._schema(other, reading=reading) for other in others)]
        )

    def _tagged(self, members: list[object]) -> Schema:
        """Objects that their ``type`` tells apart."""
        references = {member: self._schema(member, reading=True) for member in members}
        mapping = {tag: references[member]["$ref"] for member in members for tag in _tags(member)}
        return {
            "oneOf": list(references.values()),
            "discriminator": {"propertyName": "type", "mapping": mapping},
        }

    # --- objects ---

    def _reference(self, t: type, *, reading: bool) -> Schema:
        name = t.__name__
        owner = self._owners.setdefault(name, (t, reading))
        if owner != (t, reading):
            raise ValueError(f"{name} already means another schema")
        if name not in self.definitions:
            definition = self.definitions[name] = {}  # types may contain themselves
            definition |= self._object(t, reading=reading)
        return {"$ref": _REFERENCE + name}

    def _object(self, t: type, *, reading: bool) -> Schema:
        texts = _texts(t)
        schema: Schema = {"type": "object"}
        if "" in texts:
            schema["description"] = texts[""]
        schema["properties"] = properties = {}
        for field in attrs.fields(t):
            schema_of_field = self._field(field, reading=reading)
            if field.name in texts:
                schema_of_field["description"] = texts[field.name]
            properties[field.name] = schema_of_field
            for alias in _aliases(field):
                note = f"Another name of `{field.name}`."
                properties[alias] = {**schema_of_field, "description": note, "deprecated": True}
        required = [field.name for field in attrs.fields(t) if _is_required(field, reading=reading)]
        if required:
            schema["required"] = required
        return schema | (_all_of(_conditions(t)) if reading else {})

    def _field(self, field: "attrs.Attribute[object]", *, reading: bool) -> Schema:
        schema = self._schema(field.type, reading=reading)
        if not reading:
            return schema
        if field.metadata.get(NULL_IS_DEFAULT, False):
            schema = _any_of([schema, _NULL])
        default = _plain(field.default)
        return dict(schema) if default is None else {**schema, "default": default}


# --- scalars --------------------------------------------------------------------------------------


def _scalar(t: object, *, reading: bool) -> Schema:
    if t is object:
        return {}
    if t is NoneType:
        return dict(_NULL)
    if t is str:
        return {"type": "string"}
    if t is bool:
        return {"type": "boolean"}
    if is_literal(t):
        return {"type": "string", "enum": list(get_args(t))}
    if isinstance(t, type) and issubclass(t, enum.Enum):
        return {"type": "string", "enum": [member.value for member in t]}
    if is_integer(t):
        return {"type": "integer", **_integer_bounds(get_args(t)[1:])}
    assert is_float(t), f"{t} is no type that fields have"
    return _number(get_args(t)[1:], reading=reading)


def _integer_bounds(marks: Iterable[object]) -> Schema:
    minima, maxima = [], []
    for mark in marks:
        if isinstance(mark, IntegerRange):
            minima.append(mark.minimum)
            maxima.append(mark.maximum)
        elif isinstance(mark, ValueRange):
            minima += [int(mark.minimum)] if mark.minimum is not None else []
            minima += [int(mark.above) + 1] if mark.above is not None else []
            maxima += [int(mark.maximum)] if mark.maximum is not None else []
            maxima += [int(mark.below) - 1] if mark.below is not None else []
    return {
        **({"minimum": max(minima)} if minima else {}),
        **({"maximum": min(maxima)} if maxima else {}),
    }


def _number(marks: tuple[object, ...], *, reading: bool) -> Schema:
    schema: Schema = {"type": "number"}
    if any(isinstance(mark, SinglePrecision) for mark in marks):
        schema["format"] = "float"
    for mark in marks:
        if isinstance(mark, ValueRange):
            bounds = {
                "minimum": mark.minimum,
                "maximum": mark.maximum,
                "exclusiveMinimum": mark.above,
                "exclusiveMaximum": mark.below,
            }
            schema |= {key: bound for key, bound in bounds.items() if bound is not None}
    # What is not finite is written as null.
    return schema if reading else _any_of([schema, _NULL])


# --- what fields and classes say about themselves -------------------------------------------------


def _aliases(field: "attrs.Attribute[object]") -> tuple[str, ...]:
    aliases: tuple[str, ...] = field.metadata.get(ALIASES, ())
    return aliases


def _is_required(field: "attrs.Attribute[object]", *, reading: bool) -> bool:
    if reading:  # a field with aliases has a condition instead
        return field.default is attrs.NOTHING and not _aliases(field)
    return not field.metadata.get(OMIT_WHEN_DEFAULT, False)


def _tags(t: object) -> tuple[str, ...]:
    """The values of ``type`` that belong to this class alone."""
    assert isinstance(t, type)
    field = attrs.fields_dict(t).get("type")
    return get_args(field.type) if field is not None and is_literal(field.type) else ()


def _conditions(t: type) -> Iterator[Schema]:
    """What JSON Schema says about several keys of a request's object."""
    for field in attrs.fields(t):
        keys = (field.name, *_aliases(field))
        if len(keys) > 1 and field.default is attrs.NOTHING:
            yield {"oneOf": [{"required": [key]} for key in keys]}
        elif len(keys) > 1:
            yield {"not": {"required": list(keys)}}
    if t in CLASS_RULES:
        yield CLASS_RULES[t]


def _plain(default: object) -> object:
    """The default of a request's field as JSON; None where the document has nothing to say."""
    if isinstance(default, (bool, int, float, str)):
        return default
    if isinstance(default, tuple):
        return list(default)
    t = type(default)
    if not attrs.has(t):
        return None
    members = ((field, getattr(default, field.name)) for field in attrs.fields(t))
    return {field.name: value for field, value in members if value != field.default}


# --- composition ----------------------------------------------------------------------------------


def _any_of(schemas: Iterable[Schema]) -> Schema:
    """Flat, and each alternative once."""
    alternatives: list[object] = []
    for schema in schemas:
        inner = schema["anyOf"] if list(schema) == ["anyOf"] else [schema]
        assert isinstance(inner, list)
        alternatives += [one for one in inner if one not in alternatives]
    if len(alternatives) > 1:
        return {"anyOf": alternatives}
    (only,) = alternatives
    assert isinstance(only, dict)
    return only


def _all_of(conditions: Iterable[Schema]) -> Schema:
    found = list(conditions)
    if len(found) > 1:
        return {"allOf": found}
    return found[0] if found else {}


# --- descriptions ---------------------------------------------------------------------------------


def _texts(t: type) -> dict[str, str]:
    """Docstrings of the fields by name, inherited ones too, and under ``""`` the class's own."""
    texts: dict[str, str] = {}
    for base in reversed(t.__mro__):
        if attrs.has(base):
            texts.pop("", None)
            texts |= _texts_of_module(base.__module__).get(base.__qualname__, {})
    return texts


@cache
def _texts_of_module(name: str) -> Mapping[str, Mapping[str, str]]:
    """The same for all classes of a module. Empty where Python runs without sources."""
    try:
        source = inspect.getsource(sys.modules[name])
    except OSError:
        return {}
    classes = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    return {node.name: dict(_texts_of_class(node)) for node in classes}


def _texts_of_class(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    name = ""
    for statement in node.body:
        match statement:
            case ast.AnnAssign(target=ast.Name(id=target)):
                name = target
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield name, _as_markdown(text)


def _as_markdown(docstring: str) -> str:
    """For readers who see JSON and not Python."""
    in_json = re.sub(r"(``)?\bNone\b(``)?", "`null`", docstring).replace("``", "`")
    paragraphs = in_json.split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
