"""A grammar compiler that only remembers, and the turns of a model that reasons and calls tools."""

import attrs

from tgi_llama.generation import Constraint, GrammarState
from tgi_llama.structured.grammar import Grammar
from tgi_llama.turns.detection import turn_format
from tgi_llama.turns.parts import TurnFormat
from tgi_llama.validation.constraints import Constraints


@attrs.frozen
class RememberedConstraint:
    """What it was compiled from. Never started: the scripted engine says what is generated."""

    grammar: Grammar

    def start(self) -> GrammarState:
        raise NotImplementedError


@attrs.define(eq=False)
class RememberingCompiler:
    grammars: list[Grammar] = attrs.field(factory=list)

    def compile(self, grammar: Grammar) -> Constraint:
        self.grammars.append(grammar)
        return RememberedConstraint(grammar)


HERMES = turn_format(["<tool_call></tool_call>"], [])
THINKING_HERMES = turn_format(["<think></think><tool_call></tool_call>"], [])


def constraints(
    turns: TurnFormat | None = HERMES, compiler: RememberingCompiler | None = None
) -> Constraints:
    return Constraints(compiler=compiler or RememberingCompiler(), turn_format=turns)
