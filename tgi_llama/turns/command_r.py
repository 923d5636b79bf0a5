"""Command R's and R+'s way of calling tools: ``Action:`` and a fenced list of calls. The prompt
tells the model to call ``directly-answer`` where no tool is needed; what follows that is the
answer."""

import json

import attrs

from .formats import arguments_grammar, next_mark
from .incoming import Steps
from .lark import GrammarWriter, one_of
from .parts import TurnRequest, TurnTool
from .reader import TurnReader

_ACTION = "Action:"
_FENCE = "```"
_NO_TOOL = ("directly_answer", "directly-answer")
_ANSWER = "Answer:"
_INDENT = "    "


@attrs.frozen
class CommandRCalls:
    name: str = "command_r"
    marks: tuple[str, ...] = ()

    def rule(self, grammar: GrammarWriter, request: TurnRequest) -> str:
        call = grammar.rule("call", one_of([_call(grammar, tool) for tool in request.tools]))
        head, tail = grammar.text("\n["), grammar.text(f"\n]{_FENCE}")
        more = f" ({grammar.text(',')} {call})*" if request.parallel else ""
        calls = grammar.rule("calls", f"{head} {call}{more} {tail}")
        begin = grammar.text(f"{_ACTION} {_FENCE}json")
        if request.must_call:
            return f"{begin} {calls}"
        if request.content is not None:
            return f"{grammar.part(request.content)} | {begin} {calls}"
        direct = one_of([grammar.text(_head(name) + "{}" + _TAIL) for name in _NO_TOOL])
        label = grammar.text(f"\n{_ANSWER} ")
        answer = f"{head} {direct} {tail} {label} /(?s:.+)/"
        opened = grammar.lazy(rf"/(?s:.*){_ACTION}[ \n]*{_FENCE}json/")
        return f"/(?s:.*)/ | {opened} ({calls} | {answer})"

    def read(self, reader: TurnReader, request: TurnRequest) -> Steps[None]:
        skipped = {*_NO_TOOL} - {tool.name for tool in request.tools}
        while (yield from next_mark(reader, request, (_ACTION,))) is not None:
            reader.begin_markup()
            yield from reader.expect(_ACTION)
            yield from reader.incoming.take_space()
            if not (yield from reader.incoming.takes(f"{_FENCE}json")):
                reader.incoming.give_back()
                reader.write(reader.incoming.take(len(_ACTION)))
                continue
            yield from reader.incoming.take_space()
            n_calls = reader.n_calls
            yield from reader.call_list(name_keys=("tool_name",), skipped=skipped)
            yield from reader.end_mark(_FENCE)
            reader.incoming.forget()
            reader.skip_space()
            if reader.n_calls == n_calls:
                yield from reader.optional_mark(_ANSWER)


def _head(name: str) -> str:
    """The beginning of a call, in the layout in which templates show earlier calls."""
    keys = _INDENT * 2
    return (
        f'\n{_INDENT}{{\n{keys}"tool_name": {json.dumps(name, ensure_ascii=False)},'
        f'\n{keys}"parameters": '
    )


_TAIL = f"\n{_INDENT}}}"


def _call(grammar: GrammarWriter, tool: TurnTool) -> str:
    arguments = grammar.part(arguments_grammar(tool))
    return f"{grammar.text(_head(tool.name))} {arguments} {grammar.text(_TAIL)}"
