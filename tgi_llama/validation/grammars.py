"""What the text of an answer must be like, from the fields that say so: rules 18 to 21 of the wire
contract. Pure functions that raise ValidationError.

TGI takes JSON grammars only where the schema has ``properties``; that rule holds in its own layouts
and not in those of others, whose schemas often begin with ``$ref`` or ``anyOf``.
"""

from collections.abc import Iterator, Mapping
from typing import NoReturn

from tgi_llama.structured.grammar import (
    ChoiceGrammar,
    Grammar,
    JsonSchemaGrammar,
    LarkGrammar,
    RegexGrammar,
)
from tgi_llama.wire import grammar_requests as wire
from tgi_llama.wire.generate_requests import GenerateParameters
from tgi_llama.wire.grammar_requests import GuidedFields, StructuredOutputs
from tgi_llama.wire.json_text import NotJson, loads
from tgi_llama.wire.openai_requests import OpenAiRequest
from tgi_llama.wire.shapes import describe

from .rules import Limits, reject, reject_unsupported

_ANY_OBJECT = {"type": "object"}


def native_grammar(parameters: GenerateParameters, limits: Limits) -> Grammar | None:
    """What ``parameters`` of a native request ask for."""
    path = "parameters."
    given = [] if parameters.grammar is None else ["grammar"]
    name = _the_one([*given, *_guided(parameters)], limits, path=path)
    if name is None:
        return None
    _check_white_space(parameters, path=path)
    if parameters.grammar is not None:
        return _of_tgi(parameters.grammar, field=f"{path}grammar")
    return _of_guided(parameters, name, path=path)


def openai_grammar(request: OpenAiRequest, limits: Limits) -> Grammar | None:
    """What a chat or a completion asks for: its content, where it may also have tool calls."""
    given = [name for name in ("grammar", "json_schema") if getattr(request, name) is not None]
    if not isinstance(request.response_format, wire.TextFormat | None):
        given.insert(0, "response_format")
    name = _the_one([*given, *_guided(request)], limits, path="")
    if name is not None:
        _check_white_space(request, path="")
    match name:
        case None:
            return None
        case "response_format":
            return _of_format(request.response_format)
        case "json_schema":
            return _json_value(request.json_schema, field=name)
        case "grammar":
            grammar = request.grammar
            if isinstance(grammar, str):
                return LarkGrammar(text=grammar, field=name)
            assert grammar is not None
            return _of_tgi(grammar, field=name)
        case _:
            return _of_guided(request, name, path="")


def _the_one(given: list[str], limits: Limits, *, path: str) -> str | None:
    """The field that asks for a grammar, of those that the request has. Rule 18."""
    if not given:
        return None
    if not limits.grammar_support:
        _refuse_support(path + given[0])
    if len(given) > 1:
        reject(f"`{given[1]}` cannot be used with `{given[0]}`", field=path + given[1])
    return given[0]


# --- TGI's and OpenAI's layouts -------------------------------------------------------------------


def _of_tgi(grammar: wire.Grammar, *, field: str) -> Grammar:
    match grammar:
        case wire.JsonGrammar():
            return _tgi_json(grammar.value, field=f"{field}.value")
        case wire.JsonSchemaGrammar():
            return _tgi_schema(grammar.value.schema, field=f"{field}.value.schema")
        case wire.RegexGrammar():
            return RegexGrammar(pattern=grammar.value, field=f"{field}.value")


def _of_format(response_format: wire.ResponseFormat | None) -> Grammar:
    field = "response_format"
    match response_format:
        case wire.JsonObjectFormat():
            # Without a value it is OpenAI's layout, which asks for any JSON object.
            if response_format.value is None:
                return JsonSchemaGrammar(schema=_ANY_OBJECT, field=field)
            return _tgi_json(response_format.value, field=f"{field}.value")
        case wire.JsonSchemaFormat():
            if response_format.json_schema is not None:
                schema = response_format.json_schema.schema
                return _json_schema(schema, field=f"{field}.json_schema.schema")
            assert response_format.value is not None  # the class sees to it
            return _tgi_schema(response_format.value.schema, field=f"{field}.value.schema")
        case wire.RegexGrammar():
            return RegexGrammar(pattern=response_format.value, field=f"{field}.value")
        case _:
            raise AssertionError("the caller has looked at it")


def _tgi_json(value: object, *, field: str) -> JsonSchemaGrammar:
    """Rules 19 to 21 for a schema, or a string that contains one."""
    if not isinstance(value, str | Mapping):
        _refuse_support(field)
    return _tgi_schema(_loaded(value, field=field), field=field)


def _tgi_schema(schema: object, *, field: str) -> JsonSchemaGrammar:
    """Rules 20 and 21."""
    grammar = _json_schema(schema, field=field)
    if not isinstance(schema, Mapping) or "properties" not in schema:
        reject("grammar is not valid: Grammar must have a 'properties' field", field=field)
    return grammar


# --- vLLM's fields --------------------------------------------------------------------------------

_GUIDED = ("guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs")


def _guided(fields: GuidedFields) -> Iterator[str]:
    return (name for name in _GUIDED if getattr(fields, name) is not None)


def _check_white_space(fields: GuidedFields, *, path: str) -> None:
    name = "guided_whitespace_pattern"
    if fields.guided_whitespace_pattern is not None:
        reject_unsupported(name, field=f"{path}{name}")


def _of_guided(fields: GuidedFields, name: str, *, path: str) -> Grammar:
    field = path + name
    if fields.structured_outputs is not None:
        return _of_structured(fields.structured_outputs, field=field)
    if fields.guided_regex is not None:
        return RegexGrammar(pattern=fields.guided_regex, field=field)
    if fields.guided_choice is not None:
        return _choice(fields.guided_choice, field=field)
    if fields.guided_grammar is not None:
        return LarkGrammar(text=fields.guided_grammar, field=field)
    return _json_value(fields.guided_json, field=field)


def _of_structured(asked: StructuredOutputs, *, field: str) -> Grammar:
    for name in ("structural_tag", "whitespace_pattern"):
        if getattr(asked, name) is not None:
            reject_unsupported(name, field=f"{field}.{name}")
    names = ("json", "regex", "choice", "grammar")
    given = [name for name in names if getattr(asked, name) is not None]
    given += ["json_object"] if asked.json_object else []
    if len(given) != 1:
        reject(
            f"`structured_outputs` needs one of `json`, `regex`, `choice`, `grammar` and "
            f"`json_object`. Given: {len(given)}",
            field=field,
        )
    place = f"{field}.{given[0]}"
    if asked.regex is not None:
        return RegexGrammar(pattern=asked.regex, field=place)
    if asked.choice is not None:
        return _choice(asked.choice, field=place)
    if asked.grammar is not None:
        return LarkGrammar(text=asked.grammar, field=place)
    return _json_value(_ANY_OBJECT if asked.json_object else asked.json, field=place)


def _choice(choices: tuple[str, ...], *, field: str) -> ChoiceGrammar:
    if not choices:
        reject("there must be something to choose from", field=field)
    return ChoiceGrammar(choices=choices, field=field)


# --- schemas --------------------------------------------------------------------------------------


def _json_value(value: object, *, field: str) -> JsonSchemaGrammar:
    """A schema, or a string that contains one."""
    return _json_schema(_loaded(value, field=field), field=field)


def _loaded(value: object, *, field: str) -> object:
    if not isinstance(value, str):
        return value
    try:
        return loads(value)
    except NotJson as error:
        reject(f"grammar is not valid: {error}", field=field)


def _json_schema(schema: object, *, field: str) -> JsonSchemaGrammar:
    if not isinstance(schema, Mapping | bool):
        reject(
            f'grammar is not valid: {describe(schema)} is not of types "boolean", "object"',
            field=field,
        )
    if isinstance(schema, Mapping) and "properties" in schema and "type" not in schema:
        # By the letter it allows anything that is no object, which nobody means who writes it.
        schema = {"type": "object", **schema}
    return JsonSchemaGrammar(schema=schema, field=field)


def _refuse_support(field: str) -> NoReturn:
    reject("grammar is not supported", field=field)
