"""Grammars that clients write in Lark or GBNF: what of it is taken, and what is refused.

What could lift a limit, end the turn in the middle of the text, or be ignored is refused by name;
schemas inside of a grammar go the way of all schemas.
"""

import itertools
import json
import re
from collections.abc import Iterator, Mapping

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
    | (?P<regex> /(?:\\.|[^/\\])+/[imslux]* )
    | (?P<directive> %[a-z]+ )
    | (?P<special> <[^<>\n]*> )
    | (?P<reference> @[\w-]+ )
    | (?P<space> \s+ )
    | (?P<word> [\w-]+ )
    | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)

_REFUSED_DIRECTIVES = {
    "%llguidance": "options of the grammar engine cannot be set",
    "%declare": "it is not supported",
}
_REFUSED_ATTRIBUTES = ("stop", "stop_capture", "max_tokens", "temperature")

_COUNT = re.compile(r"(?:\{|~)\s*(\d+)?(?:\s*(?:,|\.\.)\s*(\d+)?)?")
_MUCH = 2**40


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


def most_forced(lark: str, parts: Mapping[str, int]) -> int:
    """Bytes that a grammar may force at once, by a guess on the safe side: everything that it
    spells, as often as it refers to it and by all counts. What a rule refers to in itself is left
    out: every level of it has to be chosen first. ``parts``: the same of those that it refers to
    as ``@name``."""
    return min(_MUCH, _spelled(lark, parts) * counts(lark))


def counts(lark: str) -> int:
    """All repetitions multiplied, nested or not."""
    product = 1
    for match in _COUNT.finditer(lark):
        product *= max(1, *(int(digits[:9]) for digits in match.groups() if digits), 1)
        if product > _MUCH:
            break
    return product


def _spelled(lark: str, parts: Mapping[str, int]) -> int:
    """Of all rules together, references written out."""
    rules = _rules(lark, parts)
    known: dict[str, int] = {}
    done: set[str] = set()
    for start in rules:
        stack = [start]
        while stack:
            name = stack[-1]
            length, references = rules[name]
            if name not in known:
                known[name] = 0  # for whoever refers to it inside of itself
                stack += [one for one in references if one in rules and one not in known]
                continue
            if name not in done:
                known[name] = min(_MUCH, length + sum(known.get(one, 0) for one in references))
                done.add(name)
            stack.pop()
    return max(known.values(), default=0)


def _rules(lark: str, parts: Mapping[str, int]) -> dict[str, tuple[int, list[str]]]:
    """Each rule's or terminal's own length, and the names in it."""
    rules: dict[str, tuple[int, list[str]]] = {}
    length, words = 0, [""]
    tokens = [m for m in _TOKEN.finditer(lark) if m.lastgroup not in ("space", "comment")]
    for match, following in itertools.zip_longest(tokens, tokens[1:]):
        if match.lastgroup == "word" and following and following.group() == ":":
            rules[words[0]] = (length, words[1:])
            length, words = 0, [match.group()]
        elif match.lastgroup == "word":
            words.append(match.group())
        elif match.lastgroup in ("string", "regex"):
            length += len(match.group())
        elif match.lastgroup == "reference":
            length += parts.get(match.group()[1:], 0)
    rules[words[0]] = (length, words[1:])
    return rules


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
        position, word = 0, ""
        while position < len(self.text):
            match = _TOKEN.match(self.text, position)
            assert match is not None  # anything is at least "other"
            position = match.end()
            match match.lastgroup:
                case "special":
                    self._refuse(f"special tokens cannot be used: {match.group()}")
                case "reference":
                    self._refuse(f"there is no grammar to refer to: {match.group()}")
                case "other" if match.group() == "=" and word in _REFUSED_ATTRIBUTES:
                    self._refuse(f"the attribute {word} of rules is not supported")
                case "directive":
                    reference, position = self._directive(match.group(), position)
                    yield reference
                    continue
            if match.lastgroup not in ("space", "comment"):
                word = match.group()
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

    def _refuse(self, why: str) -> None:
        raise ValidationError(f"grammar is not valid: {why}", field=self.field)
