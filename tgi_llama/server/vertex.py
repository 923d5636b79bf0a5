"""Vertex AI's route: prompts and chats in one list, a text for each."""

from functools import partial

import attrs
from quart import Response, request

from tgi_llama.wire import converter
from tgi_llama.wire.openai_requests import ChatRequest
from tgi_llama.wire.vertex import Instance, Predictions, VertexBody

from .bodies import json_response, read_request
from .input_lists import Input, answer_each, error_at, refusal
from .routes import Route
from .services import Services


@attrs.frozen
class VertexRoutes:
    services: Services

    def table(self) -> tuple[Route, ...]:
        return (Route("POST", "/vertex", "vertex_compatibility", self.predict, is_counted=True),)

    async def predict(self) -> Response:
        admission = self.services.admission
        body = await read_request(request, VertexBody, admission)
        inputs = await admission.validate(partial(_inputs, body))
        if not inputs:
            return refusal("Input validation error", "Input validation error")
        texts = await answer_each(self.services, inputs)
        return json_response(converter.dump(Predictions(predictions=tuple(texts))))


def _inputs(body: VertexBody) -> list[Input]:
    """For a validation worker: the list may be long. Raises ParseError and ValidationError."""
    return [_input(index, instance) for index, instance in enumerate(body.read_instances())]


def _input(index: int, instance: Instance) -> Input:
    """Raises ValidationError where the instance asks for more than one text."""
    place = partial(_place, index)
    if not isinstance(instance, ChatRequest):
        return Input(instance.generate_request, place)
    if instance.n is not None and instance.n > 1:
        raise error_at(place("n"), "`n` must be 1: an instance has one prediction")
    return Input(attrs.evolve(instance, stream=False), place)


def _place(index: int, field: str | None) -> str:
    path = f"instances[{index}]"
    return path if field is None else f"{path}.{field}"
