"""OpenAI's routes: ``/v1/chat/completions``, ``/v1/completions`` and ``/v1/models``."""

import secrets
import time
from contextlib import ExitStack

import attrs
from quart import Response, request

from tgi_llama.validation.validator import PreparedGeneration
from tgi_llama.wire import converter
from tgi_llama.wire.openai_requests import ChatRequest, CompletionRequest
from tgi_llama.wire.openai_responses import (
    ChatChoice,
    ChatCompletion,
    ChatLogprobs,
    ChatMessage,
    Completion,
    CompletionChoice,
    Model,
    ModelList,
)

from . import generations, response_headers
from .bodies import json_response, read_request, write_answer
from .exchange import record_of
from .openai_frames import (
    Answer,
    ChatFrames,
    CompletionFrames,
    chat_logprob,
    completion_logprobs,
    finish_reason,
    usage,
)
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
            Route("GET", "/v1/models", "openai_get_model_info", self.models, needs_key=True),
        )

    # --- chat ---

    async def chat(self) -> Response:
        chat_request = await read_request(request, ChatRequest, self.services.admission)
        with ExitStack() as resources:
            started = await self._start_chat(resources, chat_request)
            answer = self._answer("chatcmpl", started)
            if chat_request.stream:
                frames = ChatFrames(answer, started.members[0].prepared)
                return stream_response(self.services, request, started, frames, resources.pop_all())
            (result,) = await generations.collect(started)
        record_of(request).succeeded()
        headers = response_headers.collected([result], self.services.settings.compute_type)
        body = await write_answer(
            lambda: _chat_completion(answer, result),
            result.finish.n_generated,
            self.services.admission,
        )
        return json_response(body, headers=response_headers.with_compute_time(headers, result))

    async def _start_chat(
        self, resources: ExitStack, chat_request: ChatRequest
    ) -> generations.Generations:
        def prepare() -> tuple[PreparedGeneration]:
            return (self.services.validator.chat(chat_request),)

        received = self.services.clock()
        return await generations.start(self.services, resources, prepare, received=received)

    # --- completions ---

    async def completions(self) -> Response:
        admission = self.services.admission
        completion_request = await read_request(request, CompletionRequest, admission)
        with ExitStack() as resources:
            started = await generations.start(
                self.services,
                resources,
                lambda: self.services.validator.completion(completion_request),
                received=self.services.clock(),
            )
            answer = self._answer("cmpl", started)
            if completion_request.stream:
                frames = CompletionFrames(answer, [m.prepared for m in started.members])
                return stream_response(self.services, request, started, frames, resources.pop_all())
            results = await generations.collect(started)
        record_of(request).succeeded()
        body = await write_answer(
            lambda: _completion(answer, results),
            sum(result.finish.n_generated for result in results),
            admission,
        )
        headers = response_headers.collected(results, self.services.settings.compute_type)
        return json_response(body, headers=headers)

    # --- models ---

    async def models(self) -> Response:
        model_id = self.services.settings.model_id
        return json_response(
            converter.dump(ModelList(data=(Model(id=model_id, owned_by=model_id),)))
        )

    def _answer(self, prefix: str, started: generations.Generations) -> Answer:
        settings = self.services.settings
        return Answer(
            id=f"{prefix}-{secrets.token_hex(12)}",
            model=started.members[0].prepared.model or settings.model_id,
            system_fingerprint=settings.system_fingerprint,
        )


def _chat_completion(answer: Answer, result: generations.Collected) -> ChatCompletion:
    prepared = result.prepared
    return ChatCompletion(
        id=answer.id,
        created=int(time.time()),
        model=answer.model,
        system_fingerprint=answer.system_fingerprint,
        choices=(
            ChatChoice(
                message=ChatMessage(content=result.text),
                logprobs=_chat_logprobs(result) if prepared.logprobs else None,
                finish_reason=finish_reason(result.finish.reason),
            ),
        ),
        usage=usage(prepared.n_prompt_tokens, result.finish.n_generated),
    )


def _chat_logprobs(result: generations.Collected) -> ChatLogprobs:
    n_top = result.prepared.n_top_logprobs
    pairs = zip(result.tokens, result.top_tokens, strict=True)
    return ChatLogprobs(tuple(chat_logprob(token, top, n_top=n_top) for token, top in pairs))


def _completion(answer: Answer, results: list[generations.Collected]) -> Completion:
    return Completion(
        id=answer.id,
        created=int(time.time()),
        model=answer.model,
        system_fingerprint=answer.system_fingerprint,
        choices=tuple(_completion_choice(result) for result in results),
        usage=usage(
            sum(result.prepared.n_prompt_tokens for result in results),
            sum(result.finish.n_generated for result in results),
        ),
    )


def _completion_choice(result: generations.Collected) -> CompletionChoice:
    prepared = result.prepared
    logprobs = None
    if prepared.logprobs:
        logprobs = completion_logprobs(
            list(zip(result.tokens, result.top_tokens, result.deltas, strict=True)),
            n_top=prepared.n_top_logprobs,
            first_offset=0,
        )
    return CompletionChoice(
        index=prepared.index,
        text=result.text,
        logprobs=logprobs,
        finish_reason=finish_reason(result.finish.reason),
    )
