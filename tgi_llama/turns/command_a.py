"""The turns of Command R7B and Command A: calls and answer have marks of their own, as the
reasoning before them has."""

import json

import attrs

from .formats import arguments_grammar, read_content
from .incoming import SPACE, Steps
from .lark import GrammarWriter, one_of
from .parts import TurnRequest, TurnTool
from .reader import TurnReader

_ACTION, _END_ACTION = "<|START_ACTION|>", "<|END_ACTION|>"
_RESPONSE, _END_RESPONSE = "<|START_RESPONSE|>", "<|END_RESPONSE|>"
_TEXT, _END_TEXT = "<|START_TEXT|>", "<|END_TEXT|>"
_ANSWER_MARKS = (_RESPONSE, _END_RESPONSE, _TEXT, _END_TEXT)
_CLOSE = f"\n]{_END_ACTION}"


@attrs.frozen
class CommandACalls:
    """Frames content: a turn without tools has markup as well."""

    name: str = "command_a"
    begin: str = _RESPONSE
    end: str = _END_RESPONSE
    """What an answer stands between; both kinds are read."""
    marks: tuple[str, ...] = (_ACTION, _END_ACTION, *_ANSWER_MARKS)

    def rule(self, grammar: GrammarWriter, request: TurnRequest) -> str:
        kinds = [] if request.must_call else [self._answer(grammar, request)]
        if request.tools:
            kinds.append(_calls(grammar, request))
        return one_of(kinds)

    def _answer(self, grammar: GrammarWriter, request: TurnRequest) -> str:
        begin, end = grammar.text(self.begin), grammar.text(self.end)
        if request.content is None:
            return f"{begin}? {grammar.free_text((_ACTION,))} {end}?"
        answer = f"{grammar.part(request.content)} {end}?"
        has_begun = request.prompt_end.rstrip(SPACE).endswith(self.begin)
        return answer if has_begun else f"{begin} {answer}"

    def read(self, reader: TurnReader, request: TurnRequest) -> Steps[None]:
        marks = (*_ANSWER_MARKS, _ACTION) if request.tools else _ANSWER_MARKS
        while (mark := (yield from reader.write_until(marks))) is not None:
            if mark == _ACTION:
                reader.begin_markup()
                yield from reader.expect(mark)
                yield from reader.call_list(name_keys=("tool_name",))
                yield from reader.end_mark(_END_ACTION)
                continue
            reader.incoming.take(len(mark))
            reader.skip_space()
            if request.content is not None and mark == self.begin:
                yield from read_content(reader, request, (self.end,))


def _calls(grammar: GrammarWriter, request: TurnRequest) -> str:
    head, tail = grammar.text('\n    {"tool_call_id": "'), grammar.text("}")
    bodies = one_of([_call(grammar, tool) for tool in request.tools])
    call = grammar.rule("call", f"{head} /[0-9]{{1,3}}/ {bodies} {tail}")
    more = f" ({grammar.text(',')} {call})*" if request.parallel else ""
    calls = f"{grammar.text('[')} {call}{more} {grammar.text(_CLOSE)}"
    if request.must_call or request.content is not None:
        return f"{grammar.text(_ACTION)} {calls}"
    return f"{grammar.text_until(_ACTION)} {calls}"


def _call(grammar: GrammarWriter, tool: TurnTool) -> str:
    name = json.dumps(tool.name, ensure_ascii=False)
    head = grammar.text(f'", "tool_name": {name}, "parameters": ')
    return f"{head} {grammar.part(arguments_grammar(tool))}"


COMMAND_A = CommandACalls()
COMMAND_A_TEXT = CommandACalls("command_a_text", _TEXT, _END_TEXT)
"""Of newer models."""
