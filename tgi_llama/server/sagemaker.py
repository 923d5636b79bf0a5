"""SageMaker's route: one path for what three others take."""

import attrs
from quart import Response, request

from tgi_llama.wire.openai_requests import ChatRequest, CompletionRequest
from tgi_llama.wire.sagemaker import read_invocation

from .bodies import read_request
from .generate import GenerateRoutes
from .openai import OpenAiRoutes
from .routes import Route
from .services import Services


@attrs.frozen
class SagemakerRoutes:
    services: Services
    generate: GenerateRoutes
    openai: OpenAiRoutes

    def table(self) -> tuple[Route, ...]:
        return (
            Route("POST", "/invocations", "sagemaker_compatibility", self.invoke, is_counted=True),
        )

    async def invoke(self) -> Response:
        admission = self.services.admission
        body = await read_request(request, object, admission)
        invocation = await admission.validate(lambda: read_invocation(body))
        if isinstance(invocation, ChatRequest):
            return await self.openai.respond_chat(invocation)
        if isinstance(invocation, CompletionRequest):
            return await self.openai.respond_completion(invocation)
        return await self.generate.respond(invocation, stream=invocation.stream, as_list=True)
