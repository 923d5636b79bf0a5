"""A compiled grammar, and where a sequence stands in it.

Theory of operation
-------------------
llguidance recognises words with an automaton that it builds while text arrives. Copies of a matcher
share it, under a lock of its own: what one request found out the next one knows, and a copy takes
microseconds. They also share its end. When one of them reaches a limit of the automaton, it is in
error for all. A state that fails therefore compiles the grammar anew for itself alone, takes its
tokens again, and tries once more: only who reaches the limit by itself has failed. The constraint
is ``spent`` then, and whoever asks for the grammar next gets a new one; likewise after so many
tokens that the automaton may have become large.
"""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import attrs
from llguidance import LLMatcher

from tgi_llama.errors import GenerationError
from tgi_llama.generation import TokenId

from .limits import MAX_ERROR_LENGTH, MAX_FORCED_BYTES, SLOW_STEP_S, GrammarLimits
from .vocabulary import GrammarVocabulary

T = TypeVar("T")

_MAX_TOKENS = 100_000
"""Tokens for which the automaton of one compiled grammar is used."""

_MOST_FORCED_BYTES = 4 * MAX_FORCED_BYTES
"""Grammars that may force more than a quarter of it force nothing. But a rule that needs itself may
add up to any length: the more, the more often it was chosen."""

_FAILED = "the grammar cannot be followed any further"

_MAX_REPAIR_S = 0.05
"""A grammar that took longer is not compiled again on the decode thread."""


def reason(matcher: LLMatcher) -> str:
    """The matcher's error, as ``readable``."""
    return readable(matcher.get_error())


def readable(error: str) -> str:
    """llguidance's error in few words, short enough to pass on."""
    text = error.replace("<non-verbose/>", "").partition("\n<backtrace>")[0].strip()
    text = text.replace("NoExtensionBias", "no token can continue the text")
    return text if len(text) <= MAX_ERROR_LENGTH else text[:MAX_ERROR_LENGTH] + "..."


def _is_shared(why: str) -> bool:
    """Whether the error is the automaton's, or that a panic left its lock unusable."""
    return why.startswith("lexer error") or "Poison" in why


@attrs.define(eq=False)
class LlConstraint:
    """Implements ``compiler.CompiledGrammar``; any thread. ``source`` is a list of grammars in
    llguidance's JSON."""

    source: str = attrs.field(repr=False)  # a client's, and not for logs
    vocabulary: GrammarVocabulary
    limits: GrammarLimits
    compile_s: float
    """Processor time that compiling took."""
    relaxed_paths: tuple[str, ...]
    forces: bool
    """False: the grammar engine was told to force nothing."""
    _matcher: LLMatcher
    """At the beginning. Never moved."""
    spent: bool = attrs.field(default=False, init=False)
    """Its automaton is in error or large: good for the states that have it, not for new ones."""
    is_broken: bool = attrs.field(default=False, init=False)
    """It is in error."""
    _n_tokens: int = attrs.field(default=0, init=False)

    def start(self) -> "LlGrammarState":
        return LlGrammarState(self, self._matcher.deep_copy())

    def compile_again(self) -> LLMatcher:
        """With an automaton of its own."""
        return LLMatcher(
            self.vocabulary.tokenizer,
            self.source,
            log_level=0,
            limits=self.limits.for_parser(),
        )

    def count_token(self) -> None:
        """Threads that count at the same time may lose a few, which does not matter."""
        self._n_tokens += 1
        if self._n_tokens >= _MAX_TOKENS:
            self.spent = True


@attrs.define(eq=False)
class LlGrammarState:
    """Implements ``generation.GrammarState``."""

    _constraint: LlConstraint = attrs.field(repr=False)
    _matcher: LLMatcher
    _taken: list[TokenId] = attrs.field(factory=list, init=False)
    _forced: Sequence[TokenId] | None = attrs.field(default=None, init=False)
    """None until they are asked for."""
    _complete: bool = attrs.field(init=False)
    _slow_s: float = attrs.field(default=0.0, init=False)
    _own: bool = attrs.field(default=False, init=False)
    """The automaton is not shared."""

    def __attrs_post_init__(self) -> None:
        self._complete = self._matcher.is_stopped()

    @property
    def is_complete(self) -> bool:
        return self._complete

    def allows(self, token: TokenId) -> bool:
        if self._complete:
            return token in self._constraint.vocabulary.end_tokens
        forced = self.forced()
        if forced:
            return token == forced[0]
        return self._do(lambda: self._matcher.validate_tokens([token])) == 1

    def fill_mask(self, address: int, n_bytes: int) -> None:
        """Bytes beyond the vocabulary's own, rounded up to 4, are left as they are."""
        n_used = (self._constraint.vocabulary.tokenizer.vocab_size + 31) // 32 * 4
        if n_bytes < n_used:
            raise ValueError(f"a mask of {n_bytes} bytes has no room for {n_used}")
        if not self._complete:
            # The matcher keeps them for its mask, and so does not tokenize without the lock.
            self.forced()
        self._do(lambda: self._matcher.unsafe_compute_mask_ptr(address, n_used))

    def forced(self) -> Sequence[TokenId]:
        if self._forced is None:
            is_asked = self._constraint.forces and not self._complete
            tokens = self._do(self._compute_forced) if is_asked else ()
            self._forced = tuple(map(TokenId, tokens))
        return self._forced

    def _compute_forced(self) -> Sequence[int]:
        n_bytes = len(self._matcher.compute_ff_bytes())
        if n_bytes > _MOST_FORCED_BYTES:
            raise GenerationError(f"{_FAILED}: it forces a text of {n_bytes} bytes at once")
        return self._matcher.compute_ff_tokens() if n_bytes else ()

    def take(self, token: TokenId) -> None:
        self._do(lambda: self._matcher.consume_token(token))
        self._taken.append(token)
        self._constraint.count_token()
        self._forced = None
        self._complete = self._matcher.is_stopped()

    def _do(self, step: Callable[[], T]) -> T:
        """Makes a step, a second time with an automaton of its own where the shared one failed."""
        if self._constraint.is_broken and not self._own:
            # Not every step notices: to a broken automaton no token is valid.
            self._repair("another request has reached a limit of its automaton")
        result = self._timed(step)
        if not self._matcher.is_error():
            return result
        why = reason(self._matcher)
        if not _is_shared(why):
            raise GenerationError(f"{_FAILED}: {why}")
        self._repair(why)
        result = self._timed(step)
        if self._matcher.is_error():
            raise GenerationError(f"{_FAILED}: {reason(self._matcher)}")
        return result

    def _timed(self, step: Callable[[], T]) -> T:
        started = time.thread_time()
        result = step()
        seconds = time.thread_time() - started
        if seconds > SLOW_STEP_S:
            self._count_slow(seconds)
        return result

    def _count_slow(self, seconds: float) -> None:
        self._slow_s += seconds
        if self._slow_s > self._constraint.limits.max_slow_s:
            raise GenerationError(
                f"{_FAILED}: finding out what may come next took {self._slow_s:.1f} s so far"
            )

    def _repair(self, why: str) -> None:
        """Goes on with an automaton of its own. Raises GenerationError where it cannot."""
        constraint = self._constraint
        constraint.is_broken = constraint.spent = True
        if self._own or constraint.compile_s > _MAX_REPAIR_S:
            raise GenerationError(f"{_FAILED}: {why}")
        self._own = True
        self._matcher = constraint.compile_again()
        if not self._matcher.consume_tokens(list(self._taken)):
            raise GenerationError(f"{_FAILED}: {reason(self._matcher)}")
