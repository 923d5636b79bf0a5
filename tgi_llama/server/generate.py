"""TGI's own routes: ``POST /``, ``/generate`` and ``/generate_stream``."""

from contextlib import ExitStack
from typing import TypeVar

import attrs
from quart import Response, request

from tgi_llama.generation import TokenEvent
from tgi_llama.validation.validator import PreparedGeneration
from tgi_llama.wire import converter
from tgi_llama.wire.generate_requests import CompatGenerateRequest, GenerateRequest
from tgi_llama.wire.generate_responses import (
    Details,
    ErrorBody,
    GenerateResponse,
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
        return await self._answer(generate_request, as_list=False)

    async def generate_stream(self) -> Response:
        return await self._stream(await self._read(GenerateRequest))

    async def compat_generate(self) -> Response:
        generate_request = await self._read(CompatGenerateRequest)
        if generate_request.stream:
            return await self._stream(generate_request)
        return await self._answer(generate_request, as_list=True)

    async def _read(self, kind: type[R]) -> R:
        return await read_request(request, kind, self.services.admission)

    async def _answer(self, generate_request: GenerateRequest, *, as_list: bool) -> Response:
        with ExitStack() as resources:
            started = await self._start(resources, generate_request, streaming=False)
            (result,) = await generations.collect(started)
        record_of(request).succeeded()

        def answer() -> object:
            response = _response(result)
            return [response] if as_list else response

        headers = response_headers.collected([result], self.services.settings.compute_type)
        body = await write_answer(answer, result.finish.n_generated, self.services.admission)
        return json_response(body, headers=response_headers.with_compute_time(headers, result))

    async def _stream(self, generate_request: GenerateRequest) -> Response:
        with ExitStack() as resources:
            started = await self._start(resources, generate_request, streaming=True)
            frames = NativeFrames(started.members[0].prepared)
            return stream_response(self.services, request, started, frames, resources.pop_all())

    async def _start(
        self, resources: ExitStack, generate_request: GenerateRequest, *, streaming: bool
    ) -> generations.Generations:
        def prepare() -> tuple[PreparedGeneration]:
            validator = self.services.validator
            return (validator.generate(generate_request, streaming=streaming),)

        received = self.services.clock()
        return await generations.start(self.services, resources, prepare, received=received)


def _response(result: Collected) -> GenerateResponse:
    prepared = result.prepared
    return GenerateResponse(
        generated_text=(prepared.prompt if prepared.return_full_text else "") + result.text,
        details=_details(result) if prepared.details else None,
    )


def _details(result: Collected) -> Details:
    wants_top_tokens = result.prepared.request.n_top_tokens > 0
    return Details(
        finish_reason=result.finish.reason,
        generated_tokens=result.finish.n_generated,
        seed=result.prepared.reported_seed,
        tokens=tuple(result.tokens),
        top_tokens=tuple(result.top_tokens) if wants_top_tokens else (),
    )


class NativeFrames:
    """The frames of ``/generate_stream``."""

    def __init__(self, prepared: PreparedGeneration) -> None:
        self._prepared = prepared
        self._text = [prepared.prompt] if prepared.return_full_text else []
        self._index = 0

    def token(self, _index: int, event: TokenEvent) -> bytes:
        self._index += 1
        self._text.append(event.delta)
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
