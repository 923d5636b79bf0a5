"""TGI's own routes: ``POST /``, ``/generate`` and ``/generate_stream``."""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import TypeVar

import attrs
from quart import Response, request

from tgi_llama.generation import Token, TokenEvent
from tgi_llama.validation.prepared import PreparedGeneration
from tgi_llama.wire import converter, pattern
from tgi_llama.wire.generate_requests import CompatGenerateRequest, GenerateRequest
from tgi_llama.wire.generate_responses import (
    BestOfSequence,
    Details,
    ErrorBody,
    GenerateResponse,
    PrefillToken,
    StreamDetails,
    StreamResponse,
)

from . import generations, response_headers, sse
from .bodies import json_response, read_request, write_answer
from .exchange import record_of
from .failures import Failure
from .generations import Collected
from .routes import Route
from .services import Services
from .streaming import stream_response

R = TypeVar("R", GenerateRequest, CompatGenerateRequest)


@attrs.frozen
class GenerateRoutes:
    services: Services

    def table(self) -> tuple[Route, ...]:
        return (
            Route("POST", "/", "compat_generate", self.compat_generate, is_counted=True),
            Route("POST", "/generate", "generate", self.generate, is_counted=True),
            Route(
                "POST", "/generate_stream", "generate_stream", self.generate_stream, is_counted=True
            ),
        )

    async def generate(self) -> Response:
        generate_request = await self._read(GenerateRequest)
        return await self.respond(generate_request, stream=False, as_list=False)

    async def generate_stream(self) -> Response:
        generate_request = await self._read(GenerateRequest)
        return await self.respond(generate_request, stream=True, as_list=False)

    async def compat_generate(self) -> Response:
        generate_request = await self._read(CompatGenerateRequest)
        return await self.respond(generate_request, stream=generate_request.stream, as_list=True)

    async def respond(
        self, generate_request: GenerateRequest, *, stream: bool, as_list: bool
    ) -> Response:
        """The answer to a request that has been read, for the route that is being served.
        ``as_list``: an answer that is not streamed is the one element of an array."""
        with ExitStack() as resources:
            started = await self._start(resources, generate_request, streaming=stream)
            if stream:
                frames = NativeFrames(started.members[0].prepared)
                return stream_response(self.services, request, started, frames, resources.pop_all())
            results = await generations.collect(started)
        record_of(request).succeeded()
        winner = generations.shown(results)

        def answer() -> object:
            response = _response(results)
            return [response] if as_list else response

        headers = response_headers.collected(winner, results, self.services.settings.compute_type)
        n_listed = sum(one.n_listed for one in results)
        body = await write_answer(answer, n_listed, self.services.admission)
        return json_response(body, headers=response_headers.with_compute_time(headers, winner))

    async def _read(self, kind: type[R]) -> R:
        return await read_request(request, kind, self.services.admission)

    async def _start(
        self, resources: ExitStack, generate_request: GenerateRequest, *, streaming: bool
    ) -> generations.Generations:
        validator = self.services.validator
        return await generations.start(
            self.services,
            resources,
            partial(validator.generate, generate_request, streaming=streaming),
            received=self.services.clock(),
            precheck=partial(validator.precheck, generate_request, streaming=streaming),
        )


def _response(results: Sequence[Collected]) -> GenerateResponse:
    """``results``: the branches of the request, of which the best one is the answer."""
    (winner,) = generations.shown(results)
    losers = [one for one in results if one is not winner]
    return GenerateResponse(
        generated_text=_text(winner),
        details=_details(winner, losers) if winner.prepared.details else None,
    )


def _text(result: Collected) -> str:
    prepared = result.prepared
    return (prepared.prompt if prepared.return_full_text else "") + result.text


def _details(winner: Collected, losers: Sequence[Collected]) -> Details:
    return Details(
        finish_reason=winner.finish.reason,
        generated_tokens=winner.finish.n_generated,
        seed=winner.prepared.reported_seed,
        prefill=_prefill(winner),
        tokens=tuple(winner.tokens),
        best_of_sequences=tuple(_best_of_sequence(loser) for loser in losers),
        top_tokens=_top_tokens(winner),
    )


def _best_of_sequence(loser: Collected) -> BestOfSequence:
    return BestOfSequence(
        generated_text=_text(loser),
        finish_reason=loser.finish.reason,
        generated_tokens=loser.finish.n_generated,
        seed=loser.prepared.reported_seed,
        prefill=_prefill(loser),
        tokens=tuple(loser.tokens),
        top_tokens=_top_tokens(loser),
    )


def _prefill(result: Collected) -> tuple[PrefillToken, ...]:
    if not result.prepared.prefill:
        return ()
    return tuple(PrefillToken(one.id, one.text, one.logprob) for one in result.prompt_tokens)


def _top_tokens(result: Collected) -> tuple[tuple[Token, ...], ...]:
    return tuple(result.top_tokens) if result.prepared.request.n_top_tokens > 0 else ()


class NativeFrames:
    """The frames of ``/generate_stream``."""

    def __init__(self, prepared: PreparedGeneration) -> None:
        self._prepared = prepared
        self._text = [prepared.prompt] if prepared.return_full_text else []
        self._index = 0
        index, token = pattern.integer_stand_in(), pattern.token_stand_in()
        plain = StreamResponse(index=index, token=token)
        self._plain = sse.frame(pattern.pattern(plain, index, token))
        """A format for all tokens but the last one and those that have alternatives."""

    def token(self, _index: int, event: TokenEvent) -> bytes:
        self._index += 1
        self._text.append(event.delta)
        if event.finish is None and not event.top_tokens:
            return self._plain % (self._index, converter.dump_token(event.token))
        if event.finish is None:
            response = StreamResponse(
                index=self._index, token=event.token, top_tokens=event.top_tokens
            )
        else:
            response = self._last(event)
        return sse.frame(converter.dump(response))

    def _last(self, event: TokenEvent) -> StreamResponse:
        return StreamResponse(
            index=self._index,
            token=event.token,
            top_tokens=event.top_tokens,
            generated_text="".join(self._text),
            details=self._details(event) if self._prepared.details else None,
        )

    def _details(self, event: TokenEvent) -> StreamDetails:
        assert event.finish is not None
        return StreamDetails(
            finish_reason=event.finish.reason,
            generated_tokens=event.finish.n_generated,
            seed=self._prepared.reported_seed,
            input_length=self._prepared.n_prompt_tokens,
        )

    def end(self) -> bytes:
        return b""

    def failure(self, failure: Failure) -> bytes:
        body = ErrorBody(error=failure.message, error_type=failure.error_type)
        return sse.frame(converter.dump(body))
