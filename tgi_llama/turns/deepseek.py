"""DeepSeek's ways of calling tools: V3 and R1 put the arguments into a fenced piece of JSON behind
the tool's name, V3.1 writes them right behind a separator."""

import attrs

from .formats import arguments_grammar, next_mark
from .incoming import Steps
from .lark import GrammarWriter, one_of
from .markup_reader import CutOff
from .parts import TurnRequest, TurnTool
from .reader import TurnReader

_BEGIN, _END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"  # noqa: RUF001  the marks' own bars
_CALL, _CALL_END = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"  # noqa: RUF001
_SEPARATOR = "<｜tool▁sep｜>"  # noqa: RUF001
_FENCE = "```"


@attrs.frozen
class DeepSeekCalls:
    """Reads both ways, whichever it asks the model for."""

    name: str
    fenced: bool
    marks: tuple[str, ...] = (_BEGIN, _CALL, _SEPARATOR, _CALL_END, _END)

    def rule(self, grammar: GrammarWriter, request: TurnRequest) -> str:
        between = "\n" if self.fenced else ""
        call = grammar.rule("call", one_of([self._call(grammar, tool) for tool in request.tools]))
        more = f" ({grammar.text(between + _CALL)} call)*" if request.parallel else ""
        calls = grammar.rule("calls", f"{call}{more} {grammar.text(_END)}")
        begin = grammar.text(_BEGIN + _CALL)
        if request.must_call:
            return f"{begin} {calls}"
        if request.content is not None:
            return f"{grammar.part(request.content)} | {begin} {calls}"
        return " | ".join(
            (
                grammar.free_text((_BEGIN, _CALL)),
                f"{grammar.text_until(_BEGIN, (_CALL,))} {grammar.text(_CALL)} {calls}",
                f"{grammar.text_until(_CALL, (_BEGIN,))} {calls}",
            )
        )

    def _call(self, grammar: GrammarWriter, tool: TurnTool) -> str:
        arguments = grammar.part(arguments_grammar(tool))
        if self.fenced:
            head, tail = f"function{_SEPARATOR}{tool.name}\n{_FENCE}json\n", f"\n{_FENCE}"
        else:
            head, tail = f"{tool.name}{_SEPARATOR}", ""
        return f"{grammar.text(head)} {arguments} {grammar.text(tail + _CALL_END)}"

    def read(self, reader: TurnReader, request: TurnRequest) -> Steps[None]:
        while (yield from next_mark(reader, request, (_BEGIN, _CALL))) is not None:
            reader.begin_markup()
            if (yield from reader.incoming.takes(_BEGIN)):
                yield from reader.incoming.take_space()
            yield from reader.expect(_CALL)
            yield from _read_call(reader)
            yield from reader.optional_mark(_END)


def _read_call(reader: TurnReader) -> Steps[None]:
    before = yield from reader.take_name(_SEPARATOR)
    yield from reader.incoming.take_space()
    if not (yield from reader.incoming.next_character()):
        raise CutOff  # which of them is the name is not known yet
    is_fenced = not reader.incoming.waiting.startswith("{")
    name = (yield from reader.take_name("\n")) if is_fenced else before
    reader.begin_call(name)
    if is_fenced:
        yield from reader.incoming.take_space()
        yield from reader.expect(f"{_FENCE}json")
    yield from reader.arguments(reader.write_arguments)
    if is_fenced:
        yield from reader.end_mark(_FENCE)
    reader.end_call()
    yield from reader.end_mark(_CALL_END)


DEEPSEEK_V3 = DeepSeekCalls("deepseek_v3", fenced=True)
DEEPSEEK_V3_1 = DeepSeekCalls("deepseek_v3.1", fenced=False)
