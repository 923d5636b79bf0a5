"""OpenAI's routes that generate: ``/v1/chat/completions`` and ``/v1/completions``."""

import secrets
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

import attrs
from quart import Response, request

from tgi_llama.wire.openai_requests import ChatRequest, CompletionRequest
from tgi_llama.wire.openai_responses import (
    ChatChoice,
    ChatCompletion,
    ChatLogprobs,
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    Usage,
)

from . import generations, response_headers
from .bodies import json_response, read_request, write_answer
from .chat_frames import chat_frames
from .chat_turns import WholeTurn, finish_reason, whole_turn
from .exchange import record_of
from .openai_frames import Answer, completion_frames, usage
from .openai_logprobs import chat_logprob, completion_logprobs, joined, prompt_logprobs
from .routes import Route
from .services import Services
from .streaming import stream_response


@attrs.frozen
class OpenAiRoutes:
    services: Services

    def table(self) -> tuple[Route, ...]:
        return (
            Route("POST", "/v1/chat/completions", "chat_completions", self.chat, is_counted=True),
            Route("POST", "/v1/completions", "completions", self.completions, is_counted=True),
        )

    # --- chat ---

    async def chat(self) -> Response:
        chat_request = await read_request(request, ChatRequest, self.services.admission)
        return await self.respond_chat(chat_request)

    async def respond_chat(self, chat_request: ChatRequest) -> Response:
        """The answer to a request that has been read, for the route that is being served."""
        with ExitStack() as resources:
            started = await self._start_chat(resources, chat_request)
            answer = self._answer("chatcmpl", started)
            if chat_request.stream:
                frames = chat_frames(answer, started.prepared, self.services.metrics)
                return stream_response(self.services, request, started, frames, resources.pop_all())
            results = await generations.collect(started)
        record_of(request).succeeded()
        headers = response_headers.collected(results, results, self.services.settings.compute_type)
        turns: list[WholeTurn] = []
        body = await write_answer(
            lambda: _chat_completion(answer, results, turns),
            sum(one.n_listed for one in results),
            self.services.admission,
        )
        for turn in turns:
            turn.report(self.services.metrics)
        return json_response(body, headers=response_headers.with_compute_time(headers, results))

    async def _start_chat(
        self, resources: ExitStack, chat_request: ChatRequest
    ) -> generations.Generations:
        validator = self.services.validator
        return await generations.start(
            self.services,
            resources,
            partial(validator.chat, chat_request),
            received=self.services.clock(),
            precheck=partial(validator.precheck, chat_request, streaming=chat_request.stream),
        )

    # --- completions ---

    async def completions(self) -> Response:
        admission = self.services.admission
        return await self.respond_completion(
            await read_request(request, CompletionRequest, admission)
        )

    async def respond_completion(self, completion_request: CompletionRequest) -> Response:
        """As ``respond_chat``."""
        with ExitStack() as resources:
            started = await self._start_completion(resources, completion_request)
            answer = self._answer("cmpl", started)
            if completion_request.stream:
                frames = completion_frames(answer, started.prepared)
                return stream_response(self.services, request, started, frames, resources.pop_all())
            results = await generations.collect(started)
        record_of(request).succeeded()
        body = await write_answer(
            lambda: _completion(answer, results),
            sum(one.n_listed for one in results),
            self.services.admission,
        )
        headers = response_headers.collected(
            generations.shown(results), results, self.services.settings.compute_type
        )
        return json_response(body, headers=headers)

    async def _start_completion(
        self, resources: ExitStack, completion_request: CompletionRequest
    ) -> generations.Generations:
        validator = self.services.validator
        streaming = completion_request.stream
        return await generations.start(
            self.services,
            resources,
            partial(validator.completion, completion_request),
            received=self.services.clock(),
            precheck=partial(validator.precheck, completion_request, streaming=streaming),
        )

    def _answer(self, prefix: str, started: generations.Generations) -> Answer:
        settings = self.services.settings
        return Answer(
            id=f"{prefix}-{secrets.token_hex(12)}",
            model=started.members[0].prepared.model or settings.model_id,
            system_fingerprint=settings.system_fingerprint,
        )


def _chat_completion(
    answer: Answer, results: Sequence[generations.Collected], turns: list[WholeTurn]
) -> ChatCompletion:
    """Fills ``turns``."""
    turns += map(whole_turn, results)
    pairs = zip(turns, results, strict=True)
    return ChatCompletion(
        id=answer.id,
        created=int(time.time()),
        model=answer.model,
        system_fingerprint=answer.system_fingerprint,
        choices=tuple(_chat_choice(index, *pair) for index, pair in enumerate(pairs)),
        usage=_usage(results),
    )


def _chat_choice(index: int, turn: WholeTurn, result: generations.Collected) -> ChatChoice:
    return ChatChoice(
        index=index,
        message=turn.message,
        logprobs=_chat_logprobs(result) if result.prepared.logprobs else None,
        finish_reason=turn.finish_reason,
    )


def _chat_logprobs(result: generations.Collected) -> ChatLogprobs:
    n_top = result.prepared.n_top_logprobs
    pairs = zip(result.tokens, result.top_tokens, strict=True)
    return ChatLogprobs(tuple(chat_logprob(token, top, n_top=n_top) for token, top in pairs))


def _completion(answer: Answer, results: Sequence[generations.Collected]) -> Completion:
    choices = enumerate(generations.shown(results))
    return Completion(
        id=answer.id,
        created=int(time.time()),
        model=answer.model,
        system_fingerprint=answer.system_fingerprint,
        choices=tuple(_completion_choice(index, result) for index, result in choices),
        usage=_usage(results),
    )


def _completion_choice(index: int, result: generations.Collected) -> CompletionChoice:
    prepared = result.prepared
    return CompletionChoice(
        index=index,
        text=(prepared.prompt if prepared.echo else "") + result.text,
        logprobs=_completion_logprobs(result) if prepared.logprobs else None,
        finish_reason=finish_reason(result.finish.reason),
    )


def _completion_logprobs(result: generations.Collected) -> CompletionLogprobs:
    prepared = result.prepared
    n_top = prepared.n_top_logprobs
    generated = completion_logprobs(
        list(zip(result.tokens, result.top_tokens, result.deltas, strict=True)),
        n_top=n_top,
        first_offset=len(prepared.prompt) if prepared.echo else 0,
    )
    if not prepared.echo:
        return generated
    return joined(prompt_logprobs(prepared.prompt, result.prompt_tokens, n_top=n_top), generated)


def _usage(results: Sequence[generations.Collected]) -> Usage:
    """What was computed, also what the answer does not show."""
    n_generated = sum(result.finish.n_generated for result in results)
    return usage([result.cached for result in results], n_generated)
