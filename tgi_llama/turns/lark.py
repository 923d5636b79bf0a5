"""Writes the grammar of a turn in llguidance's dialect of Lark.

A mark that is a control token of the vocabulary is written as that token, any other as text. Free
text ends at a mark with the mark's last character: such a rule is lazy, which in llguidance means
that it wins over any other rule that could read on.
"""

import json
import re
from collections.abc import Mapping, Sequence

from tgi_llama.structured.grammar import CompositeGrammar, Grammar

NEWLINE = "\n"


class GrammarWriter:
    """Collects rules. Mutable, one per grammar."""

    def __init__(self, controls: Mapping[str, int]) -> None:
        self._controls = controls
        self._rules: dict[str, str] = {}
        """Bodies by what stands before the colon."""
        self._parts: list[tuple[str, Grammar]] = []

    def grammar(self, start: str) -> CompositeGrammar:
        """The grammar whose ``start`` rule has this body."""
        rules = {"start": start, **self._rules}
        lines = [f"{head}: {body}" for head, body in rules.items()]
        return CompositeGrammar(lark="\n".join(lines) + "\n", parts=tuple(self._parts))

    # Each of these returns an expression that may stand in a rule's body.

    def rule(self, name: str, body: str) -> str:
        """A rule with this name, which must be new or have the same body."""
        return self._define(name, name, body)

    def text(self, text: str) -> str:
        """Exactly this text, in which spellings of control tokens are those tokens."""
        spellings = [spelling for spelling in self._controls if spelling and spelling in text]
        if not spellings:
            return json.dumps(text) if text else '""'
        pattern = "|".join(map(re.escape, sorted(spellings, key=len, reverse=True)))
        pieces = re.split(f"({pattern})", text)
        return " ".join(self._piece(piece) for piece in pieces if piece)

    def part(self, grammar: Grammar) -> str:
        """Another grammar."""
        for name, known in self._parts:
            if known is grammar:
                return f"@{name}"
        name = f"part{len(self._parts)}"
        self._parts.append((name, grammar))
        return f"@{name}"

    def free_text(self, excluded: Sequence[str], pattern: str = "(?s:.*)") -> str:
        """Text that matches the pattern and in which none of ``excluded`` is spelled."""
        body = f"/{pattern}/"
        if excluded:
            spelled = "|".join(map(_escaped, excluded))
            body += f" & ~/(?s:.*)({spelled})(?s:.*)/"
        return self._define(self._name("TEXT", body), None, body)

    def text_until(self, mark: str, others: Sequence[str] = ()) -> str:
        """Free text and the first ``mark``, which ends it. Of ``others``, which end it elsewhere in
        the grammar, none comes before."""
        if mark in self._controls:
            return f"{self.free_text((mark, *others))} {self.text(mark)}"
        spelled = [other for other in others if other in self._controls]
        if spelled:  # other marks are spelled too, and then their own rules win
            return self.lazy(f"{self.free_text(spelled)} {self.text(mark)}")
        return self.lazy(f"/(?s:.*){_escaped(mark)}/")

    def is_control(self, mark: str) -> bool:
        """Whether the mark is a token of its own, which free text cannot hold."""
        return mark in self._controls

    def lazy(self, body: str) -> str:
        """A terminal that ends as early as it can."""
        name = self._name("lazy", body)
        return self._define(name, f"{name}[lazy]", body)

    def first(self, mark: str) -> str:
        """The mark, where free text could begin with it too: it never does."""
        if mark in self._controls:
            return self.text(mark)
        body = f"/{_escaped(mark)}/"
        name = self._name("first", body)
        return self._define(name, f"{name}[lazy]", body)

    def _piece(self, text: str) -> str:
        token = self._controls.get(text)
        return json.dumps(text) if token is None else f"<[{token}]>"

    def _name(self, kind: str, body: str) -> str:
        """A name for the rule with this body: the same one each time."""
        heads = [head for head, known in self._rules.items() if known == body]
        names = [head.partition("[")[0] for head in heads]
        known = next((name for name in names if re.fullmatch(rf"{kind}\d+", name)), None)
        return known or f"{kind}{len(self._rules)}"

    def _define(self, name: str, head: str | None, body: str) -> str:
        known = self._rules.setdefault(head or name, body)
        assert known == body, f"two rules {name}"
        return name


def one_of(expressions: Sequence[str]) -> str:
    """An expression for any of them."""
    return f"({' | '.join(expressions)})"


def _escaped(text: str) -> str:
    """For a regular expression between slashes, in Rust's dialect and in Python's."""
    return re.sub(r"([\\^$.|?*+()\[\]{}/&~#-])", r"\\\1", text).replace("\n", r"\n")
