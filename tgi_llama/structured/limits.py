"""How much a grammar may cost: when it is compiled, and at every token that it constrains.

The numbers were found by measurement (docs/structured-limits.md). What llguidance counts
as fuel and items is deterministic, so that a grammar that is refused is refused on every machine.
"""

from typing import TypedDict

import attrs
from llguidance import LLParserLimits

MAX_FORCED_BYTES = 16_384
"""Longest text that a grammar may force at once: it is tokenized in one go on the decode thread,
which takes 0.4 ms for 1,000 bytes. Where a grammar might force more, nothing is forced."""

MAX_ERROR_LENGTH = 512
"""Characters of the grammar engine's error text that are passed on: it quotes grammars."""

SLOW_STEP_S = 0.01
"""A step of the grammar that takes longer is slow. A mask usually takes less than 0.0001 s."""


class ParserArguments(TypedDict):
    """Of ``LLParserLimits``."""

    max_items_in_row: int
    initial_lexer_fuel: int
    step_lexer_fuel: int
    step_max_items: int
    max_lexer_states: int
    max_grammar_size: int
    verbose_errors: bool


@attrs.frozen(kw_only=True)
class GrammarLimits:
    max_bytes: int = 262_144
    """Of a request's grammar, in UTF-8: all schemas of its tools together."""
    initial_lexer_fuel: int = 500_000
    """About 50,000 a millisecond."""
    step_lexer_fuel: int = 50_000
    """About 14,000 a millisecond."""
    step_max_items: int = 20_000
    """About 20,000 a millisecond."""
    max_items_in_row: int = 2_000
    max_lexer_states: int = 20_000
    """1 to 2 kB each, for all requests that share a compiled grammar."""
    max_grammar_size: int = 200_000

    max_compile_s: float = 0.3
    """Processor time, as a trial in another process took it."""
    max_slow_s: float = 0.3
    """Processor time that one sequence's slow steps may take: see ``SLOW_STEP_S``."""

    def for_parser(self) -> LLParserLimits:
        return LLParserLimits(**self.for_parser_dict())

    def for_parser_dict(self) -> ParserArguments:
        return {
            "max_items_in_row": self.max_items_in_row,
            "initial_lexer_fuel": self.initial_lexer_fuel,
            "step_lexer_fuel": self.step_lexer_fuel,
            "step_max_items": self.step_max_items,
            "max_lexer_states": self.max_lexer_states,
            "max_grammar_size": self.max_grammar_size,
            "verbose_errors": False,  # they would quote the grammar in logs
        }
