"""KServe's routes, version 2 of its protocol. The name of a LoRA adapter means that adapter, every
other name and every version the model alone.
"""

from functools import partial

import attrs
from quart import Response, request

from tgi_llama.validation.adapters import chosen_adapter
from tgi_llama.wire import converter
from tgi_llama.wire.generate_requests import GenerateRequest
from tgi_llama.wire.kserve import (
    InferOutput,
    InferRequest,
    InferResponse,
    Live,
    ModelMetadata,
    NotUtf8,
    ServerMetadata,
)

from .bodies import json_response, read_request
from .input_lists import Input, answer_each, refusal
from .routes import Route
from .services import Services

_MODEL = "/v2/models/<path:name>/versions/<version>"
"""A name may contain slashes, also percent-encoded ones, which are decoded before we see them."""


@attrs.frozen
class KserveRoutes:
    services: Services

    def table(self) -> tuple[Route, ...]:
        return (
            Route("GET", "/v2/health/live", "kserve_health_live", self.live),
            Route("GET", "/v2/health/ready", "kserve_health_ready", self.live),
            Route("GET", "/v2", "kserve_server_metadata", self.server),
            Route("GET", _MODEL, "kserve_model_metadata", self.model),
            Route("GET", f"{_MODEL}/ready", "kserve_model_metadata_ready", self.model_ready),
            Route("POST", f"{_MODEL}/infer", "kserve_model_infer", self.infer, is_counted=True),
        )

    async def live(self) -> Response:
        return json_response(converter.dump(Live(live=True)))

    async def server(self) -> Response:
        return json_response(converter.dump(ServerMetadata(version=self.services.settings.version)))

    async def model(self, name: str, version: str) -> Response:
        return json_response(converter.dump(ModelMetadata(name=name, version=version)))

    async def model_ready(self, name: str, version: str) -> Response:  # noqa: ARG002 from the path
        return await self.live()

    async def infer(self, name: str, version: str) -> Response:  # noqa: ARG002 from the path
        admission = self.services.admission
        infer_request = self._addressed(await read_request(request, InferRequest, admission), name)
        try:
            inputs = await admission.validate(partial(_inputs, infer_request))
        except NotUtf8 as error:
            return refusal(str(error), "utf8")
        if len(inputs) != len(infer_request.outputs):
            return refusal("Inputs and outputs length mismatch", "length mismatch")
        texts = await answer_each(self.services, inputs)
        response = InferResponse(
            id=infer_request.id,
            outputs=tuple(
                InferOutput.of_text(text, name=output.name)
                for text, output in zip(texts, infer_request.outputs, strict=True)
            ),
        )
        return json_response(converter.dump(response))

    def _addressed(self, infer_request: InferRequest, name: str) -> InferRequest:
        """The request for the model of this name. Raises ValidationError where it asks for another
        adapter."""
        ids, parameters = self.services.adapters.ids, infer_request.parameters
        if name not in ids:
            return infer_request
        field = "parameters.adapter_id"
        chosen_adapter(ids, parameters.adapter_id, field=field, model=name)
        return attrs.evolve(infer_request, parameters=attrs.evolve(parameters, adapter_id=name))


def _inputs(infer_request: InferRequest) -> list[Input]:
    """For a validation worker, since lists may be long. Raises NotUtf8."""
    parameters = infer_request.parameters
    return [
        Input(GenerateRequest(inputs=prompt, parameters=parameters), partial(_place, index))
        for index, prompt in enumerate(infer_request.read_prompts())
    ]


def _place(index: int, field: str | None) -> str:
    """The parameters are those of all inputs."""
    return f"inputs[{index}].data" if field in (None, "inputs") else field
