"""The turns of Command R7B and Command A: reasoning, calls and answer each have marks of their
own."""

import functools
import json

import attrs

from tgi_llama.structured.grammar import Grammar

from .formats import arguments_grammar
from .incoming import SPACE, Steps
from .lark import GrammarWriter, one_of
from .parts import TurnPlan, TurnRequest, TurnTool
from .reader import TurnReader
from .reasoning import ReasoningMarks, opening, read_reasoning, reasoning_rule

_REASONING = ReasoningMarks("<|START_THINKING|>", "<|END_THINKING|>", gap="")
_ACTION, _END_ACTION = "<|START_ACTION|>", "<|END_ACTION|>"
_RESPONSE, _END_RESPONSE = "<|START_RESPONSE|>", "<|END_RESPONSE|>"
_TEXT, _END_TEXT = "<|START_TEXT|>", "<|END_TEXT|>"
_ANSWER_MARKS = (_RESPONSE, _END_RESPONSE, _TEXT, _END_TEXT)


@attrs.frozen
class CommandAFormat:
    """A ``TurnFormat``."""

    name: str = "command_a"
    response: str = _RESPONSE
    """What begins an answer; newer models have another mark."""

    def plan(self, request: TurnRequest) -> TurnPlan:
        marks = (_REASONING.begin, _REASONING.end, _ACTION, _END_ACTION, *_ANSWER_MARKS)
        controls = request.control_spellings
        script = functools.partial(self._read, request=request)
        names = frozenset(tool.name for tool in request.tools)
        return TurnPlan(
            grammar=self._grammar(request),
            shown_controls=frozenset(controls[mark] for mark in marks if mark in controls),
            make_parser=functools.partial(TurnReader, script, names),
        )

    def _grammar(self, request: TurnRequest) -> Grammar | None:
        if not request.tools and request.content is None:
            return None
        grammar = GrammarWriter(request.control_spellings)
        kinds = [] if request.must_call else [self._answer(grammar, request)]
        if request.tools:
            kinds.append(_calls(grammar, request))
        rest = grammar.rule("turn", one_of(kinds))
        if self._is_in_answer(request):
            return grammar.grammar(rest)
        start = opening(_REASONING, request.prompt_end)
        before = reasoning_rule(grammar, _REASONING, start, gap=False)
        return grammar.grammar(f"{before} {rest}".strip())

    def _answer(self, grammar: GrammarWriter, request: TurnRequest) -> str:
        begin, end = grammar.text(self.response), grammar.text(self._end_response)
        if request.content is not None:
            content = grammar.part(request.content)
            return (
                f"{content} {end}?" if self._is_in_answer(request) else f"{begin} {content} {end}?"
            )
        return f"{begin}? {grammar.free_text((_ACTION,))} {end}?"

    def _is_in_answer(self, request: TurnRequest) -> bool:
        return request.prompt_end.rstrip(SPACE).endswith(self.response)

    @property
    def _end_response(self) -> str:
        return self.response.replace("START", "END")

    def _read(self, reader: TurnReader, *, request: TurnRequest) -> Steps[None]:
        start = opening(_REASONING, request.prompt_end)
        if not self._is_in_answer(request):
            yield from read_reasoning(reader, _REASONING, start, split=request.split_reasoning)
        marks = (*_ANSWER_MARKS, _ACTION) if request.tools else _ANSWER_MARKS
        while (mark := (yield from reader.write_until(marks))) is not None:
            if mark == _ACTION:
                reader.begin_markup()
                yield from reader.expect(mark)
                yield from reader.incoming.take_space()
                yield from reader.call_list(name_keys=("tool_name",))
                yield from reader.end_mark(_END_ACTION)
            else:
                reader.incoming.take(len(mark))
                reader.skip_space()


def _calls(grammar: GrammarWriter, request: TurnRequest) -> str:
    head, tail = grammar.text('\n    {"tool_call_id": "'), grammar.text("}")
    bodies = one_of([_call(grammar, tool) for tool in request.tools])
    call = grammar.rule("call", f"{head} /[0-9]{{1,3}}/ {bodies} {tail}")
    more = f" ({grammar.text(',')} {call})*" if request.parallel else ""
    calls = f"{grammar.text('[')} {call}{more} {grammar.text(_CLOSE)}"
    if request.must_call or request.content is not None:
        return f"{grammar.text(_ACTION)} {calls}"
    return f"{grammar.text_until(_ACTION)} {calls}"


_CLOSE = f"\n]{_END_ACTION}"


def _call(grammar: GrammarWriter, tool: TurnTool) -> str:
    name = json.dumps(tool.name, ensure_ascii=False)
    head = grammar.text(f'", "tool_name": {name}, "parameters": ')
    return f"{head} {grammar.part(arguments_grammar(tool))}"


COMMAND_A = CommandAFormat()
COMMAND_A_TEXT = CommandAFormat(name="command_a_text", response=_TEXT)
