"""A grammar compiler that only remembers, and the turns of a model that reasons and calls tools."""

from collections.abc import Callable

import attrs

from tgi_llama.generation import GrammarState
from tgi_llama.structured.compiler import CompiledGrammar
from tgi_llama.structured.grammar import Grammar
from tgi_llama.turns.detection import turn_format
from tgi_llama.turns.parts import TurnFormat
from tgi_llama.validation.constraints import Constraints


@attrs.frozen
class RememberedConstraint:
    """What it was compiled from. Never started: the scripted engine says what is generated."""

    grammar: Grammar
    relaxed_paths: tuple[str, ...] = ()

    def start(self) -> GrammarState:
        raise NotImplementedError


@attrs.define(eq=False)
class RememberingCompiler:
    relaxed_paths: tuple[str, ...] = ()
    on_compile: Callable[[], None] = lambda: None
    """Called on the worker, before each grammar is compiled."""
    grammars: list[Grammar] = attrs.field(factory=list)

    def compile(self, grammar: Grammar) -> CompiledGrammar:
        self.on_compile()
        self.grammars.append(grammar)
        return RememberedConstraint(grammar, self.relaxed_paths)


HERMES = turn_format(["<tool_call></tool_call>"], [])
THINKING_HERMES = turn_format(["<think></think><tool_call></tool_call>"], [])


def constraints(
    turns: TurnFormat | None = HERMES, compiler: RememberingCompiler | None = None
) -> Constraints:
    return Constraints(compiler=compiler or RememberingCompiler(), turn_format=turns)
