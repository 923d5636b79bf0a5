"""Whether two patterns have a string in common.

llguidance wants the patterns of ``patternProperties`` to have none, and says so without a path.
"""

import itertools
import unicodedata
from collections.abc import Callable, Sequence

import attrs

from . import pattern as trees
from .pattern import LAST, Chars, Choice, Node, Pattern, Repeat, in_item

MAX_POSITIONS = 500  # characters of a pattern with repetitions written out


@attrs.define(eq=False)
class _Automaton:
    """Glushkov's: a state for each character of the pattern."""

    chars: list[Chars] = attrs.field(factory=list)
    follow: list[set[int]] = attrs.field(factory=list)

    def add(self, node: Node) -> tuple[bool, set[int], set[int]] | None:
        """Whether the node may be empty, and its first and last states; None if it is too large."""
        if isinstance(node, Chars):
            self.chars.append(node)
            self.follow.append(set())
            state = {len(self.chars) - 1}
            return (False, state, set(state)) if len(self.chars) <= MAX_POSITIONS else None
        if isinstance(node, Choice):
            parts = [self.add(option) for option in node.options]
            found = [part for part in parts if part is not None]
            if len(found) < len(parts):
                return None
            firsts = set().union(*(part[1] for part in found))
            return any(p[0] for p in found), firsts, set().union(*(part[2] for part in found))
        return self._row(node.parts) if isinstance(node, trees.Sequence) else self._repeated(node)

    def _row(self, nodes: tuple[Node, ...]) -> tuple[bool, set[int], set[int]] | None:
        empty, first, last = True, set[int](), set[int]()
        for node in nodes:
            part = self.add(node)
            if part is None:
                return None
            for state in last:
                self.follow[state] |= part[1]
            first |= part[1] if empty else set()
            last = part[2] | (last if part[0] else set())
            empty = empty and part[0]
        return empty, first, last

    def _repeated(self, node: Repeat) -> tuple[bool, set[int], set[int]] | None:
        """``low`` copies, then optional ones or one that comes again and again."""
        if max(node.low, node.high or 0) > MAX_POSITIONS:
            return None
        if node.low == 0 and node.high is None:
            part = self.add(node.node)
            if part is not None:
                for state in part[2]:
                    self.follow[state] |= part[1]
            return None if part is None else (True, part[1], part[2])
        if node.high is None:
            rest: tuple[Node, ...] = (Repeat(node.node, 0, None),)
        else:
            rest = (Choice((trees.EMPTY, node.node)),) * (node.high - node.low)
        return self._row((node.node,) * node.low + rest)


@attrs.frozen
class _Machine:
    """A whole pattern's automaton."""

    automaton: _Automaton
    accepts_empty: bool
    first: set[int]
    last: set[int]

    @classmethod
    def of(cls, pattern: Pattern, spend: Callable[[int], None]) -> "_Machine | None":
        automaton = _Automaton()
        whole = automaton.add(pattern.node)
        spend(len(automaton.chars) + sum(map(len, automaton.follow)) // 10)
        return None if whole is None else cls(automaton, *whole)


def _samples() -> tuple[int, ...]:
    """A character of each Unicode category, an ASCII one if there is one."""
    found: dict[str, int] = {}
    for code in range(0x3000):
        found.setdefault(unicodedata.category(chr(code)), code)
    return tuple(found.values())


SAMPLES = (*_samples(), 0x10000, LAST)


def _share_a_character(one: Chars, other: Chars) -> bool:
    edges = [
        code
        for item in (*one.items, *other.items)
        if not isinstance(item, str)
        for code in (item[0], item[1], min(item[1] + 1, LAST))
    ]
    return any(_is_in(one, code) and _is_in(other, code) for code in (*edges, *SAMPLES))


def _is_in(chars: Chars, code: int) -> bool:
    return any(in_item(item, code) for item in chars.items) is not chars.negated


def first_overlap(
    patterns: Sequence[Pattern], spend: Callable[[int], None]
) -> tuple[Pattern, Pattern] | None:
    """Two patterns that some string matches both, or for which that takes too long to find out.
    ``spend`` is told of every step and may raise."""
    machines = [_Machine.of(pattern, spend) for pattern in patterns]
    for left, right in itertools.combinations(range(len(patterns)), 2):
        one, other = machines[left], machines[right]
        if one is None or other is None or _meet(one, other, spend):
            return patterns[left], patterns[right]
    return None


def _meet(one: "_Machine", other: "_Machine", spend: Callable[[int], None]) -> bool:
    """Whether both accept one string: a walk through pairs of states."""
    if one.accepts_empty and other.accepts_empty:
        return True
    waiting = [(a, b) for a in one.first for b in other.first]
    seen = set(waiting)
    while waiting:
        a, b = waiting.pop()
        spend(10)
        if not _share_a_character(one.automaton.chars[a], other.automaton.chars[b]):
            continue
        if a in one.last and b in other.last:
            return True
        for pair in itertools.product(one.automaton.follow[a], other.automaton.follow[b]):
            if pair not in seen:
                seen.add(pair)
                waiting.append(pair)
    return False
