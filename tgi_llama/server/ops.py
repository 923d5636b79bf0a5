"""The routes about the server itself: information, health and metrics."""

import attrs
from quart import Response

from tgi_llama.metrics import CONTENT_TYPE
from tgi_llama.wire import converter
from tgi_llama.wire.generate_responses import ErrorBody, Info

from .bodies import json_response
from .routes import Route
from .services import Services


@attrs.frozen
class OpsRoutes:
    services: Services

    def table(self) -> tuple[Route, ...]:
        return (
            Route("GET", "/info", "get_model_info", self.info),
            Route("GET", "/metrics", "metrics", self.metrics),
            Route("GET", "/health", "health", self.health),
            Route("GET", "/ping", "ping", self.health),
            Route("GET", "/", "root_health", self.health),
        )

    async def info(self) -> Response:
        return json_response(converter.dump(self._info()))

    def _info(self) -> Info:
        settings, model = self.services.settings, self.services.model
        limits = settings.limits
        return Info(
            model_id=settings.model_id,
            model_sha=settings.model_sha,
            max_concurrent_requests=settings.max_concurrent_requests,
            max_best_of=limits.max_best_of,
            max_stop_sequences=limits.max_stop_sequences,
            max_input_tokens=limits.max_input_tokens,
            max_total_tokens=limits.max_total_tokens,
            validation_workers=settings.validation_workers,
            max_client_batch_size=limits.max_client_batch_size,
            version=settings.version,
            docker_label=settings.docker_label,
            max_top_n_tokens=limits.max_top_n_tokens,
            backend=model.backend,
            architecture=model.architecture,
            description=model.description,
            n_parameters=model.n_parameters,
            size_bytes=model.size_bytes,
            n_vocab=model.n_vocab,
            n_context_train=model.n_context_train,
            n_context=model.n_cells,
            n_slots=model.n_slots,
            kv_layout=model.kv_layout,
            max_batch_tokens=model.max_batch_tokens,
            physical_batch_tokens=model.physical_batch_tokens,
            n_threads=model.n_threads,
            n_threads_batch=model.n_threads_batch,
            n_gpu_layers=model.n_gpu_layers,
            split_mode=model.split_mode,
            type_k=model.type_k,
            type_v=model.type_v,
            flash_attention=model.flash_attention,
            mmap=model.mmap,
            mlock=model.mlock,
            numa=model.numa,
            offload_kqv=model.offload_kqv,
            kv_device=model.kv_device,
            tool_format=settings.tool_format,
        )

    async def health(self) -> Response:
        if self.services.is_healthy():
            response = Response(b"", 200)
            del response.headers["content-type"]  # there is nothing to describe
            return response
        body = converter.dump(ErrorBody(error="unhealthy", error_type="healthcheck"))
        return json_response(body, 503)

    async def metrics(self) -> Response:
        return Response(self.services.metrics.render(), content_type=CONTENT_TYPE)
