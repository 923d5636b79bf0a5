"""Log-probabilities as OpenAI's answers list them, of chats and of text completions."""

from collections.abc import Iterable, Sequence

from tgi_llama.generation import PromptToken, Token
from tgi_llama.wire.openai_responses import CompletionLogprobs, TokenLogprob, TopLogprob


def chat_logprob(token: Token, top_tokens: Sequence[Token], *, n_top: int) -> TokenLogprob:
    """``n_top``: how many alternatives the client asked for; ties may have added more."""
    return TokenLogprob(
        token.text,
        _logprob(token),
        tuple(TopLogprob(top.text, _logprob(top)) for top in top_tokens[:n_top]),
    )


def completion_logprobs(
    steps: Sequence[tuple[Token, Sequence[Token], str]], *, n_top: int, first_offset: int
) -> CompletionLogprobs:
    """``steps``: for each token its alternatives and what it added to the text, whose first
    character is number ``first_offset`` of the choice's text."""
    offsets: list[int] = []
    offset = first_offset
    for _, _, delta in steps:
        offsets.append(offset)
        offset += len(delta)
    return CompletionLogprobs(
        tokens=tuple(token.text for token, _, _ in steps),
        token_logprobs=tuple(token.logprob for token, _, _ in steps),
        top_logprobs=tuple(_top_map(top[:n_top]) for _, top, _ in steps) if n_top else None,
        text_offset=tuple(offsets),
    )


def prompt_logprobs(
    prompt: str, tokens: Sequence[PromptToken], *, n_top: int
) -> CompletionLogprobs:
    """The same for an echoed prompt, with an entry for each of its ids. The first one follows
    nothing and so has neither a logprob nor alternatives."""
    return CompletionLogprobs(
        tokens=tuple(token.text for token in tokens),
        token_logprobs=tuple(token.logprob for token in tokens),
        top_logprobs=tuple(_prompt_top_map(token, n_top=n_top) for token in tokens)
        if n_top
        else None,
        text_offset=tuple(prompt_offsets(prompt, [token.text for token in tokens])),
    )


def joined(first: CompletionLogprobs, second: CompletionLogprobs) -> CompletionLogprobs:
    """The lists of a text that goes on; both have alternatives, or neither."""
    top_logprobs = None
    if first.top_logprobs is not None and second.top_logprobs is not None:
        top_logprobs = first.top_logprobs + second.top_logprobs
    return CompletionLogprobs(
        tokens=first.tokens + second.tokens,
        token_logprobs=first.token_logprobs + second.token_logprobs,
        top_logprobs=top_logprobs,
        text_offset=first.text_offset + second.text_offset,
    )


def prompt_offsets(prompt: str, texts: Iterable[str]) -> list[int]:
    """Where each token's text begins in the prompt, in characters. Tokens that the tokenizer added,
    and spaces it put before words, have no place there and take no room."""
    offsets: list[int] = []
    offset = 0
    for text in texts:
        offsets.append(offset)
        offset += _n_covered(prompt, text, offset)
    return offsets


def _n_covered(prompt: str, text: str, offset: int) -> int:
    """How many characters of the prompt, from ``offset`` on, this token's text stands for."""
    for spelling in (text, text.removeprefix(" ")):
        if prompt.startswith(spelling, offset):
            return len(spelling)
    if offset == 0:
        return 0  # a start token
    # A tokenizer that normalises has changed a character, or this is a token behind the prompt.
    return min(len(text), len(prompt) - offset)


def _prompt_top_map(token: PromptToken, *, n_top: int) -> dict[str, float] | None:
    return None if token.logprob is None else _top_map(token.top_tokens[:n_top])


def _top_map(top_tokens: Sequence[Token]) -> dict[str, float]:
    return {token.text: _logprob(token) for token in top_tokens}


def _logprob(token: Token) -> float:
    assert token.logprob is not None, "asked for by whoever set `logprobs`"
    return token.logprob
