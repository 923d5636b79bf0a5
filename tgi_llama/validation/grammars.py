"""Grammars of native requests and response formats of chats: rules 18 to 21 of the wire contract.

Pure functions that raise ValidationError. What passes the rules is refused by name all the same,
for as long as no grammar is followed.
"""

from collections.abc import Mapping

from tgi_llama.wire.generate_requests import Grammar, JsonGrammar, JsonSchemaGrammar, RegexGrammar
from tgi_llama.wire.json_text import NotJson, loads
from tgi_llama.wire.openai_requests import (
    JsonObjectFormat,
    JsonSchemaFormat,
    RegexFormat,
    ResponseFormat,
    TextFormat,
)
from tgi_llama.wire.shapes import describe

from .rules import Limits, reject, reject_unsupported


def check_grammar(grammar: Grammar | None, limits: Limits) -> None:
    """``parameters.grammar`` of a native request."""
    if grammar is None:
        return
    field = "parameters.grammar"
    _check_support(limits, field=field)
    match grammar:
        case JsonGrammar():
            _check_json_value(grammar.value, field=f"{field}.value")
        case JsonSchemaGrammar():
            _check_schema(grammar.value.schema, field=f"{field}.value.schema")
        case RegexGrammar():
            pass  # TGI passes it on unchecked
    reject_unsupported("grammar", field=field)


def constrains(response_format: ResponseFormat | None) -> bool:
    """False for OpenAI's way of asking for plain text."""
    return not isinstance(response_format, TextFormat | None)


def check_response_format(response_format: ResponseFormat | None, limits: Limits) -> None:
    """``response_format`` of a chat, in TGI's or in OpenAI's layout."""
    if not constrains(response_format):
        return
    field = "response_format"
    _check_support(limits, field=field)
    match response_format:
        # Without a value it is OpenAI's layout, which asks for any JSON object.
        case JsonObjectFormat() if response_format.value is not None:
            _check_json_value(response_format.value, field=f"{field}.value")
        case JsonSchemaFormat():
            name = "value" if response_format.json_schema is None else "json_schema"
            chosen = response_format.json_schema or response_format.value
            assert chosen is not None  # the class sees to it
            _check_schema(chosen.schema, field=f"{field}.{name}.schema")
        case JsonObjectFormat() | RegexFormat() | TextFormat() | None:
            pass
    reject_unsupported("response_format", field=field)


def _check_support(limits: Limits, *, field: str) -> None:
    """Rule 18."""
    if not limits.grammar_support:
        reject("grammar is not supported", field=field)


def _check_json_value(value: object, *, field: str) -> None:
    """Rules 19 to 21 for a schema, or a string that contains one."""
    if isinstance(value, str):
        try:
            value = loads(value)
        except NotJson as error:
            reject(f"grammar is not valid: {error}", field=field)
    elif not isinstance(value, Mapping):
        reject("grammar is not supported", field=field)
    _check_schema(value, field=field)


def _check_schema(schema: object, *, field: str) -> None:
    """Rules 20, of which the kind of value is checked, and 21."""
    if not isinstance(schema, Mapping | bool):
        reject(
            f'grammar is not valid: {describe(schema)} is not of types "boolean", "object"',
            field=field,
        )
    if isinstance(schema, bool) or "properties" not in schema:
        reject("grammar is not valid: Grammar must have a 'properties' field", field=field)
