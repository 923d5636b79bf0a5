"""Mistral's ways of calling tools, all behind ``[TOOL_CALLS]``: a JSON list of calls, or since
version 11 of its tokenizer one mark per call with the bare name, ``[ARGS]`` and the arguments; in
version 11 itself with an id before them."""

import attrs

from .formats import arguments_grammar, call_list, next_mark, turn_rule
from .incoming import Steps
from .lark import GrammarWriter, one_of
from .parts import TurnRequest
from .reader import TurnReader

_MARK, _ID, _ARGUMENTS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"


@attrs.frozen
class MistralCalls:
    """The list."""

    name: str = "mistral"
    marks: tuple[str, ...] = (_MARK,)

    def rule(self, grammar: GrammarWriter, request: TurnRequest) -> str:
        # Some versions were trained with a space before the list, others without.
        return turn_rule(
            grammar, request, mark=_MARK, calls=f"/ ?\\[/ {call_list(grammar, request)}"
        )

    def read(self, reader: TurnReader, request: TurnRequest) -> Steps[None]:
        yield from _read(reader, request)


@attrs.frozen
class MistralNamedCalls:
    """The bare name."""

    name: str = "mistral_v13"
    has_ids: bool = False
    """Version 11."""
    marks: tuple[str, ...] = (_MARK, _ID, _ARGUMENTS)

    def rule(self, grammar: GrammarWriter, request: TurnRequest) -> str:
        middle = grammar.text(_ARGUMENTS)
        if self.has_ids:
            middle = f"{grammar.text(_ID)} /[a-zA-Z0-9]{{9}}/ {middle}"
        choices = [
            f"{grammar.text(tool.name)} {middle} {grammar.part(arguments_grammar(tool))}"
            for tool in request.tools
        ]
        call = grammar.rule("call", one_of(choices))
        more = f" ({grammar.text(_MARK)} {call})*" if request.parallel else ""
        return turn_rule(grammar, request, mark=_MARK, calls=f"{call}{more}")

    def read(self, reader: TurnReader, request: TurnRequest) -> Steps[None]:
        yield from _read(reader, request)


def _read(reader: TurnReader, request: TurnRequest) -> Steps[None]:
    """All of the ways: which one it is shows behind the mark."""
    while (yield from next_mark(reader, request, (_MARK,))) is not None:
        reader.begin_markup()
        yield from reader.expect(_MARK)
        yield from reader.incoming.take_space()
        if (yield from reader.incoming.next_character()) in "[{":
            yield from reader.call_list()
        else:
            yield from _read_named(reader)


def _read_named(reader: TurnReader) -> Steps[None]:
    name = yield from reader.take_tool_name((_ID, _ARGUMENTS, "{"))
    if (yield from reader.incoming.takes(_ID)):
        yield from reader.take_tool_name((_ARGUMENTS, "{"))
    reader.begin_call(name.strip())
    yield from reader.incoming.takes(_ARGUMENTS)
    yield from reader.arguments(reader.write_arguments)
    reader.end_call()
