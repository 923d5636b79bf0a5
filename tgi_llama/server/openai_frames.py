"""What OpenAI's answers are made of, streamed or not, and the frames of their streams."""

import time
from collections.abc import Callable, Sequence
from functools import partial

import attrs

from tgi_llama.generation import FinishReason, Token, TokenEvent
from tgi_llama.validation.validator import PreparedGeneration
from tgi_llama.wire import converter
from tgi_llama.wire.openai_responses import (
    ChatChunkChoice,
    ChatCompletionChunk,
    ChatDelta,
    ChatLogprobs,
    CompletionChoice,
    CompletionChunk,
    CompletionChunkWithUsage,
    CompletionLogprobs,
    OpenAiFinishReason,
    TokenLogprob,
    TopLogprob,
    Usage,
)

from .failures import Failure
from .sse import DONE, frame

_FINISH_REASONS: dict[FinishReason, OpenAiFinishReason] = {
    FinishReason.LENGTH: "length",
    FinishReason.EOS_TOKEN: "stop",
    FinishReason.STOP_SEQUENCE: "stop",
}

_OPENAI_PATH = "/v1/"


@attrs.frozen(kw_only=True)
class Answer:
    """What every object of one answer repeats."""

    id: str
    model: str
    system_fingerprint: str


def finish_reason(reason: FinishReason) -> OpenAiFinishReason:
    return _FINISH_REASONS[reason]


def usage(n_prompt: int, n_generated: int) -> Usage:
    return Usage(
        prompt_tokens=n_prompt,
        completion_tokens=n_generated,
        total_tokens=n_prompt + n_generated,
    )


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


def _top_map(top_tokens: Sequence[Token]) -> dict[str, float]:
    return {token.text: _logprob(token) for token in top_tokens}


def _logprob(token: Token) -> float:
    assert token.logprob is not None, "asked for by whoever set `logprobs`"
    return token.logprob


class _OpenAiFrames:
    """What the streams of both routes share."""

    def _with_done(self, payloads: Sequence[bytes]) -> bytes:
        return b"".join([*(frame(payload) for payload in payloads), DONE])

    def failure(self, failure: Failure) -> bytes:
        return self._with_done([failure.body(_OPENAI_PATH)])


class ChatFrames(_OpenAiFrames):
    """The frames of a streamed chat answer: one chunk per token, the last with the reason."""

    def __init__(self, answer: Answer, prepared: PreparedGeneration) -> None:
        self._answer = answer
        self._prepared = prepared
        self._n_generated = 0

    def token(self, _index: int, event: TokenEvent) -> bytes:
        self._n_generated += 1
        choice = ChatChunkChoice(
            delta=ChatDelta(content=event.delta),
            logprobs=self._logprobs(event) if self._prepared.logprobs else None,
            finish_reason=finish_reason(event.finish.reason) if event.finish else None,
        )
        return frame(converter.dump(self._chunk((choice,), None)))

    def end(self) -> bytes:
        if not self._prepared.include_usage:
            return self._with_done([])
        counts = usage(self._prepared.n_prompt_tokens, self._n_generated)
        return self._with_done([converter.dump(self._chunk((), counts))])

    def _logprobs(self, event: TokenEvent) -> ChatLogprobs:
        n_top = self._prepared.n_top_logprobs
        return ChatLogprobs((chat_logprob(event.token, event.top_tokens, n_top=n_top),))

    def _chunk(
        self, choices: tuple[ChatChunkChoice, ...], counts: Usage | None
    ) -> ChatCompletionChunk:
        return ChatCompletionChunk(
            id=self._answer.id,
            created=int(time.time()),
            model=self._answer.model,
            system_fingerprint=self._answer.system_fingerprint,
            choices=choices,
            usage=counts,
        )


class CompletionFrames(_OpenAiFrames):
    """The frames of streamed completions. Chunks of several prompts alternate; their ``index``
    tells them apart."""

    def __init__(self, answer: Answer, prepared: Sequence[PreparedGeneration]) -> None:
        self._answer = answer
        self._prepared = prepared
        self._n_generated = 0
        self._n_characters = [0] * len(prepared)

    def token(self, index: int, event: TokenEvent) -> bytes:
        self._n_generated += 1
        prepared = self._prepared[index]
        choice = CompletionChoice(
            index=prepared.index,
            text=event.delta,
            logprobs=self._logprobs(index, event) if prepared.logprobs else None,
            finish_reason=finish_reason(event.finish.reason) if event.finish else None,
        )
        self._n_characters[index] += len(event.delta)
        return frame(converter.dump(self._chunk((choice,), None)))

    def end(self) -> bytes:
        if not self._prepared[0].include_usage:
            return self._with_done([])
        n_prompt = sum(prepared.n_prompt_tokens for prepared in self._prepared)
        chunk = self._chunk((), usage(n_prompt, self._n_generated))
        return self._with_done([converter.dump(chunk)])

    def _logprobs(self, index: int, event: TokenEvent) -> CompletionLogprobs:
        return completion_logprobs(
            [(event.token, event.top_tokens, event.delta)],
            n_top=self._prepared[index].n_top_logprobs,
            first_offset=self._n_characters[index],
        )

    def _chunk(
        self, choices: tuple[CompletionChoice, ...], counts: Usage | None
    ) -> CompletionChunk:
        make: Callable[..., CompletionChunk] = CompletionChunk
        if self._prepared[0].include_usage:
            make = partial(CompletionChunkWithUsage, usage=counts)
        return make(
            id=self._answer.id,
            created=int(time.time()),
            choices=choices,
            model=self._answer.model,
            system_fingerprint=self._answer.system_fingerprint,
        )
