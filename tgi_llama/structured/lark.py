"""Grammars that clients write in Lark or GBNF: what of it is taken, and what is refused.

What could lift a limit, end the turn in the middle of the text, or be ignored is refused by name;
schemas inside of a grammar go the way of all schemas.
"""

import json
import re
from collections.abc import Iterator

import attrs
from llguidance.gbnf_to_lark import gbnf_to_lark

from tgi_llama.errors import ValidationError

MAX_GBNF_BYTES = 16_384
"""The converter is Python, and slow where there are many rules: 0.2 s for so much."""

_GBNF = re.compile(r"^\s*[a-zA-Z][\w-]*\s*::=", re.MULTILINE)

_TOKEN = re.compile(
    r"""
      (?P<comment> //[^\n]* | \#[^\n]* )
    | (?P<string> "(?:\\.|[^"\\\n])*"i? )
    | (?P<regex> /(?:\\.|[^/\\\n])+/[a-z]* )
    | (?P<directive> %[a-z]+ )
    | (?P<special> <[^<>\n]*> )
    | (?P<reference> @[\w-]+ )
    | (?P<attributes> (?<=[\w])\[[^\]\n]*\] )
    | (?P<other> \s+ | [\w-]+ | . )
    """,
    re.VERBOSE | re.DOTALL,
)

_REFUSED_DIRECTIVES = {
    "%llguidance": "options of the grammar engine cannot be set",
    "%declare": "it is not supported",
}
_REFUSED_ATTRIBUTES = ("stop", "stop_capture", "max_tokens", "temperature")


@attrs.frozen(kw_only=True)
class UserLark:
    """A client's grammar, checked."""

    text: str
    """Schemas in it are replaced by references: ``@`` and the name in ``schemas``."""
    schemas: tuple[tuple[str, object, str], ...] = ()
    """Name, parsed schema, and the field that errors in it name."""


def read_user_lark(text: str, *, field: str, prefix: str) -> UserLark:
    """``prefix`` begins the names of the schemas. Raises ValidationError."""
    if _GBNF.search(text):
        text = _from_gbnf(text, field)
    return _Reader(text, field, prefix).read()


def rename_references(lark: str, prefix: str) -> str:
    """``@name`` becomes ``@prefixname``, but for those in strings, regexes and comments."""
    return "".join(
        f"@{prefix}{match.group()[1:]}" if match.lastgroup == "reference" else match.group()
        for match in _TOKEN.finditer(lark)
    )


def replace_special_tokens(lark: str, replacement: str) -> str:
    """Those that are written by their ids, but for what looks like them in strings and the like."""
    return "".join(
        replacement if match.lastgroup == "special" else match.group()
        for match in _TOKEN.finditer(lark)
    )


def _from_gbnf(text: str, field: str) -> str:
    if len(text.encode()) > MAX_GBNF_BYTES:
        raise ValidationError(
            f"grammar is not valid: a GBNF grammar may have {MAX_GBNF_BYTES} bytes."
            f" Given: {len(text.encode())}",
            field=field,
        )
    try:
        lark = str(gbnf_to_lark(text))
    except RecursionError:
        raise ValidationError(
            "grammar is not valid: GBNF: groups are nested too deep", field=field
        ) from None
    except Exception as error:  # the converter raises bare ones
        raise ValidationError(f"grammar is not valid: GBNF: {error}", field=field) from None
    return lark.removeprefix("%llguidance {}")


@attrs.define
class _Reader:
    text: str
    field: str
    prefix: str
    _schemas: list[tuple[str, object, str]] = attrs.field(factory=list, init=False)

    def read(self) -> UserLark:
        text = "".join(self._pieces())
        return UserLark(text=text, schemas=tuple(self._schemas))

    def _pieces(self) -> Iterator[str]:
        position = 0
        while position < len(self.text):
            match = _TOKEN.match(self.text, position)
            assert match is not None  # anything is at least "other"
            position = match.end()
            match match.lastgroup:
                case "special":
                    self._refuse(f"special tokens cannot be used: {match.group()}")
                case "reference":
                    self._refuse(f"there is no grammar to refer to: {match.group()}")
                case "attributes":
                    self._check_attributes(match.group())
                case "directive":
                    reference, position = self._directive(match.group(), position)
                    yield reference
                    continue
            yield match.group()

    def _directive(self, name: str, position: int) -> tuple[str, int]:
        if name in _REFUSED_DIRECTIVES:
            self._refuse(f"{name}: {_REFUSED_DIRECTIVES[name]}")
        if name not in ("%json", "%regex"):
            return name, position
        value, end = self._json(name, position)
        if name == "%regex":
            return self.text[position - len(name) : end], end
        schema_name = f"{self.prefix}{len(self._schemas)}"
        self._schemas.append((schema_name, value, self.field))
        return f"@{schema_name}", end

    def _json(self, name: str, position: int) -> tuple[object, int]:
        start = position + len(self.text[position:]) - len(self.text[position:].lstrip())
        try:
            return json.JSONDecoder().raw_decode(self.text, start)
        except (ValueError, RecursionError) as error:
            self._refuse(f"{name}: expected JSON: {error}")
            raise AssertionError from None

    def _check_attributes(self, text: str) -> None:
        for name in _REFUSED_ATTRIBUTES:
            if re.search(rf"\b{name}\s*[=\],]", text):
                self._refuse(f"the attribute {name} of rules is not supported")

    def _refuse(self, why: str) -> None:
        raise ValidationError(f"grammar is not valid: {why}", field=self.field)
