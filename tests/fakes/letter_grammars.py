"""Grammars for tests: by a function of what was generated, and real ones by llguidance."""

import ctypes
import functools
import threading
from collections.abc import Callable, Set
from collections.abc import Sequence as Seq

import attrs
import numpy as np
from fakes.runner import EOS, FakeVocabulary
from llguidance import LLMatcher, LLTokenizer

from tgi_llama.errors import GenerationError
from tgi_llama.generation import TokenId

N_VOCAB = 64

Rule = Callable[[tuple[int, ...]], Set[int]]
"""From the tokens so far to those that may come next. Only ``EOS``: the text is complete. None at
all: a dead end."""


@attrs.frozen(eq=False)
class RuleGrammar:
    """A ``Constraint`` that knows no text. ``before_mask`` is called on the thread that computes
    masks, with what was generated, and may raise."""

    rule: Rule
    before_mask: Callable[[tuple[int, ...]], None] = lambda _tokens: None
    n_vocab: int = N_VOCAB

    def start(self) -> "RuleState":
        return RuleState(self)


@attrs.define(eq=False)
class RuleState:
    grammar: RuleGrammar
    tokens: tuple[int, ...] = ()
    users: list[int] = attrs.field(factory=list)
    """The thread that computed each mask."""

    @property
    def is_complete(self) -> bool:
        return self._allowed == {EOS}

    def allows(self, token: TokenId) -> bool:
        return token in self._allowed

    def fill_mask(self, address: int, n_bytes: int) -> None:
        self.users.append(threading.get_ident())
        self.grammar.before_mask(self.tokens)
        assert n_bytes == -(-self.grammar.n_vocab // 32) * 4, "llguidance takes no other size"
        write_mask(address, n_bytes, self._allowed)

    def forced(self) -> Seq[TokenId]:
        tokens = self.tokens
        while len(allowed := self.grammar.rule(tokens)) == 1 and allowed != {EOS}:
            tokens += tuple(allowed)
        return [TokenId(token) for token in tokens[len(self.tokens) :]]

    def take(self, token: TokenId) -> None:
        if token not in self._allowed:
            raise GenerationError(f"the grammar refuses token {token}")
        self.tokens += (token,)

    @property
    def _allowed(self) -> Set[int]:
        return self.grammar.rule(self.tokens)


def write_mask(address: int, n_bytes: int, allowed: Set[int]) -> None:
    marks = np.zeros(8 * n_bytes, dtype=np.bool_)
    marks[list(allowed)] = True
    ctypes.memmove(address, np.packbits(marks, bitorder="little").tobytes(), n_bytes)


LETTERS = '{}[]":,.-+ 0123456789abcdefghijklmnopqrstuvwxyz_'


def letter_vocabulary() -> FakeVocabulary:
    """Each token from 2 on is another character; some are left over, and are the byte 255."""
    pieces = {2 + place: letter.encode() for place, letter in enumerate(LETTERS)}
    left_over = dict.fromkeys(range(2 + len(LETTERS), N_VOCAB), b"\xff")
    return FakeVocabulary(n_vocab=N_VOCAB, pieces=pieces | left_over)


class _Letters:
    """What ``LLTokenizer`` wants to know of the letter vocabulary."""

    is_tokenizer_wrapper = True
    eos_token_id = EOS
    bos_token_id = None
    special_token_ids = (0, 1)

    def __init__(self) -> None:
        vocabulary = letter_vocabulary()
        pieces = [vocabulary.piece(TokenId(token)) for token in range(N_VOCAB)]
        self.tokens = [b"" if piece == b"\xff" else piece for piece in pieces]

    def __call__(self, text: bytes | str) -> list[int]:
        text = text.decode() if isinstance(text, bytes) else text
        return [2 + LETTERS.index(letter) for letter in text]


@functools.cache
def letter_tokenizer() -> LLTokenizer:
    return LLTokenizer(_Letters(), n_vocab=N_VOCAB)


def schema_grammar(schema: str) -> str:
    return LLMatcher.grammar_from_json_schema(schema, {"whitespace_flexible": False})


class RealGrammar:
    """A ``Constraint`` by llguidance."""

    def __init__(self, grammar: str, tokenizer: LLTokenizer | None = None) -> None:
        self._matcher = LLMatcher(tokenizer or letter_tokenizer(), grammar)
        assert not self._matcher.is_error(), self._matcher.get_error()

    @classmethod
    def of_regex(cls, regex: str) -> "RealGrammar":
        return cls(LLMatcher.grammar_from_regex(regex))

    @classmethod
    def of_schema(cls, schema: str) -> "RealGrammar":
        return cls(schema_grammar(schema))

    def start(self) -> "RealState":
        return RealState(self._matcher.deep_copy())


class RealState:
    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    @property
    def is_complete(self) -> bool:
        return self._matcher.is_stopped()

    def allows(self, token: TokenId) -> bool:
        return self._matcher.validate_tokens([token]) == 1

    def fill_mask(self, address: int, n_bytes: int) -> None:
        self._matcher.unsafe_compute_mask_ptr(address, n_bytes)
        self._check()

    def forced(self) -> list[TokenId]:
        return [TokenId(token) for token in self._matcher.compute_ff_tokens()]

    def take(self, token: TokenId) -> None:
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise GenerationError(self._matcher.get_error())
