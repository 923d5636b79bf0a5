"""Loading and unloading LoRA adapters at run time: vLLM's routes, for holders of an admin key."""

import attrs
from quart import Response, request

from tgi_llama.errors import ShuttingDown
from tgi_llama.wire import converter
from tgi_llama.wire.lora import LoadAdapterRequest, UnloadAdapterRequest
from tgi_llama.wire.openai_responses import DeletedModel

from .bodies import json_response, read_request
from .models import adapter_model
from .routes import Route
from .services import Services


@attrs.frozen
class LoraRoutes:
    services: Services

    def table(self) -> tuple[Route, ...]:
        return (
            Route("POST", "/v1/load_lora_adapter", "load_lora_adapter", self.load, is_admin=True),
            Route(
                "POST", "/v1/unload_lora_adapter", "unload_lora_adapter", self.unload, is_admin=True
            ),
        )

    async def load(self) -> Response:
        services = self.services
        wanted = await read_request(request, LoadAdapterRequest, services.admission)
        self._check_serving()
        scale = 1.0 if wanted.scale is None else wanted.scale
        adapter = await services.adapters.load(
            wanted.lora_name, wanted.lora_path, scale=scale, is_reload=wanted.load_inplace
        )
        model = adapter_model(adapter, parent=services.settings.model_id)
        return json_response(converter.dump(model))

    async def unload(self) -> Response:
        wanted = await read_request(request, UnloadAdapterRequest, self.services.admission)
        self._check_serving()
        await self.services.adapters.unload(wanted.lora_name)
        return json_response(converter.dump(DeletedModel(id=wanted.lora_name)))

    def _check_serving(self) -> None:
        if self.services.admission.is_draining:
            raise ShuttingDown("the server is shutting down")
