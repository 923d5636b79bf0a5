"""Keeps what a client writes into a conversation from becoming control tokens.

A chat template writes a conversation as one text, in which control tokens such as ``<|im_end|>``
separate the turns. Where a message holds the spelling of one, the text alone does not tell the
template's own from the client's. So such a conversation is rendered a second time with marks in
what the client wrote, and where they come out, spellings are ordinary text. Marks are digits, since
no way of writing a text (JSON, escapes, capitals) changes them, and random ones, since no client
may guess them. If a template makes something else of the marked conversation, because it looks for
a spelling at the very start of a message for example, that is the prompt: it has no control token
that the client made.

A client may also send a part of a spelling and have the template write the rest around or behind
it: such texts get a mark at their edges. Words are left alone, since templates make control tokens
of roles (``<|user|>``). Pure functions but for the marks.
"""

import bisect
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import attrs

from tgi_llama.errors import TemplateError

Span = tuple[int, int]

_MARK_DIGITS = 20


class Spellings(Protocol):
    """``text.spellings.Spellings``."""

    def find(self, text: str) -> Sequence[Span]: ...

    def occur_in(self, text: str) -> bool: ...

    def has_open_edge(self, text: str) -> bool: ...


@attrs.frozen
class PromptText:
    text: str
    literals: Sequence[Span] = ()
    """The spellings of control tokens in it that are ordinary text, in characters."""


@attrs.frozen(kw_only=True)
class Conversation:
    """The arguments of a chat template that the client has written."""

    messages: Sequence[Mapping[str, object]]
    tools: Sequence[Mapping[str, object]] | None
    variables: Mapping[str, object]


Render = Callable[[Conversation], str]


def rendered(conversation: Conversation, render: Render, spellings: Spellings) -> PromptText:
    """What ``render`` makes of the conversation. Raises what it raises, and TemplateError."""
    text = render(conversation)
    try:
        marking = _Marking.for_conversation(conversation, spellings)
        if marking is None:
            return PromptText(text)
        marked = marking.conversation()
    except RecursionError as error:
        raise TemplateError("invalid operation: the request is nested too deep") from error
    return _Marked(render(marked), marking.marks).prompt(spellings)


@attrs.frozen
class _Marks:
    start: str
    """Before a spelling."""
    stop: str
    """Behind one."""
    edge: str
    """Where a client's text begins or ends with a part of one."""

    @classmethod
    def random(cls) -> "_Marks":
        number = 10**_MARK_DIGITS + secrets.randbelow(10**_MARK_DIGITS)
        return cls(*(f"{number}{kind}" for kind in range(3)))


@attrs.frozen
class _Marking:
    _conversation: Conversation
    _spellings: Spellings
    marks: _Marks

    @classmethod
    def for_conversation(
        cls, conversation: Conversation, spellings: Spellings
    ) -> "_Marking | None":
        """None where the client has written nothing like a control token."""
        texts = list(_texts((conversation.messages, conversation.tools, conversation.variables)))
        if not any(_is_suspicious(text, spellings) for text in texts):
            return None
        return cls(conversation, spellings, _Marks.random())

    def conversation(self) -> Conversation:
        given = self._conversation
        return Conversation(
            messages=[self._object(message) for message in given.messages],
            tools=None if given.tools is None else [self._object(tool) for tool in given.tools],
            variables=self._object(given.variables),
        )

    def _object(self, value: Mapping[str, object]) -> dict[str, object]:
        return {self._text(name): self._any(item) for name, item in value.items()}

    def _any(self, value: object) -> object:
        match value:
            case str():
                return self._text(value)
            case Mapping():
                return self._object(value)
            case list() | tuple():
                return [self._any(item) for item in value]
            case _:
                return value

    def _text(self, text: str) -> str:
        if not _is_suspicious(text, self._spellings):
            return text
        pieces, end = [], 0
        for start, stop in self._spellings.find(text):
            pieces += [text[end:start], self.marks.start, text[start:stop], self.marks.stop]
            end = stop
        marked = "".join((*pieces, text[end:]))
        inner = marked.strip()  # as templates do it
        if self._spellings.has_open_edge(text):
            marked = marked.replace(inner, f"{self.marks.edge}{inner}{self.marks.edge}", 1)
        return marked


def _texts(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case Mapping():
            for name, item in value.items():
                yield name
                yield from _texts(item)
        case list() | tuple():
            for item in value:
                yield from _texts(item)


def _is_suspicious(text: str, spellings: Spellings) -> bool:
    return spellings.occur_in(text) or spellings.has_open_edge(text)


@attrs.frozen
class _Marked:
    """A rendered text with marks in it."""

    text: str
    marks: _Marks

    def prompt(self, spellings: Spellings) -> PromptText:
        """The text without marks. A spelling in it is a literal where marks stand at both of its
        ends, or any inside: then the client wrote a part of it."""
        plain, positions = self._split()
        edges = sorted(position for one in positions.values() for position in one)
        starts, stops = (frozenset(positions[m]) for m in (self.marks.start, self.marks.stop))

        def is_literal(start: int, stop: int) -> bool:
            behind = bisect.bisect_right(edges, start)
            has_mark_inside = behind < len(edges) and edges[behind] < stop
            return has_mark_inside or (start in starts and stop in stops)

        return PromptText(plain, [span for span in spellings.find(plain) if is_literal(*span)])

    def _split(self) -> tuple[str, Mapping[str, Sequence[int]]]:
        """The text without marks, and where in it each mark was."""
        marks = self.marks
        positions: dict[str, list[int]] = {marks.start: [], marks.stop: [], marks.edge: []}
        pieces = re.split(f"({marks.start}|{marks.stop}|{marks.edge})", self.text)
        n_before = 0
        for index, piece in enumerate(pieces):
            if index % 2:
                positions[piece].append(n_before)
            else:
                n_before += len(piece)
        return "".join(pieces[::2]), positions
