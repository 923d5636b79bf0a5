"""Whether two patterns have a string in common.

llguidance wants the patterns of ``patternProperties`` to have none, and says so without a path.
"""

import unicodedata
from collections.abc import Callable

import attrs

from .pattern import LAST, Chars, Choice, Node, Pattern, Repeat, Sequence, in_item

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
        return self._row(node.parts) if isinstance(node, Sequence) else self._repeated(node)

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
            rest = (Choice((Sequence(), node.node)),) * (node.high - node.low)
        return self._row((node.node,) * node.low + rest)


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


def may_overlap(one: Pattern, other: Pattern, spend: Callable[[int], None]) -> bool:
    """False only if no string matches both; True also where that takes too long to find out.
    ``spend`` is told of every step and may raise."""
    machines = (_Automaton(), _Automaton())
    left, right = machines[0].add(one.node), machines[1].add(other.node)
    if left is None or right is None or (left[0] and right[0]):
        return True
    waiting = [(a, b) for a in left[1] for b in right[1]]
    seen = set(waiting)
    while waiting:
        a, b = waiting.pop()
        spend(10)
        if not _share_a_character(machines[0].chars[a], machines[1].chars[b]):
            continue
        if a in left[2] and b in right[2]:
            return True
        for pair in ((x, y) for x in machines[0].follow[a] for y in machines[1].follow[b]):
            if pair not in seen:
                seen.add(pair)
                waiting.append(pair)
    return False
