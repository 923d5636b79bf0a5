"""The turns of gpt-oss: messages with a header each, for the channels of harmony.

What goes to ``analysis`` is reasoning; to ``final``, and to ``commentary`` without a recipient,
content; what has a recipient is a call, and ends the turn. So there is one call in a turn.
"""

import functools

import attrs

from tgi_llama.structured.grammar import Grammar

from .formats import arguments_grammar
from .harmony_reader import (
    CHANNEL,
    CONSTRAIN,
    END,
    ENDS,
    MARKS,
    MESSAGE,
    START,
    HarmonyScript,
    Header,
    open_header,
)
from .lark import GrammarWriter, one_of
from .parts import TurnPlan, TurnRequest, TurnTool
from .reader import TurnReader

_NEXT = f"{START}assistant"
"""Between two messages of a turn."""


@attrs.frozen
class HarmonyFormat:
    """A ``TurnFormat``."""

    name: str = "harmony"

    def plan(self, request: TurnRequest) -> TurnPlan:
        controls = request.control_spellings
        opened = open_header(request.prompt_end)
        script = functools.partial(HarmonyScript, request, opened)
        names = frozenset(tool.name for tool in request.tools)
        return TurnPlan(
            grammar=_grammar(request, opened),
            shown_controls=frozenset(controls[mark] for mark in MARKS if mark in controls),
            make_parser=lambda: TurnReader(script(), names),
        )


def _grammar(request: TurnRequest, opened: Header | None) -> Grammar | None:
    """Messages for the model itself, as many as it likes, then a call or the answer; before them
    the rest of a message that the prompt left open."""
    if not request.tools and request.content is None:
        return None
    grammar = GrammarWriter(request.control_spellings)
    if opened is None:
        return grammar.grammar(_messages(grammar, request))
    if opened.channel == "final" and not request.must_call:
        return grammar.grammar(_body(grammar, request))
    rest = f"{_text_to_end(grammar)} {grammar.text(_NEXT)}"
    return grammar.grammar(f"{rest} {_messages(grammar, request)}")


def _messages(grammar: GrammarWriter, request: TurnRequest) -> str:
    kinds = [_call(grammar, tool) for tool in request.tools]
    if not request.must_call:
        kinds.append(_answer(grammar, request))
    last = grammar.rule("last", one_of(kinds))
    speaks_before = not request.must_call and request.content is None
    channels = ("analysis", "commentary") if speaks_before else ("analysis",)
    channel = one_of([grammar.text(name) for name in channels])
    header = f"{grammar.text(CHANNEL)} {channel} {grammar.text(MESSAGE)}"
    before = grammar.rule("before", f"{header} {_text_to_end(grammar)} {grammar.text(_NEXT)}")
    return f"{before}* {last}"


def _text_to_end(grammar: GrammarWriter) -> str:
    """Spelled out, the marks of a next message would end this one."""
    text, end = grammar.free_text(ENDS), grammar.text(END)
    return f"{text} {end}" if grammar.is_control(END) else grammar.lazy(f"{text} {end}")


def _answer(grammar: GrammarWriter, request: TurnRequest) -> str:
    header = f"{grammar.text(CHANNEL)} {grammar.text('final')} {grammar.text(MESSAGE)}"
    return f"{header} {_body(grammar, request)}"


def _body(grammar: GrammarWriter, request: TurnRequest) -> str:
    if request.content is not None:
        return grammar.part(request.content)
    return grammar.free_text(ENDS)


def _call(grammar: GrammarWriter, tool: TurnTool) -> str:
    """Models put the recipient behind the channel, templates before it. A mark is a terminal of its
    own wherever it stands, also where it is no token: llguidance does not go back behind one."""
    recipient, channel = f" to=functions.{tool.name}", grammar.text(CHANNEL)
    headers = one_of(
        [
            f"{channel} {grammar.text(f'commentary{recipient}')}",
            f"{grammar.text(recipient)} {channel} {grammar.text('commentary')}",
        ]
    )
    constrained = grammar.text(f"{CONSTRAIN}json")
    content_type = f'(" "? {constrained} | " json")?'
    arguments = grammar.part(arguments_grammar(tool))
    return f"{headers} {content_type} {grammar.text(MESSAGE)} {arguments}"
