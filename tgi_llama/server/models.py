"""OpenAI's list of models: the one that is served, and its LoRA adapters."""

import attrs
from quart import Response

from tgi_llama.adapters import Adapter
from tgi_llama.wire import converter
from tgi_llama.wire.openai_responses import Model, ModelList, OpenAiError, OpenAiErrorBody

from .bodies import json_response
from .routes import Route
from .services import Services

_MODEL = "/v1/models/<path:model_id>"
_FOLDER = "/v1/models//<path:model_id>"
"""A model may be named by its folder, and ``path`` matches nothing that begins with a slash."""

_ANY_MODEL = "tgi"
"""What TGI's clients say when they do not care which model answers."""


def adapter_model(adapter: Adapter, *, parent: str) -> Model:
    """A LoRA adapter of the model ``parent``."""
    return Model(
        id=adapter.name,
        created=adapter.loaded_at,
        owned_by=parent,
        root=adapter.root,
        parent=parent,
    )


@attrs.frozen
class ModelRoutes:
    services: Services

    def table(self) -> tuple[Route, ...]:
        return (
            Route("GET", "/v1/models", "openai_get_model_info", self.models, needs_key=True),
            Route("GET", _MODEL, "openai_get_model", self.model, needs_key=True),
            Route("GET", _FOLDER, "openai_get_model_of_folder", self.folder, needs_key=True),
        )

    async def models(self) -> Response:
        parent = self._own_name
        adapters = (adapter_model(one, parent=parent) for one in self.services.adapters.all)
        return json_response(converter.dump(ModelList(data=(self._served_model(), *adapters))))

    async def model(self, model_id: str) -> Response:
        if model_id in (self._own_name, _ANY_MODEL):
            return json_response(converter.dump(self._served_model()))
        adapter = self.services.adapters.get(model_id)
        if adapter is not None:
            return json_response(converter.dump(adapter_model(adapter, parent=self._own_name)))
        error = OpenAiError(
            message=f"The model '{model_id}' does not exist",
            type="not_found_error",
            param="model",
            code="model_not_found",
        )
        body = OpenAiErrorBody(error=error, error_type="not_found")
        return json_response(converter.dump(body), 404)

    async def folder(self, model_id: str) -> Response:
        return await self.model(f"/{model_id}")

    @property
    def _own_name(self) -> str:
        return self.services.settings.model_id

    def _served_model(self) -> Model:
        return Model(id=self._own_name, owned_by=self._own_name)
