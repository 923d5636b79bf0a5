"""Llama 3's way of calling tools: the turn is one JSON object with ``name`` and ``parameters``,
perhaps behind ``<|python_tag|>``. Calls of the built-in tools, ``name.call(key="value")``, are
read; they are not asked for, because no schema says which tools those are.
"""

import json
from collections.abc import Sequence

import attrs

from .formats import call_objects
from .incoming import Steps
from .lark import GrammarWriter
from .parts import TurnRequest
from .reader import TurnReader

_TAG = "<|python_tag|>"
_CALL, _END = ".call(", ")"
_FIRST_KEYS = ("name", "type", "function", "parameters", "id")
_NO_OBJECT = r"[ \t\n\r]*([^{ \t\n\r](?s:.*))?"
"""Text that does not begin like a call."""


@attrs.frozen
class LlamaCalls:
    """More than one call in a turn is read, with ``;`` between them, but never asked for: the
    models were trained with one, and their templates refuse more in a history."""

    name: str = "llama3"
    marks: tuple[str, ...] = (_TAG,)

    def rule(self, grammar: GrammarWriter, request: TurnRequest) -> str:
        call = call_objects(grammar, request.tools, arguments_key="parameters")
        calls = f"{call} | {grammar.first(_TAG)} {call}"
        if request.must_call:
            return calls
        if request.content is not None:  # which may be an object too
            return f"{grammar.part(request.content)} | {grammar.text(_TAG)} {call}"
        return f"{grammar.free_text((_TAG,), _NO_OBJECT)} | {calls}"

    def read(self, reader: TurnReader, request: TurnRequest) -> Steps[None]:
        begins = ("{", _TAG) if request.must_call or request.content is None else (_TAG,)
        match (yield from _begin_of_call(reader, begins)):
            case None:
                return
            case "{":
                yield from reader.attempt(_bare_calls(reader))
                return
        yield from reader.expect(_TAG)
        yield from reader.incoming.take_space()
        if (yield from reader.incoming.next_character()) == "{":
            yield from _bare_calls(reader)
        else:
            yield from _builtin_call(reader)


def _begin_of_call(reader: TurnReader, begins: Sequence[str]) -> Steps[str | None]:
    """Which of ``begins`` comes next, after white space. Begins the markup where one does."""
    reader.begin_markup()
    yield from reader.incoming.take_space()
    found = yield from reader.incoming.starts_with_one_of(begins)
    if found is None:
        reader.incoming.give_back()
    return found


def _bare_calls(reader: TurnReader) -> Steps[None]:
    incoming = reader.incoming
    while True:
        yield from reader.call_object(first_keys=_FIRST_KEYS)
        yield from incoming.take_space()
        if not (yield from incoming.takes(";")):
            return
        yield from incoming.take_space()
        reader.begin_markup()


def _builtin_call(reader: TurnReader) -> Steps[None]:
    """``name.call(key="value", ...)``, whose values are JSON."""
    reader.begin_call((yield from reader.take_tool_name((_CALL,))))
    yield from reader.expect(_CALL)
    is_first = True
    while not (yield from reader.incoming.takes(_END)):
        if not is_first:
            yield from reader.expect(",")
            yield from reader.incoming.take_space()
        key = yield from reader.take_word()
        yield from reader.expect("=")
        reader.write_arguments(f"{'{' if is_first else ', '}{json.dumps(key)}: ")
        yield from reader.value(reader.write_arguments)
        is_first = False
    if not is_first:
        reader.write_arguments("}")
    reader.end_call()
