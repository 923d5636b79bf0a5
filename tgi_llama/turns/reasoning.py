"""What a model writes for itself before it answers: marks, detection, reading and grammar.

Reasoning comes first in a turn. Some templates open it at the end of the prompt, some close it
there at once so that the model leaves it out; elsewhere the model decides.
"""

import enum

import attrs

from .incoming import SPACE, Steps
from .lark import GrammarWriter
from .reader import TurnReader


@attrs.frozen
class ReasoningMarks:
    """How one family marks its reasoning."""

    begin: str
    end: str
    gap: str = "\n\n"
    """What the model writes between its reasoning and an answer that is constrained."""
    answer: tuple[str, str] | None = None
    """Marks around the answer, where reasoning came before it."""


THINK = ReasoningMarks("<think>", "</think>")
GRANITE_THINK = ReasoningMarks(
    "<think>", "</think>", gap="<response>", answer=("<response>", "</response>")
)

_KNOWN = (
    ReasoningMarks("<|START_THINKING|>", "<|END_THINKING|>", gap=""),
    ReasoningMarks("[THINK]", "[/THINK]", gap=""),
    ReasoningMarks("<seed:think>", "</seed:think>"),
    ReasoningMarks("Here is my thought process:", "Here is my response:", gap=" "),
    GRANITE_THINK,
    THINK,
)


class Opening(enum.Enum):
    """What the prompt's end says about the reasoning."""

    LEFT_OPEN = enum.auto()
    """The turn begins inside of it."""
    CLOSED = enum.auto()
    """There is none in this turn."""
    OPTIONAL = enum.auto()
    """It is up to the model."""


def detect_reasoning(template_source: str) -> ReasoningMarks | None:
    """The marks that the template's text speaks of."""
    for marks in _KNOWN:
        if all(text in template_source for text in (marks.end, *(marks.answer or ()))):
            return marks
    return None


def opening(marks: ReasoningMarks, prompt_end: str) -> Opening:
    end = prompt_end.rstrip(SPACE)
    if end.endswith(marks.begin):
        return Opening.LEFT_OPEN
    if end.endswith(marks.end):
        return Opening.CLOSED
    return Opening.OPTIONAL


def read_reasoning(
    reader: TurnReader, marks: ReasoningMarks, start: Opening, *, split: bool, gap: bool
) -> Steps[bool]:
    """Reads over the reasoning; whether there was any that has ended. Without ``split`` it is
    content, marks and all; either way there are no calls in it. ``gap``: as in
    ``reasoning_rule``; what follows it may well begin with white space, which is content."""
    incoming = reader.incoming
    if start is Opening.CLOSED:
        return False
    # A model whose prompt opens it may do so once more.
    has_begin = yield from _begins(reader, marks.begin)
    if start is Opening.OPTIONAL and not has_begin:
        return False
    if split:
        if has_begin:
            yield from incoming.take_space()
            incoming.take(len(marks.begin))
        found = yield from reader.reasoning_until((marks.end,))
    else:
        found = yield from reader.write_until((marks.end,))
    if found is None:
        return False
    mark = incoming.take(len(marks.end))
    if not split:
        reader.write(mark)
    elif gap:
        yield from _take_gap(reader, marks.gap)
    else:
        reader.skip_space()
    return True


def _take_gap(reader: TurnReader, gap: str) -> Steps[None]:
    """Takes it, or its beginning where the text ends there."""
    incoming = reader.incoming
    if not (yield from incoming.takes(gap)) and gap.startswith(incoming.waiting):
        incoming.take(len(incoming.waiting))


def read_answer(reader: TurnReader, begin: str, end: str) -> Steps[None]:
    """Content between marks, both of which may be missing."""
    incoming = reader.incoming
    yield from incoming.take_space()
    yield from incoming.takes(begin)
    reader.skip_space()
    if (yield from reader.take_until((end,), reader.write, drops_cut=True)) is not None:
        yield from reader.optional_mark(end)
    reader.skip_space()
    incoming.take(len(incoming.waiting))


def _begins(reader: TurnReader, begin: str) -> Steps[bool]:
    """Whether the mark is what comes next, after white space. Takes nothing."""
    incoming = reader.incoming
    incoming.remember()
    yield from incoming.take_space()
    found = yield from incoming.takes(begin)
    incoming.give_back()
    return found


def reasoning_rule(
    grammar: GrammarWriter, marks: ReasoningMarks, start: Opening, *, gap: bool
) -> str:
    """An expression for the reasoning, to stand before the rest of a turn; empty where there can be
    none. ``gap``: what follows is constrained and cannot begin with white space."""
    if start is Opening.CLOSED:
        return ""
    end = grammar.text_until(marks.end)
    if gap and marks.gap:
        end += f" {grammar.text(marks.gap)}"
    if start is Opening.LEFT_OPEN:
        return end
    return f"{grammar.rule('reasoning', f'{grammar.first(marks.begin)} {end}')}?"
