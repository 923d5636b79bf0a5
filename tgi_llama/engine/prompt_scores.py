"""What the model thinks of a prompt: the log-probability of each of its tokens. Decode thread only.

The logits after a token say how likely the next one was, so a chunk of n tokens needs n rows of
logits, and the first token of a prompt has no logprob. Rows are taken one at a time: what stays of
a row is a number, so a prompt of any length costs no memory but the rows of one chunk.

Scores are only ever added, in the order of the prompt. A chunk that is computed again, because a
decode was aborted or a sibling starts over, adds those that are missing and asks for no other rows.
"""

from collections.abc import Sequence as Seq

from tgi_llama.engine.model_runner import Logits, Vocabulary
from tgi_llama.engine.sampler import Scratch, likeliest, log_sum_exp
from tgi_llama.generation import GenerationRequest, PromptToken, Token, TokenId
from tgi_llama.text.output import OutputText


class PromptScores:
    """The tokens of one prompt with their logprobs, as they become known."""

    def __init__(
        self, vocabulary: Vocabulary, prompt_ids: Seq[TokenId], *, n_top_tokens: int = 0
    ) -> None:
        """``n_top_tokens``: list that many likeliest tokens at each position, too."""
        self._vocabulary = vocabulary
        self._prompt_ids = prompt_ids
        self._n_top_tokens = n_top_tokens
        self._text = OutputText(vocabulary)
        first = prompt_ids[0]
        self._tokens = [PromptToken(first, self._text.push(first).token_text, None)]

    @classmethod
    def for_request(cls, vocabulary: Vocabulary, request: GenerationRequest) -> "PromptScores":
        """Those that the request wants."""
        return cls(vocabulary, request.prompt_ids, n_top_tokens=request.n_prompt_top_tokens)

    def are_of(self, request: GenerationRequest) -> bool:
        """Whether these are what the request wants too."""
        return (
            request.prompt_ids == self._prompt_ids
            and request.n_prompt_top_tokens == self._n_top_tokens
        )

    @property
    def tokens(self) -> tuple[PromptToken, ...]:
        """Those that are known. The first is known from the start, for there is nothing to it."""
        return tuple(self._tokens)

    @property
    def is_complete(self) -> bool:
        return len(self._tokens) == len(self._prompt_ids)

    def n_rows(self, end: int) -> int:
        """How many of the rows before position ``end`` are needed: one for each token up to
        ``end`` that has no score, and at the end of the prompt one for the first new token."""
        return max(0, end + 1 - len(self._tokens))

    def add(self, logits: Logits, scratch: Scratch | None = None) -> None:
        """Scores the next token, by the row after the one before it. Not when complete."""
        token = self._prompt_ids[len(self._tokens)]
        norm = log_sum_exp(logits, scratch)
        top_tokens = tuple(
            Token(
                other,
                self._text.peek(other),
                float(logits[other]) - norm,
                self._vocabulary.is_control(other),
            )
            for other in self._likeliest(logits, scratch)
        )
        text = self._text.push(token).token_text
        self._tokens.append(PromptToken(token, text, float(logits[token]) - norm, top_tokens))

    def _likeliest(self, logits: Logits, scratch: Scratch | None) -> list[TokenId]:
        if self._n_top_tokens == 0:
            return []
        return [TokenId(int(i)) for i in likeliest(logits, self._n_top_tokens, scratch)]
