"""Our grammars in llguidance's language: a list of grammars as JSON, the first one being the whole.

Pure functions; any thread.
"""

import json
from collections.abc import Iterator

import attrs
from llguidance import regex_to_lark

from tgi_llama.errors import ValidationError

from .grammar import (
    ChoiceGrammar,
    CompositeGrammar,
    Grammar,
    JsonSchemaGrammar,
    LarkGrammar,
    RegexGrammar,
)
from .json_schema.normalise import COMPILE_OPTIONS, normalise
from .lark import counts, most_forced, read_user_lark, rename_references, replace_special_tokens
from .limits import MAX_FORCED_BYTES
from .regex import to_rust
from .trial import SPECIAL

_WHITE_SPACE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""As Python's ``json.dumps`` writes, which models have read most of; and forced, so that the
opening of a value costs no step of its own."""

_NO_FORCING = '%llguidance {"no_forcing": true}\n'


@attrs.define
class Gaps:
    """What is left out on the way; one for each translation."""

    relaxed: bool
    paths: list[str] = attrs.field(factory=list, init=False)


@attrs.frozen(kw_only=True)
class Part:
    """One grammar that llguidance reads by itself."""

    name: str | None
    """None for the first one."""
    field: str | None
    """What errors in it name; None for what we wrote."""
    value: dict[str, object]
    """``lark_grammar`` or ``json_schema``."""
    most_forced: int = 0
    """Bytes that it may force at once, roughly."""

    @property
    def named_value(self) -> dict[str, object]:
        return self.value if self.name is None else self.value | {"name": self.name}

    @property
    def trial_value(self) -> dict[str, object]:
        lark = self.value.get("lark_grammar")
        if self.field is None and isinstance(lark, str):
            return self.named_value | {"lark_grammar": replace_special_tokens(lark, SPECIAL)}
        return self.named_value  # clients cannot name special tokens

    def as_source(self) -> str:
        """It alone, to find out whose error it is."""
        return json.dumps({"grammars": [self.value]})


@attrs.frozen(kw_only=True)
class Source:
    text: str
    trial_text: str
    """The same without the ids of special tokens: see ``trial.SPECIAL``."""
    parts: tuple[Part, ...]
    relaxed_paths: tuple[str, ...]
    """Of keywords in schemas that are not enforced."""
    forces: bool
    """False: tokens without a choice are chosen as all others, because they might be too many."""

    @property
    def first_field(self) -> str | None:
        """To name where no part is to blame by itself."""
        return next((part.field for part in self.parts if part.field is not None), None)


def translate(grammar: Grammar, *, relaxed: bool = False) -> Source:
    """``relaxed``: keywords of schemas that cannot be enforced are left out. Raises ValidationError
    that names the field, or the path in a schema."""
    gaps = Gaps(relaxed)
    parts = tuple(_parts(grammar, gaps, name=None))
    forces_much = any(part.most_forced > MAX_FORCED_BYTES for part in parts)
    return Source(
        text=_assemble([part.named_value for part in parts], forces_much=forces_much),
        trial_text=_assemble([part.trial_value for part in parts], forces_much=forces_much),
        parts=parts,
        relaxed_paths=tuple(gaps.paths),
        forces=not forces_much,
    )


def _assemble(values: list[dict[str, object]], *, forces_much: bool) -> str:
    return json.dumps({"grammars": _without_forcing(values) if forces_much else values})


def _parts(grammar: Grammar, gaps: Gaps, *, name: str | None) -> Iterator[Part]:
    """The grammar under this name, then what it refers to."""
    match grammar:
        case JsonSchemaGrammar():
            yield _schema(grammar, gaps, name)
        case RegexGrammar():
            pattern = regex_to_lark(to_rust(grammar.pattern, field=grammar.field), "")
            yield _terminal(f"start: /{pattern}/", name, grammar.field)
        case ChoiceGrammar():
            yield _terminal(_choices(grammar), name, grammar.field)
        case LarkGrammar():
            prefix = f"{name or ''}__json"
            read = read_user_lark(grammar.text, field=grammar.field, prefix=prefix)
            inner = [
                _schema(JsonSchemaGrammar(schema=inline, field=field), gaps, schema_name)
                for schema_name, inline, field in read.schemas
            ]
            most = most_forced(read.text, {str(part.name): part.most_forced for part in inner})
            value: dict[str, object] = {"lark_grammar": read.text}
            yield Part(name=name, field=grammar.field, value=value, most_forced=most)
            yield from inner
        case CompositeGrammar():
            prefix = f"{name}__" if name else ""
            lark = rename_references(grammar.lark, prefix)
            yield Part(name=name, field=None, value={"lark_grammar": lark})
            for part_name, part in grammar.parts:
                yield from _parts(part, gaps, name=prefix + part_name)


def _terminal(text: str, name: str | None, field: str) -> Part:
    """One word for the lexer, whose states are limited: no count goes far beyond the others."""
    most = max(len(text), counts(text))
    return Part(name=name, field=field, value={"lark_grammar": text}, most_forced=most)


def _schema(grammar: JsonSchemaGrammar, gaps: Gaps, name: str | None) -> Part:
    normalised = normalise(grammar.schema, field=grammar.field, relaxed=gaps.relaxed)
    gaps.paths.extend(normalised.relaxed_paths)
    assert isinstance(normalised.schema, dict)
    options: dict[str, object] = {"x-guidance": COMPILE_OPTIONS | _WHITE_SPACE}
    return Part(
        name=name,
        field=grammar.field,
        value={"json_schema": normalised.schema | options},
        most_forced=normalised.most_forced,
    )


def _choices(grammar: ChoiceGrammar) -> str:
    if not grammar.choices:
        raise ValidationError(
            "grammar is not valid: there is nothing to choose", field=grammar.field
        )
    # One terminal: as alternatives of a rule they would be as many words for the lexer.
    choices = dict.fromkeys(grammar.choices)
    return "start: CHOICE\nCHOICE: " + " | ".join(
        json.dumps(choice, ensure_ascii=False) for choice in choices
    )


def _without_forcing(values: list[dict[str, object]]) -> list[dict[str, object]]:
    first, *others = values
    if "lark_grammar" in first:
        return [{"lark_grammar": f"{_NO_FORCING}{first['lark_grammar']}"}, *others]
    whole: dict[str, object] = {"lark_grammar": f"{_NO_FORCING}start: @__whole"}
    return [whole, first | {"name": "__whole"}, *others]
