"""Grammars as clients and turn formats ask for them, before they are compiled. Frozen values, any
thread; ``field`` is the JSON path of the request that errors name."""

import attrs


@attrs.frozen(kw_only=True)
class JsonSchemaGrammar:
    """JSON that is valid by a schema."""

    schema: object
    """An object or a boolean, as parsed from JSON; not to be changed any more."""
    field: str


@attrs.frozen(kw_only=True)
class RegexGrammar:
    """Text that the whole pattern matches."""

    pattern: str
    field: str


@attrs.frozen(kw_only=True)
class ChoiceGrammar:
    """One of these texts."""

    choices: tuple[str, ...]
    field: str


@attrs.frozen(kw_only=True)
class LarkGrammar:
    """A grammar in llguidance's dialect of Lark, or in llama.cpp's GBNF, which is converted."""

    text: str
    field: str


@attrs.frozen(kw_only=True)
class CompositeGrammar:
    """A Lark grammar of ours whose rules refer to other grammars as ``@name``.

    Special tokens are written ``<[id]>`` in it (llguidance's ``docs/syntax.md``).
    """

    lark: str
    parts: tuple[tuple[str, "Grammar"], ...] = ()
    """Names (letters, digits, underscores) and what they stand for."""


Grammar = JsonSchemaGrammar | RegexGrammar | ChoiceGrammar | LarkGrammar | CompositeGrammar
