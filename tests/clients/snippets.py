"""The code blocks and tables of a Markdown document."""

import re
from collections.abc import Iterator
from pathlib import Path

import attrs

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


@attrs.frozen
class Block:
    """A fenced block; ``line`` is where it begins, ``heading`` what it stands under."""

    document: str
    line: int
    language: str
    text: str
    heading: str

    @property
    def name(self) -> str:
        return f"{self.document}:{self.line}"


def blocks(document: str) -> Iterator[Block]:
    """All fenced blocks of a document, named relative to the repository's root."""
    text = (ROOT / document).read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        before = _FENCE.sub("", text[: found.start()])
        headings = _HEADING.findall(before) or [""]
        line = text.count("\n", 0, found.start()) + 1
        yield Block(document, line, found[1], found[2], headings[-1])


def section(document: str, heading: str) -> str:
    """The text under a heading, up to the next heading of any depth."""
    text = (ROOT / document).read_text(encoding="utf-8")
    _, _, rest = text.partition(f"# {heading}\n")
    assert rest, f"{document} has no heading {heading!r}"
    return _HEADING.split(_FENCE.sub("", rest))[0]


def rows(text: str) -> list[list[str]]:
    """The cells of every table row, without heads and rulers."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    rulers = [i for i, row in enumerate(cells) if set("".join(row)) == {"-", " "} - {" "}]
    return [row for i, row in enumerate(cells) if i not in rulers and i + 1 not in rulers]


def quoted(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)
