"""Finds the spellings of a model's control tokens in a text.

Every text that a client sends is searched, so this has to be quick: one regular expression, written
as a tree of common beginnings (``<\\|(?:im_(?:end|start)|endoftext)\\|>``), because ``re`` tries
the alternatives of a group one after the other and models have up to some thousand control tokens.
"""

import itertools
import re
from collections.abc import Container, Iterable, Sequence

Span = tuple[int, int]
"""Where something starts and stops in a text, in characters."""

_WORD = re.compile(r"\w+")


class Spellings:
    """Immutable and thread-safe."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = frozenset(text for text in texts if text)
        ordered = sorted(self.texts)
        self._pattern = re.compile(_tree(ordered)) if ordered else None
        self._longest = max(map(len, ordered), default=0)
        self._firsts = frozenset(text[0] for text in ordered)
        self._lasts = frozenset(text[-1] for text in ordered)
        self._beginnings = frozenset(t[:stop] for t in ordered for stop in range(1, len(t)))
        self._ends = frozenset(t[start:] for t in ordered for start in range(1, len(t)))
        self._joined = "\n".join(ordered)

    def find(self, text: str) -> list[Span]:
        """In order, none overlapping another: as tokenizers find added tokens the leftmost first,
        and the longest of those."""
        return [] if self._pattern is None else [m.span() for m in self._pattern.finditer(text)]

    def occur_in(self, text: str) -> bool:
        return self._pattern is not None and self._pattern.search(text) is not None

    def has_open_edge(self, text: str) -> bool:
        """Whether ``text``, without the white space around it, ends with the beginning of a
        spelling, begins with the end of one, or stands in one, so that what is written next to it
        could make a spelling whole. Words alone do not count: a role must stay what it is, and
        templates make control tokens of roles (``<|user|>``)."""
        if text.isidentifier():
            return False
        text = text.strip()
        return (
            self._begins_one(text[-self._longest :])
            or self._ends_one(text[: self._longest])
            or self._is_inside_one(text)
        )

    def _begins_one(self, tail: str) -> bool:
        return not self._firsts.isdisjoint(tail) and any(
            character in self._firsts and self._is_part(tail[index:], self._beginnings)
            for index, character in enumerate(tail)
        )

    def _ends_one(self, head: str) -> bool:
        return not self._lasts.isdisjoint(head) and any(
            character in self._lasts and self._is_part(head[: index + 1], self._ends)
            for index, character in enumerate(head)
        )

    def _is_inside_one(self, text: str) -> bool:
        fits = 0 < len(text) < self._longest and text not in self.texts
        return fits and self._is_part(text, self._joined)

    def _is_part(self, text: str, parts: Container[str]) -> bool:
        return text in parts and not _WORD.fullmatch(text)


def cut_at_controls(
    text: str, found: Iterable[Span], literals: Container[Span]
) -> list[tuple[str, bool]]:
    """The text in parts, each with whether its spellings of control tokens are ordinary text.

    Cuts are made only next to control tokens, where tokenizers cut as well. ``found`` are all
    spellings in order, ``literals`` those that are ordinary text.
    """
    parts: list[tuple[str, bool]] = []
    begin = gap = 0  # where the part begins, and where its last control token ends
    is_literal = False  # what is behind that token
    for span in (*found, (len(text), len(text))):
        if span in literals:
            is_literal = True
            continue
        if is_literal:
            parts += [(text[begin:gap], False), (text[gap : span[0]], True)]
            begin, is_literal = span[0], False
        gap = span[1]
    return [part for part in (*parts, (text[begin:], False)) if part[0]]


def _tree(texts: Sequence[str]) -> str:
    """A pattern for the texts, which are sorted; of several that match it takes the longest."""
    pairs = zip(texts[0], texts[-1], strict=False)
    equal = itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)
    common = "".join(first for first, _ in equal)
    is_whole = texts[0] == common
    branches: dict[str, list[str]] = {}
    for text in texts:
        if text != common:
            rest = text[len(common) :]
            branches.setdefault(rest[0], []).append(rest)
    written = re.escape(common)
    if not branches:
        return written
    alternatives = "|".join(_tree(branch) for branch in branches.values())
    return f"{written}(?:{alternatives}){'?' if is_whole else ''}"
