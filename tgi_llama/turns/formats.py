"""A turn format made of two: how a family marks its calls, and how the template marks reasoning."""

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Protocol

import attrs

from tgi_llama.errors import ValidationError
from tgi_llama.structured.grammar import Grammar, JsonSchemaGrammar

from .incoming import Steps
from .lark import GrammarWriter, one_of
from .parts import TurnPlan, TurnRequest, TurnTool
from .reader import TurnReader
from .reasoning import Opening, ReasoningMarks, opening, read_answer, read_reasoning, reasoning_rule


class Calls(Protocol):
    """How a family of models marks tool calls in what follows the reasoning. Immutable."""

    @property
    def name(self) -> str: ...

    @property
    def marks(self) -> tuple[str, ...]:
        """Texts that may be control tokens of a vocabulary and that the reader must see."""
        ...

    def rule(self, grammar: GrammarWriter, request: TurnRequest) -> str:
        """An expression for all that may follow the reasoning."""
        ...

    def read(self, reader: TurnReader, request: TurnRequest) -> Steps[None]:
        """Takes apart what follows the reasoning."""
        ...


@attrs.frozen
class MarkedFormat:
    """A ``TurnFormat``."""

    calls: Calls
    reasoning: ReasoningMarks | None = None
    frames_content: bool = False
    """Turns without tools have markup as well, so that ``calls`` is asked for these too."""
    is_never_free: bool = False
    """Turns with tools have a given form from their first character on."""

    @property
    def name(self) -> str:
        return self.calls.name

    def plan(self, request: TurnRequest) -> TurnPlan:
        start = Opening.CLOSED
        if self.reasoning is not None:
            start = opening(self.reasoning, request.prompt_end)
        has_markup = bool(request.tools) or self.frames_content
        if not has_markup and start is Opening.CLOSED:
            return TurnPlan(grammar=request.content, shown_controls=frozenset(), make_parser=None)
        names = frozenset(tool.name for tool in request.tools)
        script = functools.partial(self._read, request=request, start=start)
        marks = self.calls.marks if has_markup else ()
        if self.reasoning is not None:
            marks += (self.reasoning.begin, self.reasoning.end)
        controls = request.control_spellings
        return TurnPlan(
            grammar=self._grammar(request, start),
            shown_controls=frozenset(controls[mark] for mark in marks if mark in controls),
            make_parser=functools.partial(TurnReader, script, names),
        )

    def _grammar(self, request: TurnRequest, start: Opening) -> Grammar | None:
        if not request.tools and request.content is None:
            return None
        grammar = GrammarWriter(request.control_spellings)
        if request.tools or self.frames_content:
            body = self.calls.rule(grammar, request)
        else:
            assert request.content is not None
            body = grammar.part(request.content)
        turn = grammar.rule("turn", body)
        if self.reasoning is None:
            return grammar.grammar(turn)
        gap = self._has_gap(request)
        before = reasoning_rule(grammar, self.reasoning, start, gap=gap)
        return grammar.grammar(f"{before} {turn}".strip())

    def _has_gap(self, request: TurnRequest) -> bool:
        """What follows the reasoning is constrained from its first character on."""
        if request.content is not None:
            return True
        return bool(request.tools) and (request.must_call or self.is_never_free)

    def _read(self, reader: TurnReader, *, request: TurnRequest, start: Opening) -> Steps[None]:
        marks, has_reasoned = self.reasoning, False
        if marks is not None:
            has_reasoned = yield from read_reasoning(
                reader,
                marks,
                start,
                split=request.split_reasoning,
                gap=self._has_gap(request),
            )
        if request.tools or self.frames_content:
            yield from self.calls.read(reader, request)
        elif request.content is not None:
            return  # all of the rest, whatever is spelled in it
        elif marks is not None and marks.answer is not None and has_reasoned:
            yield from read_answer(reader, *marks.answer)


def arguments_grammar(tool: TurnTool) -> JsonSchemaGrammar:
    """What a call's arguments must be like: always an object. Raises ValidationError for a schema
    that no object can be valid by because of its type."""
    field = f"{tool.field}.parameters"
    schema = {} if tool.parameters is None or tool.parameters is True else tool.parameters
    if not isinstance(schema, Mapping):
        raise ValidationError("`parameters` must be a JSON Schema of an object", field=field)
    types = schema.get("type", "object")
    if "object" not in (types if isinstance(types, list) else [types]):
        raise ValidationError(
            f"`parameters` must be a JSON Schema of an object. Given: type {json.dumps(types)}",
            field=f"{field}.type",
        )
    return JsonSchemaGrammar(schema={**schema, "type": "object"}, field=field)


def call_objects(
    grammar: GrammarWriter, tools: Sequence[TurnTool], *, arguments_key: str = "arguments"
) -> str:
    """An expression for ``{"name": "...", "arguments": {...}}``, spelled as templates spell it."""
    call = named_arguments(grammar, tools, arguments_key=arguments_key)
    return grammar.rule("call_object", f"{grammar.text(OBJECT_BEGIN)} {call}")


OBJECT_BEGIN = '{"name": '


def named_arguments(
    grammar: GrammarWriter, tools: Sequence[TurnTool], *, arguments_key: str
) -> str:
    """What follows ``OBJECT_BEGIN``, the end of the object included."""
    middle = f', "{arguments_key}": '
    choices = [
        f"{grammar.text(json.dumps(tool.name, ensure_ascii=False) + middle)}"
        f" {grammar.part(arguments_grammar(tool))}"
        for tool in tools
    ]
    # A rule of its own, so that it is written once however often it is used.
    return grammar.rule("named_arguments", f"{one_of(choices)} {grammar.text('}')}")


def call_list(grammar: GrammarWriter, request: TurnRequest) -> str:
    """An expression for a JSON list of such objects, behind its opening bracket."""
    call = call_objects(grammar, request.tools)
    more = f" ({grammar.text(', ')} {call})*" if request.parallel else ""
    return f"{call}{more} {grammar.text(']')}"


def turn_rule(grammar: GrammarWriter, request: TurnRequest, *, mark: str, calls: str) -> str:
    """An expression for a turn of text in which ``mark`` opens the calls, which end the turn:
    ``calls`` is what follows the mark."""
    if request.must_call:
        return f"{grammar.text(mark)} {calls}"
    if request.content is not None:
        return f"{grammar.part(request.content)} | {grammar.first(mark)} {calls}"
    return f"{grammar.free_text((mark,))} | {grammar.text_until(mark)} {calls}"


def read_content(reader: TurnReader, request: TurnRequest, ends: Sequence[str]) -> Steps[None]:
    """Reads content that one of ``ends`` closes. JSON of a given form closes itself, so that a mark
    in its strings is none."""
    if isinstance(request.content, JsonSchemaGrammar):
        yield from reader.value(reader.write)
    else:
        yield from reader.write_until(ends)


def next_mark(reader: TurnReader, request: TurnRequest, marks: Sequence[str]) -> Steps[str | None]:
    """Reads content up to the first of ``marks``, which opens a call; None where the turn ends
    without one. Content of a given form is all there is, so that a mark in it is none."""
    if request.content is None or request.must_call:
        return (yield from reader.write_until(marks))
    incoming = reader.incoming
    incoming.remember()
    yield from incoming.take_space()
    found = yield from incoming.starts_with_one_of(marks)
    if found is None:
        incoming.give_back()
    return found
