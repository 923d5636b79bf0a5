"""How clients ask for constrained output: TGI's ``grammar``, OpenAI's ``response_format``, and the
extra fields of vLLM and llama.cpp.
"""

from typing import Literal

import attrs

from .fields import NULL_IS_DEFAULT


@attrs.frozen(kw_only=True)
class JsonSchema:
    """A schema under a name; ``strict`` and other keys are ignored: every schema is strict."""

    schema: object
    name: str | None = None


@attrs.frozen(kw_only=True)
class JsonGrammar:
    type: Literal["json", "json_object"]
    value: object
    """A JSON Schema, as an object or as a string that contains one."""


@attrs.frozen(kw_only=True)
class RegexGrammar:
    type: Literal["regex"]
    value: str


@attrs.frozen(kw_only=True)
class JsonSchemaGrammar:
    type: Literal["json_schema"]
    value: JsonSchema


Grammar = JsonGrammar | RegexGrammar | JsonSchemaGrammar
"""TGI's."""


@attrs.frozen(kw_only=True)
class TextFormat:
    type: Literal["text"]


@attrs.frozen(kw_only=True)
class JsonObjectFormat:
    type: Literal["json", "json_object"]
    value: object = None
    """TGI's layout: a JSON Schema. OpenAI's has none: any JSON object."""


@attrs.frozen(kw_only=True)
class JsonSchemaFormat:
    type: Literal["json_schema"]
    json_schema: JsonSchema | None = None
    """OpenAI's layout."""
    value: JsonSchema | None = None
    """TGI's layout."""

    def __attrs_post_init__(self) -> None:
        if self.json_schema is None and self.value is None:
            raise ValueError("expected `json_schema` with a `schema`, got none")


ResponseFormat = TextFormat | JsonObjectFormat | RegexGrammar | JsonSchemaFormat


@attrs.frozen(kw_only=True)
class StructuredOutputs:
    """vLLM's newer way; one of the keys."""

    json: object = None
    regex: str | None = None
    choice: tuple[str, ...] | None = None
    grammar: str | None = None
    json_object: bool = attrs.field(default=False, metadata={NULL_IS_DEFAULT: True})
    """Any JSON object."""
    structural_tag: object = None
    """Not supported."""
    whitespace_pattern: str | None = None
    """Not supported."""


@attrs.frozen(kw_only=True)
class GuidedFields:
    """vLLM's fields, of which a request may have one."""

    guided_json: object = None
    """A JSON Schema: an object, a boolean, or a string that contains one."""
    guided_regex: str | None = None
    guided_choice: tuple[str, ...] | None = None
    """The texts of which the answer is one."""
    guided_grammar: str | None = None
    """A grammar in llguidance's dialect of Lark, or in llama.cpp's GBNF."""
    structured_outputs: StructuredOutputs | None = None
    guided_whitespace_pattern: str | None = None
    """Not supported."""
