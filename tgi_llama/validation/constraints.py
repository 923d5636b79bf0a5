"""What the text of a generation must be like, and how it is read: from the grammars that clients
ask for and the model's way of marking tool calls and reasoning. Immutable, any thread.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import attrs

from tgi_llama.generation import TokenId
from tgi_llama.structured.compiler import GrammarCompiler
from tgi_llama.structured.grammar import Grammar
from tgi_llama.turns.parts import TurnFormat, TurnRequest
from tgi_llama.wire.openai_requests import ChatRequest

from .prepared import PreparedGeneration
from .rules import reject, reject_unsupported
from .tools import ToolUse

_PROMPT_END = 65_536
"""Characters of a prompt's end that a format is shown: what a template writes after the last
message, and of a message that is to be continued what may be longer than its header."""


@attrs.frozen(kw_only=True)
class Constraints:
    compiler: GrammarCompiler | None = None
    """None: grammars are refused."""
    turn_format: TurnFormat | None = None
    """None: tools are refused, and the text of a chat's answer is its content."""
    control_spellings: Mapping[str, int] = attrs.field(factory=dict)
    """The vocabulary's control tokens, by spelling."""
    splits_reasoning: bool = True
    """Where the request does not say it."""

    @property
    def tool_format(self) -> str | None:
        """How tool calls are written and read; None where none are taken."""
        if self.compiler is None or self.turn_format is None:
            return None
        return self.turn_format.name

    def check_tools(self, use: ToolUse) -> None:
        """Raises ValidationError where there are tools that cannot be called."""
        if use.tools and self.turn_format is None:
            reject_unsupported("tools", field="tools")

    def constrained(
        self, prepared: PreparedGeneration, grammar: Grammar | None
    ) -> PreparedGeneration:
        """The generation with this grammar. Raises ValidationError, in TGI's words (rule 18) where
        there is no compiler."""
        (constrained,) = self.all_constrained([prepared], grammar)
        return constrained

    def all_constrained(
        self, prepared: Sequence[PreparedGeneration], grammar: Grammar | None
    ) -> Sequence[PreparedGeneration]:
        """The same for several that share a grammar."""
        if grammar is None:
            return prepared
        if self.compiler is None:
            reject("grammar is not supported", field=_field(grammar))
        compiled = self.compiler.compile(grammar)
        return [
            attrs.evolve(
                one,
                request=attrs.evolve(one.request, constraint=compiled),
                relaxed_paths=compiled.relaxed_paths,
            )
            for one in prepared
        ]

    def turn(
        self,
        prepared: PreparedGeneration,
        request: ChatRequest,
        use: ToolUse,
        content: Grammar | None,
    ) -> PreparedGeneration:
        """The generation as a turn of a chat. Raises as ``constrained``."""
        if self.turn_format is None:
            return self.constrained(prepared, content)
        plan = self.turn_format.plan(
            TurnRequest(
                tools=use.tools,
                must_call=use.must_call,
                parallel=use.parallel,
                content=content,
                split_reasoning=self._splits_reasoning(request),
                prompt_end=prepared.prompt[-_PROMPT_END:],
                control_spellings=self.control_spellings,
            )
        )
        shown = cast("frozenset[TokenId]", plan.shown_controls)
        planned = attrs.evolve(
            prepared,
            request=attrs.evolve(prepared.request, shown_controls=shown),
            make_parser=plan.make_parser,
        )
        return self.constrained(planned, plan.grammar)

    def _splits_reasoning(self, request: ChatRequest) -> bool:
        if request.reasoning_format is None:
            return self.splits_reasoning
        return request.reasoning_format != "none"


def _field(grammar: Grammar) -> str:
    """Where the client asked for it; a turn's own grammar is there for the tools."""
    return getattr(grammar, "field", "tools")
