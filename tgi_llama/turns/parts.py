"""What a chat turn of a model consists of, piece by piece.

Frozen values, for any thread, and the protocols of those who make and read them.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import attrs

from tgi_llama.structured.grammar import Grammar


@attrs.frozen
class Content:
    """A piece of the text for the user."""

    text: str


@attrs.frozen
class Reasoning:
    """A piece of the text that the model wrote for itself."""

    text: str


@attrs.frozen
class CallBegin:
    """A tool call begins. The indexes of a turn's calls count up from 0."""

    index: int
    name: str


@attrs.frozen
class CallArguments:
    """A piece of the arguments of the call that began last; all of them together are a JSON
    object."""

    index: int
    text: str


TurnPart = Content | Reasoning | CallBegin | CallArguments


class TurnParser(Protocol):
    """Takes the text of one turn apart while it arrives. Mutable, one per generation.

    Whatever the text is, nothing is raised and nothing is lost: markup that turns out to be none is
    content.
    """

    @property
    def n_calls(self) -> int:
        """Tool calls that have begun."""
        ...

    @property
    def failure(self) -> str | None:
        """Why markup was given out as content; None where all was understood."""
        ...

    def push(self, text: str) -> Sequence[TurnPart]:
        """The parts that are certain now. What may still become markup is held back."""
        ...

    def finish(self) -> Sequence[TurnPart]:
        """The end of the text, complete or cut off."""
        ...


@attrs.frozen(kw_only=True)
class TurnTool:
    """A tool as a turn may call it."""

    name: str
    parameters: object
    """A JSON Schema for the arguments object; None accepts any object."""
    field: str
    """JSON path of the tool in the request, for errors: ``tools[0].function``."""


@attrs.frozen(kw_only=True)
class TurnRequest:
    """What a turn may and must contain."""

    tools: Sequence[TurnTool] = ()
    """Those that may be called, in the client's order."""
    must_call: bool = False
    """``tool_choice`` is ``required`` or names one (then ``tools`` holds only that one)."""
    parallel: bool = True
    """More than one call is allowed."""
    content: Grammar | None = None
    """What the content must be like (``response_format``); reasoning before it is free."""
    split_reasoning: bool = True
    """False: the reasoning is left in the content, with its markup."""
    prompt_end: str = ""
    """The end of the rendered prompt: a turn may begin inside of reasoning."""
    control_spellings: Mapping[str, int] = attrs.field(factory=dict)
    """The vocabulary's control tokens, by spelling."""


@attrs.frozen(kw_only=True)
class TurnPlan:
    """How to generate and to read one turn."""

    grammar: Grammar | None
    """None: the turn is free text."""
    shown_controls: frozenset[int]
    """Control tokens that the parser must see."""
    make_parser: "ParserFactory | None"
    """None: the text is the content."""


class ParserFactory(Protocol):
    def __call__(self) -> TurnParser: ...


class TurnFormat(Protocol):
    """How one family of models marks tool calls and reasoning in its turns. Immutable."""

    @property
    def name(self) -> str:
        """For the log and ``/info``, for example ``hermes``."""
        ...

    def plan(self, request: TurnRequest) -> TurnPlan: ...
