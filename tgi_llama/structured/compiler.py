"""From a grammar to a constraint. A protocol for those who only use it; ``llguidance`` does it in
``structured/engine.py``."""

from typing import Protocol

from tgi_llama.generation import Constraint

from .grammar import Grammar


class CompiledGrammar(Constraint, Protocol):
    @property
    def relaxed_paths(self) -> tuple[str, ...]:
        """JSON paths of schema keywords that are not enforced; empty unless that was asked for."""
        ...


class GrammarCompiler(Protocol):
    """Thread-safe; called on validation workers."""

    def compile(self, grammar: Grammar) -> CompiledGrammar:
        """Within limits of time and size. Raises ValidationError that names the field, and within a
        schema the JSON path of what cannot be enforced, is unsatisfiable or is too complex."""
        ...
