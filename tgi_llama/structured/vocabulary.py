"""The model's vocabulary as the grammar engine sees it. A protocol: ``llama`` reads it."""

from typing import Protocol

from llguidance import LLTokenizer


class GrammarVocabulary(Protocol):
    """Immutable, any thread."""

    @property
    def tokenizer(self) -> LLTokenizer:
        """Valid while this object lives."""
        ...

    @property
    def end_tokens(self) -> frozenset[int]:
        """All tokens that end a generation."""
        ...
