"""Patterns as JSON Schema writes them (ECMA-262, searched for anywhere in the string), made into
trees that match whole strings.

Where ECMA and Python read a class differently (``\\d``, ``\\w``, ``\\s`` beyond ASCII) the tree
takes what both accept, so that a generated string satisfies validators of either kind; or, where
that is asked for (``wide``), what either accepts. Anchors are
resolved here: ``^a|b$`` becomes "a and anything, or anything and b".
"""

import re

import attrs

from tgi_llama.errors import ValidationError

from .pattern import (
    ANY_TEXT,
    EMPTY,
    LAST,
    Chars,
    Choice,
    Item,
    Node,
    Pattern,
    Repeat,
    Sequence,
    is_nullable,
    is_possible,
    size,
)

MAX_NODES = 20_000  # with repetitions written out; llguidance's own limits come earlier for most
MAX_NESTING = 40
MAX_LENGTH = 50_000  # characters
MAX_ALTERNATIVES = 300  # that anchors may make of one pattern


class UnsupportedPattern(ValidationError):
    """The pattern means something that is no regular language, or that llguidance has not."""


@attrs.frozen
class Anchor:
    """``^`` or ``$``."""

    sign: str


@attrs.frozen
class Group:
    """A part with anchors somewhere in it; otherwise parts are nodes."""

    kind: str
    parts: tuple["Part", ...]
    low: int = 1
    high: int | None = 1


Part = Node | Anchor | Group

SPACE: tuple[Item, ...] = (
    (0x9, 0xD), (0x20, 0x20), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A),
    (0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000),
)  # fmt: skip
SPACE_MORE: tuple[Item, ...] = (*SPACE, (0x1C, 0x1F), (0x85, 0x85), (0xFEFF, 0xFEFF))
LINE_ENDS: tuple[Item, ...] = ((0xA, 0xA), (0xD, 0xD), (0x2028, 0x2029))
CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "0": 0}
CATEGORY = re.compile(r"\{(L[ultmo]?|M[nce]?|N[dlo]?|P[cdseifo]?|S[mcko]?|Z[slp]?|C[cf]?)\}")


def _outside(items: tuple[Item, ...]) -> tuple[Item, ...]:
    """The code points outside sorted ranges."""
    found: list[Item] = []
    begin = 0
    for item in sorted(item for item in items if not isinstance(item, str)):
        if begin < item[0]:
            found.append((begin, item[0] - 1))
        begin = item[1] + 1
    return (*found, (begin, LAST))


NOT_ASCII_DIGIT = _outside(((0x30, 0x39),))
NOT_ASCII_WORD = _outside(((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)))
# From an escape to what both dialects take it for, and to what either does. The second is for
# negated classes. None: no class of llguidance is that.
CLASS_ESCAPES: dict[str, tuple[tuple[Item, ...] | None, tuple[Item, ...]]] = {
    "d": (("digit",), ("digit+",)),
    "D": (("not digit",), NOT_ASCII_DIGIT),
    "w": (("word",), ("word+",)),
    "W": (None, NOT_ASCII_WORD),
    "s": (SPACE, SPACE_MORE),
    "S": (_outside(SPACE_MORE), _outside(SPACE)),
}


class _Parser:
    """Recursive descent over one pattern."""

    def __init__(self, source: str, *, wide: bool) -> None:
        self._source = source
        self._wide = wide
        self._at = 0
        self._nesting = 0

    def parse(self) -> Part:
        part = self._choice()
        if self._at < len(self._source):
            raise self._wrong("unmatched )")
        return part

    def _wrong(self, what: str) -> ValidationError:
        return ValidationError(f"the pattern is not valid: {what} at character {self._at}")

    def _unsupported(self, what: str) -> UnsupportedPattern:
        return UnsupportedPattern(f"{what} in a pattern cannot be enforced")

    def _peek(self, length: int = 1) -> str:
        return self._source[self._at : self._at + length]

    def _take(self, length: int = 1) -> str:
        taken = self._peek(length)
        if len(taken) < length:
            raise self._wrong("it ends too early")
        self._at += length
        return taken

    def _choice(self) -> Part:
        self._nesting += 1
        if self._nesting > MAX_NESTING:
            raise self._unsupported(f"more than {MAX_NESTING} levels of groups")
        options = [self._sequence()]
        while self._peek() == "|":
            self._at += 1
            options.append(self._sequence())
        self._nesting -= 1
        return options[0] if len(options) == 1 else _group("choice", options)

    def _sequence(self) -> Part:
        parts: list[Part] = []
        while self._at < len(self._source) and self._peek() not in "|)":
            atom = self._atom()
            parts.append(self._quantified(atom))
        return parts[0] if len(parts) == 1 else _group("sequence", parts)

    def _quantified(self, atom: Part) -> Part:
        match = re.compile(r"[*+?]|\{(\d{1,9})(,(\d{0,9}))?\}").match(self._source, self._at)
        if match is None:
            return atom
        if isinstance(atom, Anchor):
            raise self._wrong("nothing to repeat")
        self._at = match.end()
        if self._peek() == "?":
            self._at += 1  # a lazy quantifier finds other matches, not other strings
        if self._peek() in ("*", "+", "?"):
            raise self._wrong("nothing to repeat")
        low, high = _bounds(match)
        if high is not None and high < low:
            raise self._wrong("a quantifier's numbers are out of order")
        if isinstance(atom, Group):
            return attrs.evolve(Group("repeat", (atom,)), low=low, high=high)
        return Repeat(atom, low, high)

    def _atom(self) -> Part:
        sign = self._take()
        if sign in "^$":
            return Anchor(sign)
        if sign == "(":
            return self._parenthesis()
        if sign == "[":
            return self._class()
        if sign == ".":
            return Chars(LINE_ENDS, negated=True)
        if sign == "\\":
            return self._escaped()
        if sign in "*+?":
            raise self._wrong("nothing to repeat")
        return _one(ord(sign))

    def _parenthesis(self) -> Part:
        if self._peek() == "?":
            name = re.compile(r"\?(:|P?<[A-Za-z_$][\w$]*>)").match(self._source, self._at)
            if name is None:
                raise self._unsupported("a lookaround or a flag")
            self._at = name.end()
        inner = self._choice()
        if self._peek() != ")":
            raise self._wrong("a parenthesis is not closed")
        self._at += 1
        return inner

    def _escaped(self) -> Node:
        sign = self._peek()
        if sign and sign in CLASS_ESCAPES:
            self._at += 1
            items = CLASS_ESCAPES[sign][self._wide]
            return Chars(("word+",), negated=True) if items is None else Chars(items)
        if sign and sign in "pP":
            return Chars((self._category(),))
        if sign and sign in "bB":
            raise self._unsupported(f"\\{sign}")
        if sign and (sign in "123456789k"):
            raise self._unsupported("a reference to a group")
        return _one(self._escaped_code())

    def _category(self) -> Item:
        sign = self._take()
        match = CATEGORY.match(self._source, self._at)
        if match is None:
            raise self._unsupported("a Unicode property that is no general category")
        self._at = match.end()
        return f"{sign}:{match[1]}"

    def _escaped_code(self) -> int:
        sign = self._take()
        if sign in CONTROLS:
            return CONTROLS[sign]
        if sign == "c":
            return ord(self._take()) % 32
        if sign == "x":
            return self._hex(self._take(2))
        if sign == "u":
            return self._unicode_escape()
        if sign.isascii() and sign.isalnum():
            raise self._wrong(f"unknown escape \\{sign}")
        return ord(sign)

    def _unicode_escape(self) -> int:
        if self._peek() == "{":
            end = self._source.find("}", self._at)
            digits = self._source[self._at + 1 : max(end, self._at)]
            self._at = end + 1
            return self._hex(digits)
        code = self._hex(self._take(4))
        if 0xD800 <= code < 0xDC00 and self._peek(2) == "\\u":
            self._at += 2
            low = self._hex(self._take(4))
            if not 0xDC00 <= low < 0xE000:
                raise self._wrong("half of a surrogate pair")
            return 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
        if 0xD800 <= code < 0xE000:
            raise self._wrong("half of a surrogate pair")
        return code

    def _hex(self, digits: str) -> int:
        if not re.fullmatch("[0-9A-Fa-f]{1,6}", digits) or int(digits, 16) > LAST:
            raise self._wrong("wrong digits of an escape")
        return int(digits, 16)

    def _class(self) -> Node:
        negated = self._peek() == "^"
        self._at += negated
        items: list[Item] = []
        while self._peek() != "]":
            first = self._class_item(negated=negated)
            if self._peek() == "-" and self._peek(2) != "-]":
                self._at += 1
                last = self._class_item(negated=negated)
                if isinstance(first, tuple) or isinstance(last, tuple):
                    raise self._wrong("a class is no end of a range")
                if last < first:
                    raise self._wrong("a range is out of order")
                items.append((first, last))
            else:
                items.extend(first if isinstance(first, tuple) else ((first, first),))
        self._at += 1
        if not items:
            raise self._unsupported("an empty class")
        return Chars(tuple(items), negated)

    def _class_item(self, *, negated: bool) -> int | tuple[Item, ...]:
        sign = self._take()
        if sign != "\\":
            return ord(sign)
        escaped = self._peek()
        if escaped == "b":
            self._at += 1
            return 8
        if escaped == "-":
            self._at += 1
            return ord("-")
        if escaped and escaped in "pP":
            return (self._category(),)
        if escaped and escaped in CLASS_ESCAPES:
            self._at += 1
            chosen = CLASS_ESCAPES[escaped][negated is not self._wide]
            if chosen is None:
                raise self._unsupported("\\W beside other characters")
            return chosen
        return self._escaped_code()


def _bounds(match: re.Match[str]) -> tuple[int, int | None]:
    sign = match[0]
    if sign in ("*", "+", "?"):
        return (1 if sign == "+" else 0), (1 if sign == "?" else None)
    low = int(match[1])
    if match[2] is None:
        return low, low
    return low, int(match[3]) if match[3] else None


def _one(code: int) -> Chars:
    return Chars(((code, code),))


def _group(kind: str, parts: list[Part]) -> Part:
    nodes = [part for part in parts if not isinstance(part, Anchor | Group)]
    if len(nodes) < len(parts):
        return Group(kind, tuple(parts))
    return Choice(tuple(nodes)) if kind == "choice" else Sequence(tuple(nodes))


@attrs.frozen
class _Anchored:
    """A node, and whether it has to be at the string's beginning and end."""

    begin: bool
    node: Node
    end: bool


def _split(part: Part) -> list[_Anchored]:
    """The part as alternatives with anchors outside only."""
    if isinstance(part, Anchor):
        return [_Anchored(part.sign == "^", EMPTY, part.sign == "$")]
    if not isinstance(part, Group):
        return [_Anchored(False, part, False)]
    if part.kind == "choice":
        return _checked([found for option in part.parts for found in _split(option)])
    if part.kind == "repeat":
        if (part.low, part.high) not in ((0, 1), (1, 1)):
            raise UnsupportedPattern("a repeated anchor in a pattern cannot be enforced")
        inner = _split(part.parts[0])
        return inner if part.low else [_Anchored(False, EMPTY, False), *inner]
    found = [_Anchored(False, EMPTY, False)]
    for following in part.parts:
        rights = _split(following)
        joined = [_joined(left, right) for left in found for right in rights]
        found = _checked([one for one in joined if one is not None])
    return found


def _joined(left: _Anchored, right: _Anchored) -> _Anchored | None:
    """One after the other; None if no string is both."""
    first, second = left.node, right.node
    if right.begin:
        if not is_nullable(first):
            return None
        first = EMPTY
    if left.end:
        if not is_nullable(second):
            return None
        second = EMPTY
    parts = tuple(node for node in (first, second) if node != EMPTY)
    node: Node = parts[0] if len(parts) == 1 else Sequence(parts)
    return _Anchored(left.begin or right.begin, node, left.end or right.end)


def _checked(found: list[_Anchored]) -> list[_Anchored]:
    if len(found) > MAX_ALTERNATIVES:
        raise UnsupportedPattern("so many anchors in a pattern cannot be enforced")
    return found


def compiled(source: str, *, wide: bool = False) -> Pattern | None:
    """The pattern, or None if no string can match it. ``wide``: with all that either dialect takes
    a class for.

    Raises UnsupportedPattern for lookarounds, back references, word boundaries and the like, and
    ValidationError for what is no pattern.
    """
    if len(source) > MAX_LENGTH:
        raise UnsupportedPattern(f"a pattern of more than {MAX_LENGTH} characters is too long")
    options = [
        Sequence(
            (
                *(() if found.begin else (ANY_TEXT,)),
                found.node,
                *(() if found.end else (ANY_TEXT,)),
            )
        )
        for found in _split(_Parser(source, wide=wide).parse())
    ]
    if not options:
        return None
    node = options[0] if len(options) == 1 else Choice(tuple(options))
    if not is_possible(node):
        raise UnsupportedPattern("a pattern of control characters cannot be enforced")
    if size(node) > MAX_NODES:
        raise UnsupportedPattern(f"the pattern is too large: more than {MAX_NODES} parts")
    return Pattern(node, source)
