"""Not a fake: a vocabulary with its grammar compiler, and ways to try texts on a grammar."""

import random

import attrs
import numpy as np

from tgi_llama.errors import GenerationError, ValidationError
from tgi_llama.generation import Constraint, GrammarState, TokenId
from tgi_llama.llama.vocab import Vocab
from tgi_llama.structured.grammar import Grammar
from tgi_llama.structured.ll_compiler import LlGrammarCompiler
from tgi_llama.structured.trial import Trial
from tgi_llama.structured.vocabulary import GrammarVocabulary


@attrs.frozen(eq=False)
class Bench:
    vocab: Vocab
    grammar_vocabulary: GrammarVocabulary
    trial: Trial
    compiler: LlGrammarCompiler = attrs.field(init=False)

    @compiler.default
    def _make_compiler(self) -> LlGrammarCompiler:
        return LlGrammarCompiler(self.grammar_vocabulary, self.trial)

    @property
    def end_tokens(self) -> list[TokenId]:
        return sorted(map(TokenId, self.grammar_vocabulary.end_tokens))

    def tokens(self, text: str) -> list[TokenId]:
        """Without the space that SentencePiece puts before a text."""
        ids = self.vocab.encode("\x01" + text, add_special=False, parse_special=False)
        start = next(i for i in range(len(ids)) if self.vocab.piece(ids[i]).endswith(b"\x01"))
        return ids[start + 1 :]

    def accepts(self, grammar: Grammar, text: str) -> bool:
        """Whether the whole text may be generated."""
        state = self.compiler.compile(grammar).start()
        try:
            for token in self.tokens(text):
                state.take(token)
        except GenerationError:
            return False
        return state.is_complete or state.allows(self.end_tokens[0])

    def answer(self, grammar: Grammar) -> tuple[Constraint | None, ValidationError | None]:
        """The one or the other."""
        try:
            return self.compiler.compile(grammar), None
        except ValidationError as error:
            return None, error

    def refusal(self, grammar: Grammar) -> ValidationError:
        constraint, error = self.answer(grammar)
        assert constraint is None
        assert error is not None
        return error

    def mask(self, state: GrammarState) -> set[int]:
        return set(self.allowed(state).tolist())

    def allowed(self, state: GrammarState) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
        """Ids in order."""
        n_words = (self.vocab.n_vocab + 31) // 32
        words = np.zeros(n_words, np.uint32)
        state.fill_mask(words.ctypes.data, words.nbytes)
        bits = np.unpackbits(words.view(np.uint8), bitorder="little")
        return np.flatnonzero(bits)

    def text(self, tokens: list[TokenId]) -> str:
        return b"".join(self.vocab.piece(token) for token in tokens).decode()

    def generate(self, state: GrammarState, rng: random.Random, *, max_tokens: int) -> str | None:
        """A random text by the masks; None where it would be longer."""
        taken: list[TokenId] = []
        while not state.is_complete:
            allowed = self.allowed(state)
            if len(taken) == max_tokens:
                return None
            token = TokenId(int(allowed[rng.randrange(len(allowed))]))
            state.take(token)
            if token in self.grammar_vocabulary.end_tokens:
                break
            taken.append(token)
        return self.text(taken)
