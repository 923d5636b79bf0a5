"""What OpenAI's answers are made of, streamed or not, and the frames of their streams."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial

import attrs

from tgi_llama.generation import TokenEvent
from tgi_llama.validation.prepared import PreparedGeneration
from tgi_llama.wire import converter, pattern
from tgi_llama.wire.openai_responses import (
    CompletionChoice,
    CompletionChunk,
    CompletionChunkWithUsage,
    CompletionLogprobs,
    PromptTokensDetails,
    Usage,
)

from .chat_turns import finish_reason
from .failures import OPENAI_PREFIX, Failure
from .generations import n_cached, one_per_prompt
from .openai_logprobs import completion_logprobs, prompt_logprobs
from .sse import DONE, frame


@attrs.frozen(kw_only=True)
class Answer:
    """What every object of one answer repeats."""

    id: str
    model: str
    system_fingerprint: str


def usage(finished: Sequence[tuple[PreparedGeneration, int]], n_generated: int) -> Usage:
    """Of all these generations, each with the prompt tokens that it found cached: a prompt counts
    once, however many it has."""
    n_prompt = sum(one.n_prompt_tokens for one in one_per_prompt(one for one, _ in finished))
    return Usage(
        prompt_tokens=n_prompt,
        completion_tokens=n_generated,
        total_tokens=n_prompt + n_generated,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=n_cached(finished)),
    )


def frame_pattern(make: Callable[[int, str], object]) -> bytes:
    """A format for the frames of what ``make`` gives for a time and a text, in this order."""
    created, text = pattern.integer_stand_in(), pattern.text_stand_in()
    return frame(pattern.pattern(make(created, text), created, text))


class OpenAiFrames(ABC):
    """What the streams of both routes share."""

    def __init__(self, answer: Answer, prepared: Sequence[PreparedGeneration]) -> None:
        self._answer = answer
        self._prepared = prepared
        self._n_generated = 0
        self._n_cached = [0] * len(prepared)
        """Prompt tokens that each generation found cached; known at its end."""
        self._patterns: dict[int, bytes] = {}
        """Formats of the frames of plain tokens, by the index of the generation."""

    def _plain(self, index: int, text: str) -> bytes:
        """The frame of a token that is neither the last one nor has logprobs: nothing in it is new
        but the time and a piece of text. Runs for nearly every token, with cold caches."""
        made = self._patterns.get(index) or self._new_pattern(index)
        return made % (int(time.time()), converter.dump_text(text))

    def _new_pattern(self, index: int) -> bytes:
        made = frame_pattern(partial(self._plain_chunk, index))
        self._patterns[index] = made
        return made

    def _note(self, index: int, event: TokenEvent) -> None:
        """Call with every event that is not plain."""
        if event.finish is not None:
            self._n_cached[index] = event.finish.n_cached_prompt_tokens

    def _usage(self) -> Usage:
        return usage(list(zip(self._prepared, self._n_cached, strict=True)), self._n_generated)

    @abstractmethod
    def _plain_chunk(self, index: int, created: int, text: str) -> object:
        """The wire value of ``_plain``, in which the time comes before the text."""

    def _with_done(self, payloads: Sequence[bytes]) -> bytes:
        return b"".join([*(frame(payload) for payload in payloads), DONE])

    def failure(self, failure: Failure) -> bytes:
        return self._with_done([failure.body(OPENAI_PREFIX)])


def completion_frames(answer: Answer, prepared: Sequence[PreparedGeneration]) -> "CompletionFrames":
    """The frames for these generations, which are all of one call."""
    make = EchoedCompletionFrames if prepared[0].echo else CompletionFrames
    return make(answer, prepared)


class CompletionFrames(OpenAiFrames):
    """The frames of streamed completions. Chunks of several choices alternate; their ``index``
    tells them apart."""

    def __init__(self, answer: Answer, prepared: Sequence[PreparedGeneration]) -> None:
        super().__init__(answer, prepared)
        self._choice_indexes = [one.index * one.n_shown + one.branch for one in prepared]
        self._n_characters = [0] * len(prepared)

    def token(self, index: int, event: TokenEvent) -> bytes:
        self._n_generated += 1
        prepared = self._prepared[index]
        if event.finish is None and not prepared.logprobs:
            return self._plain(index, event.delta)
        self._note(index, event)
        choice = CompletionChoice(
            index=self._choice_indexes[index],
            text=event.delta,
            logprobs=self._logprobs(index, event) if prepared.logprobs else None,
            finish_reason=finish_reason(event.finish.reason) if event.finish else None,
        )
        self._n_characters[index] += len(event.delta)
        return self._frame(choice)

    def end(self) -> bytes:
        if not self._prepared[0].include_usage:
            return self._with_done([])
        counts = self._usage()
        return self._with_done([converter.dump(self._chunk(int(time.time()), (), counts))])

    def _plain_chunk(self, index: int, created: int, text: str) -> CompletionChunk:
        choice = CompletionChoice(index=self._choice_indexes[index], text=text, finish_reason=None)
        return self._chunk(created, (choice,), None)

    def _frame(self, choice: CompletionChoice) -> bytes:
        return frame(converter.dump(self._chunk(int(time.time()), (choice,), None)))

    def _logprobs(self, index: int, event: TokenEvent) -> CompletionLogprobs:
        return completion_logprobs(
            [(event.token, event.top_tokens, event.delta)],
            n_top=self._prepared[index].n_top_logprobs,
            first_offset=self._n_characters[index],
        )

    def _chunk(
        self, created: int, choices: tuple[CompletionChoice, ...], counts: Usage | None
    ) -> CompletionChunk:
        make: Callable[..., CompletionChunk] = CompletionChunk
        if self._prepared[0].include_usage:
            make = partial(CompletionChunkWithUsage, usage=counts)
        return make(
            id=self._answer.id,
            created=created,
            choices=choices,
            model=self._answer.model,
            system_fingerprint=self._answer.system_fingerprint,
        )


class EchoedCompletionFrames(CompletionFrames):
    """The same with the prompt in a chunk of its own before the first token of each choice."""

    def __init__(self, answer: Answer, prepared: Sequence[PreparedGeneration]) -> None:
        super().__init__(answer, prepared)
        self._begun: set[int] = set()

    def token(self, index: int, event: TokenEvent) -> bytes:
        if index in self._begun:
            return super().token(index, event)
        self._begun.add(index)
        prompt_frame = self._prompt(index, event)
        if self._prepared[index].echo_only:
            self._note(index, event)
            return prompt_frame + self._end_of_prompt(index)
        return prompt_frame + super().token(index, event)

    def _prompt(self, index: int, event: TokenEvent) -> bytes:
        prepared = self._prepared[index]
        self._n_characters[index] = len(prepared.prompt)
        logprobs = None
        if prepared.logprobs:
            logprobs = prompt_logprobs(
                prepared.prompt, event.prompt_tokens, n_top=prepared.n_top_logprobs
            )
        return self._frame(
            CompletionChoice(
                index=self._choice_indexes[index],
                text=prepared.prompt,
                logprobs=logprobs,
                finish_reason=None,
            )
        )

    def _end_of_prompt(self, index: int) -> bytes:
        """For a choice that is the prompt alone: the token of the event is not shown."""
        return self._frame(
            CompletionChoice(index=self._choice_indexes[index], text="", finish_reason="length")
        )
