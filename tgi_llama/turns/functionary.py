"""Functionary's ways of calling tools.

3.1: ``<function=name>{...}</function>``. 3.2: each piece of a turn has a recipient, ``>>>name`` and
a new line, and that of text is ``all``; the first ``>>>`` is the end of the prompt.
"""

from collections.abc import Mapping

import attrs

from tgi_llama.errors import ValidationError

from .formats import arguments_grammar, next_mark, turn_rule
from .incoming import Steps
from .lark import NEWLINE, GrammarWriter, one_of
from .markup_reader import BrokenMarkup
from .parts import TurnRequest
from .reader import TurnReader

_BEGIN, _END = "<function=", "</function>"
_TO, _ALL = ">>>", "all"


@attrs.frozen
class FunctionTagCalls:
    """Version 3.1; also how Llama 3.1 calls tools that a system prompt describes that way."""

    name: str = "functionary_v3.1"
    marks: tuple[str, ...] = (_BEGIN, _END)

    def rule(self, grammar: GrammarWriter, request: TurnRequest) -> str:
        calls = [
            f"{grammar.text(f'{tool.name}>')} {grammar.part(arguments_grammar(tool))}"
            for tool in request.tools
        ]
        call = grammar.rule("call", f"{one_of(calls)} {grammar.text(_END)}")
        more = f" ({grammar.text(_BEGIN)} {call})*" if request.parallel else ""
        return turn_rule(grammar, request, mark=_BEGIN, calls=f"{call}{more}")

    def read(self, reader: TurnReader, request: TurnRequest) -> Steps[None]:
        while (yield from next_mark(reader, request, (_BEGIN,))) is not None:
            reader.begin_markup()
            yield from reader.expect(_BEGIN)
            name = yield from reader.take_tool_name((">",))
            yield from reader.expect(">")
            reader.begin_call(name)
            yield from reader.arguments(reader.write_arguments)
            reader.end_call()
            yield from reader.end_mark(_END)


@attrs.frozen
class RecipientCalls:
    """Version 3.2."""

    name: str = "functionary_v3.2"
    marks: tuple[str, ...] = ()

    def rule(self, grammar: GrammarWriter, request: TurnRequest) -> str:
        _check_names(request)
        opens = "" if request.prompt_end.endswith(_TO) else f"{grammar.text(_TO)} "
        parts = {tool.name: grammar.part(arguments_grammar(tool)) for tool in request.tools}
        calls = ""
        if parts:
            first = [f"{grammar.text(_header(name))} {part}" for name, part in parts.items()]
            calls = f"{one_of(first)}{_more(grammar, request, parts)}"
        if request.must_call:
            return f"{opens}{calls}"
        to_all = grammar.text(_header(_ALL))
        if request.content is not None:
            answer = grammar.part(request.content)
        else:
            answer = f"({_text_and_calls(grammar, request, parts)})"
        if _continues_text(request.prompt_end):
            return answer
        return f"{opens}{one_of([f'{to_all} {answer}', *filter(None, [calls])])}"

    def read(self, reader: TurnReader, request: TurnRequest) -> Steps[None]:
        headers = [_header(name) for name in (_ALL, *(tool.name for tool in request.tools))]
        marks = [_TO + header for header in headers]
        reader.begin_markup()
        opens = headers if request.prompt_end.endswith(_TO) else marks
        if _continues_text(request.prompt_end) and not request.must_call:
            header: str | None = headers[0]
        else:
            header = yield from reader.incoming.takes_one_of(opens)
        if header is None and (yield from reader.incoming.next_character()):
            raise BrokenMarkup("the turn names no recipient")
        while header is not None:
            name = header.removeprefix(_TO).removesuffix(NEWLINE)
            if name == _ALL:
                reader.incoming.forget()
                if request.content is not None:
                    return  # of a given form, so that no mark in it is one
            else:
                reader.begin_call(name)
                yield from reader.arguments(reader.write_arguments)
                reader.end_call()
            header = yield from reader.write_until(marks)
            if header is not None:
                reader.begin_markup()
                yield from reader.expect(header)


def _check_names(request: TurnRequest) -> None:
    for tool in request.tools:
        if tool.name == _ALL:
            raise ValidationError(
                f"a tool cannot be called `{_ALL}` with this model, which calls the user so",
                field=f"{tool.field}.name",
            )


def _continues_text(prompt_end: str) -> bool:
    """The prompt has begun a text for the user that the turn goes on with."""
    _, mark, text = prompt_end.rpartition(f"{_TO}{_header(_ALL)}")
    return bool(mark) and _TO not in text and "<|" not in text


def _header(name: str) -> str:
    return f"{name}{NEWLINE}"


def _more(grammar: GrammarWriter, request: TurnRequest, parts: Mapping[str, str]) -> str:
    """Calls after a call."""
    if not request.parallel:
        return ""
    calls = [
        f"{grammar.text(f'{NEWLINE}{_TO}{_header(name)}')} {part}" for name, part in parts.items()
    ]
    return f" {grammar.rule('more_calls', one_of(calls))}*"


def _text_and_calls(grammar: GrammarWriter, request: TurnRequest, parts: Mapping[str, str]) -> str:
    """Text, perhaps with a call after it. Each tool has a rule of its own for the text before it,
    because ``>>>`` alone may well be part of a text."""
    marks = {name: f"{_TO}{_header(name)}" for name in parts}
    text = grammar.free_text(tuple(marks.values()))
    if not parts:
        return text
    after = [f"{grammar.text_until(marks[name])} {part}" for name, part in parts.items()]
    return f"{text} | {one_of(after)}{_more(grammar, request, parts)}"
