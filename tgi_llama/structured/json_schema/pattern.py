"""Regular expressions as trees, whether a text matches one, and how llguidance writes them.

``ecma`` makes the trees from what clients write. Trees have no anchors and match whole texts.
Matching keeps a set of positions, so its time is bounded by the sizes of tree and text whatever the
pattern; backtracking engines are not safe with patterns from clients.
"""

import unicodedata
from collections.abc import Callable

import attrs

from tgi_llama.errors import ValidationError

LAST = 0x10FFFF
CONTROLS = frozenset({*range(32), 127} - {8, 9, 10, 12, 13})
"""Code points that JSON writes as ``\\uXXXX`` only, which generated text does not contain."""
Item = tuple[int, int] | str
"""A range of code points, both included, or the name of a class from ``CLASSES`` or ``p:``/``P:``
with a Unicode category."""


@attrs.frozen
class Chars:
    """One character of (or, negated, outside) these classes."""

    items: tuple[Item, ...]
    negated: bool = False


@attrs.frozen
class Sequence:
    """One after the other; the empty sequence matches the empty text."""

    parts: tuple["Node", ...] = ()


@attrs.frozen
class Choice:
    """Any of them; none at all matches nothing."""

    options: tuple["Node", ...]


@attrs.frozen
class Repeat:
    """``low`` to ``high`` times, None for any number."""

    node: "Node"
    low: int
    high: int | None


Node = Chars | Sequence | Choice | Repeat
EMPTY = Sequence()
ANY_CHAR = Chars((), negated=True)
ANY_TEXT = Repeat(ANY_CHAR, 0, None)


@attrs.frozen
class Pattern:
    """A tree that has to match the whole string; ``source`` is what the client wrote."""

    node: Node = attrs.field(eq=False)
    source: str = attrs.field(default="", eq=False)
    wide: "Pattern | None" = attrs.field(default=None, eq=False, repr=False)
    """For names: with what either dialect matches, where that is more."""
    text: str = attrs.field(init=False)
    """For llguidance: anchored, every class and literal spelled out."""
    shortest: int = attrs.field(init=False, eq=False)
    longest: int | None = attrs.field(init=False, eq=False)
    """Lengths of what may match; None if there is no longest."""

    @text.default
    def _text(self) -> str:
        return f"^(?:{_written(self.node)})$"

    @shortest.default
    def _shortest(self) -> int:
        return _lengths(self.node)[0]

    @longest.default
    def _longest(self) -> int | None:
        return _lengths(self.node)[1]


# What each class is called in llguidance's syntax of regular expressions. Its \d and \w are those
# of ASCII in a schema, so the larger readings (ecma.CLASS_ESCAPES) are spelled by categories.
CLASSES = {
    "digit": "0-9",
    "digit+": r"\p{Nd}",
    "not digit": r"\P{Nd}",
    "word": "0-9A-Za-z_",
    "word+": r"\p{L}\p{M}\p{N}\p{Pc}",
}


def in_item(item: Item, code: int) -> bool:
    """Whether the character belongs to one item of a class."""
    if not isinstance(item, str):
        return item[0] <= code <= item[1]
    category = unicodedata.category(chr(code))
    if item.startswith(("p:", "P:")):
        return category.startswith(item[2:]) is (item[0] == "p")
    if item == "digit":
        return 0x30 <= code <= 0x39
    if item == "digit+":
        return category == "Nd"
    if item == "not digit":
        return category != "Nd"
    if item == "word":
        return code < 128 and (chr(code).isalnum() or code == 0x5F)
    return category[0] in "LMN" or category == "Pc" or chr(code).isalnum()


class _Matching:
    """One text, and who counts the steps."""

    def __init__(self, text: str, spend: Callable[[int], None]) -> None:
        self._codes = [ord(character) for character in text]
        self._spend = spend

    def ends(self, node: Node, starts: frozenset[int]) -> frozenset[int]:
        """Where matches end that begin at ``starts``."""
        self._spend(2 * len(starts) + 2)
        if isinstance(node, Chars):
            return frozenset(at + 1 for at in starts if self._is_in(node, at))
        if isinstance(node, Sequence):
            for part in node.parts:
                starts = self.ends(part, starts)
            return starts
        if isinstance(node, Choice):
            return frozenset().union(*(self.ends(option, starts) for option in node.options))
        return self._repeated(node, starts)

    def _is_in(self, node: Chars, at: int) -> bool:
        if at >= len(self._codes):
            return False
        return any(in_item(item, self._codes[at]) for item in node.items) is not node.negated

    def _repeated(self, node: Repeat, starts: frozenset[int]) -> frozenset[int]:
        for _ in range(node.low):
            starts = self.ends(node.node, starts)
        found, new, count = starts, starts, node.low
        while new and (node.high is None or count < node.high):
            new = self.ends(node.node, new) - found
            found |= new
            count += 1
        return found


def matches(pattern: Pattern, text: str, spend: Callable[[int], None]) -> bool:
    """Whether the whole text matches. ``spend`` is told of every step and may raise."""
    return len(text) in _Matching(text, spend).ends(pattern.node, frozenset({0}))


def is_nullable(node: Node) -> bool:
    """Whether the node matches the empty text."""
    if isinstance(node, Chars):
        return False
    if isinstance(node, Sequence):
        return all(is_nullable(part) for part in node.parts)
    if isinstance(node, Choice):
        return any(is_nullable(option) for option in node.options)
    return node.low == 0 or is_nullable(node.node)


def _lengths(node: Node) -> tuple[int, int | None]:
    if isinstance(node, Chars):
        return 1, 1
    if isinstance(node, Repeat):
        low, high = _lengths(node.node)
        if high == 0 or node.high == 0:
            return 0, 0
        longest = None if node.high is None or high is None else high * node.high
        return low * node.low, longest
    parts = [_lengths(part) for part in _parts(node)]
    is_open = any(high is None for _, high in parts)
    if isinstance(node, Sequence):
        longest = None if is_open else sum(high or 0 for _, high in parts)
        return sum(low for low, _ in parts), longest
    longest = None if is_open else max((high or 0 for _, high in parts), default=0)
    return min((low for low, _ in parts), default=0), longest


def is_possible(node: Node) -> bool:
    """Whether generated text can match at all."""
    if isinstance(node, Chars):
        return node.negated or any(
            isinstance(item, str)
            or item[1] > 127
            or not CONTROLS.issuperset(range(item[0], item[1] + 1))
            for item in node.items
        )
    if isinstance(node, Repeat):
        return node.low == 0 or is_possible(node.node)
    found = map(is_possible, _parts(node))
    return all(found) if isinstance(node, Sequence) else any(found)


def _parts(node: Sequence | Choice) -> tuple[Node, ...]:
    return node.parts if isinstance(node, Sequence) else node.options


def size(node: Node) -> int:
    """How many nodes there are when repetitions are written out."""
    if isinstance(node, Chars):
        return 1
    if isinstance(node, Repeat):
        return 1 + size(node.node) * max(node.low + 1, (node.high or 0), 1)
    return 1 + sum(size(part) for part in _parts(node))


def _written(node: Node) -> str:
    if isinstance(node, Chars):
        return _written_chars(node)
    if isinstance(node, Sequence):
        return "".join(_written(part) for part in node.parts)
    if isinstance(node, Choice):
        return f"(?:{'|'.join(_written(option) for option in node.options)})"
    high = "" if node.high is None else node.high
    return f"(?:{_written(node.node)}){{{node.low},{high}}}"


def _written_chars(node: Chars) -> str:
    if not node.items:
        if not node.negated:
            raise AssertionError("an empty class is dropped by the parser")
        return r"(?s:.)"
    return f"[{'^' if node.negated else ''}{''.join(_written_item(item) for item in node.items)}]"


def _written_item(item: Item) -> str:
    if not isinstance(item, str):
        low, high = (_written_code(code) for code in item)
        return low if item[0] == item[1] else f"{low}-{high}"
    if item.startswith(("p:", "P:")):
        return f"\\{item[0]}{{{item[2:]}}}"
    return CLASSES[item]


def _written_code(code: int) -> str:
    character = chr(code)
    return character if character.isascii() and character.isalnum() else f"\\x{{{code:X}}}"


def other_than(words: frozenset[str]) -> Node:
    """Every text but these. Raises ValidationError when they are longer than a few hundred
    characters together, which would make a tree as deep."""
    if sum(len(word) for word in words) > 300:
        raise ValidationError("too many or too long strings to exclude")
    options: list[Node] = [] if "" in words else [EMPTY]
    firsts = sorted({word[0] for word in words if word})
    others = Chars(tuple((ord(first), ord(first)) for first in firsts), negated=True)
    options.append(Sequence((others, ANY_TEXT)))
    for first in firsts:
        rest = frozenset(word[1:] for word in words if word.startswith(first))
        options.append(Sequence((Chars(((ord(first), ord(first)),)), other_than(rest))))
    return Choice(tuple(options))
