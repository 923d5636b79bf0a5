"""From a grammar to a constraint. A protocol for those who only use it; ``llguidance`` does it in
``structured/ll_compiler.py``."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from tgi_llama.generation import Constraint

from .grammar import Grammar

_compiles: ContextVar[bool] = ContextVar("compiles", default=True)


class CompiledGrammar(Constraint, Protocol):
    @property
    def relaxed_paths(self) -> tuple[str, ...]:
        """JSON paths of schema keywords that are not enforced; empty unless that was asked for."""
        ...


class GrammarCompiler(Protocol):
    """Thread-safe; called on validation workers."""

    def compile(self, grammar: Grammar) -> CompiledGrammar:
        """Within limits of time and size. Raises ValidationError that names the field, and within a
        schema the JSON path of what cannot be enforced, is unsatisfiable or is too complex; and
        GrammarNotCompiled where it would take time that the caller has not (``known_only``)."""
        ...


@contextmanager
def known_only() -> Iterator[None]:
    """Inside, on this thread, grammars are not compiled: those that are known come at once."""
    token = _compiles.set(False)
    try:
        yield
    finally:
        _compiles.reset(token)


def may_compile() -> bool:
    """Whether the caller is not inside of ``known_only``."""
    return _compiles.get()
