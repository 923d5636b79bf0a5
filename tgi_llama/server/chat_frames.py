"""The frames of streamed chats."""

import time
from collections.abc import Sequence
from functools import partial

from tgi_llama.generation import TokenEvent
from tgi_llama.metrics import Metrics
from tgi_llama.turns.parts import CallArguments, CallBegin, Content, TurnPart
from tgi_llama.validation.prepared import PreparedGeneration
from tgi_llama.wire import converter
from tgi_llama.wire.openai_responses import (
    ChatChunkChoice,
    ChatCompletionChunk,
    ChatDelta,
    ChatLogprobs,
    OpenAiFinishReason,
    TokenLogprob,
    Usage,
)

from .chat_turns import AnswerReader, delta_of, finish_reason
from .openai_frames import Answer, OpenAiFrames, frame_pattern
from .openai_logprobs import chat_logprob
from .sse import frame


def chat_frames(
    answer: Answer, prepared: Sequence[PreparedGeneration], metrics: Metrics
) -> "ChatFrames":
    """The frames for these generations, which are all of one call."""
    if prepared[0].make_parser is None:
        return ChatFrames(answer, prepared)
    return TurnFrames(answer, prepared, metrics)


class ChatFrames(OpenAiFrames):
    """The frames of a streamed chat answer: one chunk per token, the last one of each choice with
    the reason."""

    def __init__(self, answer: Answer, prepared: Sequence[PreparedGeneration]) -> None:
        super().__init__(answer, prepared)
        self._logprobs_wanted = prepared[0].logprobs
        self._n_top_logprobs = prepared[0].n_top_logprobs

    def token(self, index: int, event: TokenEvent) -> bytes:
        self._n_generated += 1
        if event.finish is None and not self._logprobs_wanted:
            return self._plain(index, event.delta)
        self._note(index, event)
        choice = ChatChunkChoice(
            index=index,
            delta=ChatDelta(content=event.delta),
            logprobs=self._logprobs(event) if self._logprobs_wanted else None,
            finish_reason=finish_reason(event.finish.reason) if event.finish else None,
        )
        return frame(converter.dump(self._chunk(int(time.time()), (choice,), None)))

    def end(self) -> bytes:
        if not self._prepared[0].include_usage:
            return self._with_done([])
        counts = self._usage()
        return self._with_done([converter.dump(self._chunk(int(time.time()), (), counts))])

    def _plain_chunk(self, index: int, created: int, text: str) -> ChatCompletionChunk:
        choice = ChatChunkChoice(index=index, delta=ChatDelta(content=text))
        return self._chunk(created, (choice,), None)

    def _logprobs(self, event: TokenEvent) -> ChatLogprobs:
        entry = chat_logprob(event.token, event.top_tokens, n_top=self._n_top_logprobs)
        return ChatLogprobs((entry,))

    def _chunk(
        self, created: int, choices: tuple[ChatChunkChoice, ...], counts: Usage | None
    ) -> ChatCompletionChunk:
        return ChatCompletionChunk(
            id=self._answer.id,
            created=created,
            model=self._answer.model,
            system_fingerprint=self._answer.system_fingerprint,
            choices=choices,
            usage=counts,
        )


class TurnFrames(ChatFrames):
    """The same where a parser takes the turns apart. A token may bring no chunk, one or several:
    one for each piece of content, reasoning, or a call. The reason comes in a chunk of its own.

    With logprobs every token is listed, those of markup too, in the next chunk of its choice.
    """

    def __init__(
        self, answer: Answer, prepared: Sequence[PreparedGeneration], metrics: Metrics
    ) -> None:
        super().__init__(answer, prepared)
        self._metrics = metrics
        self._readers = [AnswerReader(one.make_parser) for one in prepared if one.make_parser]
        self._unlisted: list[list[TokenLogprob]] = [[] for _ in prepared]
        """Tokens of which no chunk has told yet."""
        self._part_patterns: dict[tuple[int, type, int], bytes] = {}

    def token(self, index: int, event: TokenEvent) -> bytes:
        self._n_generated += 1
        if self._logprobs_wanted:
            entry = chat_logprob(event.token, event.top_tokens, n_top=self._n_top_logprobs)
            self._unlisted[index].append(entry)
        reader = self._readers[index]
        parts = reader.push(event.delta, is_last=event.finish is not None)
        frames = [self._part(index, part) for part in parts]
        if event.finish is not None:
            self._note(index, event)
            reader.report(self._metrics)
            frames.append(self._last(index, reader.finish_reason(event.finish.reason)))
        return frames[0] if len(frames) == 1 else b"".join(frames)

    def _part(self, index: int, part: TurnPart) -> bytes:
        if isinstance(part, CallBegin) or self._logprobs_wanted:
            return self._turn_frame(index, delta_of(part))
        key = (index, type(part), part.index if isinstance(part, CallArguments) else 0)
        made = self._part_patterns.get(key)
        if made is None:
            made = self._part_patterns[key] = frame_pattern(partial(self._part_chunk, index, part))
        return made % (int(time.time()), converter.dump_text(part.text))

    def _part_chunk(
        self, index: int, like: TurnPart, created: int, text: str
    ) -> ChatCompletionChunk:
        part: TurnPart
        match like:
            case CallArguments():
                part = CallArguments(like.index, text)
            case CallBegin():
                raise AssertionError("every call has a name and an id of its own")
            case _:
                part = type(like)(text)
        choice = ChatChunkChoice(index=index, delta=delta_of(part))
        return self._chunk(created, (choice,), None)

    def _last(self, index: int, reason: OpenAiFinishReason) -> bytes:
        # TGI's clients expect content in every chunk of a text.
        delta = ChatDelta() if reason == "tool_calls" else delta_of(Content(""))
        return self._turn_frame(index, delta, reason)

    def _turn_frame(
        self, index: int, delta: ChatDelta, reason: OpenAiFinishReason | None = None
    ) -> bytes:
        logprobs = None
        if self._logprobs_wanted:
            logprobs = ChatLogprobs(tuple(self._unlisted[index]))
            self._unlisted[index] = []
        choice = ChatChunkChoice(index=index, delta=delta, logprobs=logprobs, finish_reason=reason)
        return frame(converter.dump(self._chunk(int(time.time()), (choice,), None)))
