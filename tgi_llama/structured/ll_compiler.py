"""Grammars compiled by llguidance, within limits and once for all who ask for the same."""

import hashlib
import json
import time
from collections.abc import Callable

import attrs
from llguidance import LLMatcher

from tgi_llama.errors import GrammarNotCompiled, ValidationError
from tgi_llama.generation import GrammarOutcome

from .cache import CompiledCache
from .compiler import CompiledGrammar, may_compile
from .grammar import (
    ChoiceGrammar,
    CompositeGrammar,
    Grammar,
    JsonSchemaGrammar,
    LarkGrammar,
    RegexGrammar,
)
from .source import Part, Source, translate
from .state import LlConstraint, readable, reason
from .trial import TooCostly, Trial
from .vocabulary import GrammarVocabulary

Observe = Callable[[GrammarOutcome, float], None]
"""Told what became of a call of ``compile``, and for how many seconds its caller waited."""


def _ignore(_outcome: GrammarOutcome, _seconds: float) -> None:
    pass


@attrs.frozen
class _Refused:
    """An error to keep: asking again costs nothing."""

    message: str
    field: str | None
    outcome: GrammarOutcome


class _Costly(ValidationError):
    """Refused for what it costs."""

    def __init__(self, message: str, *, field: str | None, outcome: GrammarOutcome) -> None:
        super().__init__(message, field=field)
        self.outcome = outcome


class _TooSlowToday(_Costly):
    """For the time that it took, which is the machine's fault as well: not to be remembered."""


@attrs.frozen(eq=False)
class LlGrammarCompiler:
    """Implements ``compiler.GrammarCompiler``."""

    vocabulary: GrammarVocabulary
    trial: Trial
    """Whose limits are the compiler's; the caller closes it."""
    relaxed: bool = attrs.field(default=False, kw_only=True)
    """Leave out what cannot be enforced of schemas, and say so: ``relaxed_paths``."""
    cache_size: int = attrs.field(default=64, kw_only=True)
    """Compiled grammars to keep."""
    observe: Observe = attrs.field(default=_ignore, kw_only=True)
    """Told after every call, on the caller's thread."""
    _cache: "CompiledCache[LlConstraint | _Refused]" = attrs.field(init=False)

    @_cache.default
    def _make_cache(self) -> "CompiledCache[LlConstraint | _Refused]":
        return CompiledCache(
            self.cache_size,
            max_bytes=16 * self.trial.limits.max_bytes,
            is_usable=lambda made: isinstance(made, _Refused) or not made.spent,
        )

    def compile(self, grammar: Grammar) -> CompiledGrammar:
        started = time.perf_counter()
        content = _content(grammar)
        key = hashlib.sha256(content).digest()
        if not may_compile() and key not in self._cache:
            raise GrammarNotCompiled
        try:
            made, found = self._cache.get(
                key, lambda: self._make(grammar, len(content)), n_bytes=len(content)
            )
        except _TooSlowToday as error:
            self.observe(error.outcome, time.perf_counter() - started)
            raise ValidationError(str(error), field=error.field) from None
        self.observe(_outcome(made, found=found), time.perf_counter() - started)
        if isinstance(made, _Refused):
            raise ValidationError(made.message, field=made.field)
        return made

    def _make(self, grammar: Grammar, n_bytes: int) -> LlConstraint | _Refused:
        try:
            self._check_size(n_bytes, grammar)
            started = time.perf_counter()
            source = translate(grammar, relaxed=self.relaxed)
            self._try(source, spent_s=time.perf_counter() - started)
            return self._compile(source)
        except _TooSlowToday:
            raise
        except _Costly as error:
            return _Refused(str(error), error.field, error.outcome)
        except ValidationError as error:
            return _Refused(str(error), error.field, GrammarOutcome.INVALID)

    def _check_size(self, n_bytes: int, grammar: Grammar) -> None:
        limit = self.trial.limits.max_bytes
        if n_bytes > limit:
            raise _Costly(
                f"grammar is too large: at most {limit} bytes are allowed. Given: {n_bytes}",
                field=_first_field(grammar),
                outcome=GrammarOutcome.TOO_LARGE,
            )

    def _compile(self, source: Source) -> LlConstraint:
        started = time.thread_time()
        matcher = self._matcher(source.text)
        if matcher.is_error():
            raise self._error(source, matcher)
        return LlConstraint(
            source.text,
            self.vocabulary,
            self.trial.limits,
            compile_s=time.thread_time() - started,
            relaxed_paths=source.relaxed_paths,
            forces=source.forces,
            matcher=matcher,
        )

    def _try(self, source: Source, *, spent_s: float) -> None:
        """Refuses what a trial finds wrong or too costly."""
        try:
            verdict = self.trial.judge(source.trial_text, spent_s=spent_s)
        except TooCostly as error:
            raise self._too_complex(source, str(error), kind=_TooSlowToday) from None
        if verdict is None:
            return
        limit_s = self.trial.limits.max_compile_s
        if verdict.compile_s > limit_s:
            raise self._too_complex(
                source, f"compiling it takes {verdict.compile_s:.2f} s, more than {limit_s:g} s"
            )
        if verdict.compiled and "NoExtension" in verdict.error:
            raise ValidationError(
                "grammar is not valid: no text satisfies it, or a part of it leads nowhere",
                field=source.first_field,
            )
        if verdict.compiled and verdict.error:
            raise self._too_complex(source, readable(verdict.error))

    @staticmethod
    def _too_complex(source: Source, why: str, *, kind: type[_Costly] = _Costly) -> _Costly:
        return kind(
            f"grammar is too complex: {why}",
            field=source.first_field,
            outcome=GrammarOutcome.TOO_COMPLEX,
        )

    def _matcher(self, text: str) -> LLMatcher:
        """At the beginning, or in error: also where nothing can follow the beginning, or finding
        out what can takes too much."""
        matcher = LLMatcher(
            self.vocabulary.tokenizer, text, log_level=0, limits=self.trial.limits.for_parser()
        )
        if matcher.is_error():
            return matcher
        matcher.consume_tokens([])  # notices that nothing may follow
        probe = matcher.deep_copy()
        if not probe.is_stopped():
            probe.compute_bitmask()
        return probe if probe.is_error() else matcher

    def _error(self, source: Source, matcher: LLMatcher) -> ValidationError:
        """Names the field of the part that is wrong by itself."""
        for part in source.parts:
            if part.field is not None and (why := self._fault(part)):
                return ValidationError(f"grammar is not valid: {why}", field=part.field)
        return ValidationError(f"grammar is not valid: {reason(matcher)}", field=source.first_field)

    def _fault(self, part: Part) -> str | None:
        matcher = self._matcher(part.as_source())
        return reason(matcher) if matcher.is_error() else None


def _outcome(made: LlConstraint | _Refused, *, found: bool) -> GrammarOutcome:
    if isinstance(made, _Refused):
        return made.outcome
    return GrammarOutcome.CACHED if found else GrammarOutcome.COMPILED


def _content(grammar: Grammar) -> bytes:
    """Everything that the result depends on, the fields that errors name included."""
    return json.dumps(_plain(grammar), ensure_ascii=False).encode("utf-8", "surrogatepass")


def _plain(value: Grammar) -> object:
    """Lists and JSON values instead of grammars."""
    match value:
        case JsonSchemaGrammar():
            return ["schema", value.schema, value.field]
        case RegexGrammar():
            return ["regex", value.pattern, value.field]
        case ChoiceGrammar():
            return ["choice", value.choices, value.field]
        case LarkGrammar():
            return ["lark", value.text, value.field]
        case CompositeGrammar():
            return ["composite", value.lark, [(name, _plain(part)) for name, part in value.parts]]


def _first_field(grammar: Grammar) -> str | None:
    """Of the whole, or of what it is made of."""
    if not isinstance(grammar, CompositeGrammar):
        return grammar.field
    return next((field for _, part in grammar.parts if (field := _first_field(part))), None)
