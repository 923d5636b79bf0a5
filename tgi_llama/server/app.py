"""The HTTP application: routes, the guard before them, and the shape of every error."""

import hmac
import logging
from collections.abc import Sequence
from typing import cast

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import MethodNotAllowed

from tgi_llama.errors import Forbidden
from tgi_llama.metrics import FailureKind

from .api_document import with_api_document
from .bodies import json_response
from .chosen_routes import chosen_routes
from .docs_page import DocsPage
from .exchange import CorsPolicy, Exchange, exchange_of
from .failures import Failure, Unauthorized, describe
from .generate import GenerateRoutes
from .kserve import KserveRoutes
from .lora import LoraRoutes
from .models import ModelRoutes
from .openai import OpenAiRoutes
from .ops import OpsRoutes
from .request_record import RequestRecord
from .routes import Route
from .sagemaker import SagemakerRoutes
from .services import Services
from .tokenize import TokenizeRoutes
from .vertex import VertexRoutes

_log = logging.getLogger(__name__)


def create_app(services: Services) -> QuartTrio:
    """The application for one set of services. It holds no state of its own beside them."""
    return _App(services, route_table(services))


def route_table(services: Services) -> tuple[Route, ...]:
    """Every route of the server. Raises ConfigError where a path chosen for one is taken."""
    settings = services.settings
    routes = _own_routes(services)
    routes += chosen_routes(
        routes, predict=settings.aip_predict_route, health=settings.aip_health_route
    )
    return with_api_document(routes, version=settings.version, needs_key=bool(settings.api_keys))


def check_chosen_paths(*, predict: str | None, health: str | None) -> None:
    """The same refusal, before there is anything to serve."""
    no_services = cast(Services, None)  # no table looks at them
    chosen_routes(_own_routes(no_services), predict=predict, health=health)


def _own_routes(services: Services) -> tuple[Route, ...]:
    generate, openai = GenerateRoutes(services), OpenAiRoutes(services)
    return (
        *generate.table(),
        *openai.table(),
        *ModelRoutes(services).table(),
        *TokenizeRoutes(services).table(),
        *SagemakerRoutes(services, generate, openai).table(),
        *VertexRoutes(services).table(),
        *KserveRoutes(services).table(),
        *LoraRoutes(services).table(),
        *OpsRoutes(services).table(),
        *DocsPage.installed().table(),
    )


class _App(QuartTrio):
    def __init__(self, services: Services, routes: Sequence[Route]) -> None:
        super().__init__("tgi_llama", static_folder=None)
        self._services = services
        self._routes = {route.name: route for route in routes}
        self._cors = CorsPolicy.from_names(services.settings.cors_allow_origins)
        self._keys = tuple(key.encode() for key in services.settings.api_keys)
        self._admin_keys = tuple(key.encode() for key in services.settings.admin_keys)
        self.config["MAX_CONTENT_LENGTH"] = services.settings.payload_limit_bytes
        self.config["BODY_TIMEOUT"] = services.settings.body_timeout_s
        self.config["RESPONSE_TIMEOUT"] = None
        self.config["PROVIDE_AUTOMATIC_OPTIONS"] = False  # the exchange answers OPTIONS
        self.url_map.merge_slashes = False  # no redirects: their bodies are HTML
        self.before_request(self._open_record)
        self.before_request(self._check_key)
        self.register_error_handler(Exception, self._answer_error)
        for route in routes:
            self.add_url_rule(
                route.path, endpoint=route.name, view_func=route.view, methods=[route.method]
            )

    async def asgi_app(
        self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        if scope["type"] == "websocket":
            # Not a route of ours, and Quart's answer would pass error handlers made for requests.
            await send({"type": "websocket.close", "code": 1000, "reason": None})
            return
        if scope["type"] != "http":
            await super().asgi_app(scope, receive, send)
            return
        exchange = Exchange(
            scope, receive, send, self._cors, linger_s=self._services.settings.linger_s
        )
        if scope["method"] == "OPTIONS":
            await exchange.answer_preflight()
            return
        with exchange.resources:
            await super().asgi_app(scope, exchange.receive, exchange.send)

    async def _open_record(self) -> None:
        route = self._route()
        if route is not None and route.is_counted:
            exchange = exchange_of(request)
            record = RequestRecord(self._services.metrics)
            exchange.record = exchange.resources.enter_context(record)

    async def _check_key(self) -> None:
        route = self._route()
        if route is not None and route.is_admin:
            self._check_admin_key()
        elif self._keys and self._is_guarded() and not _has_key(self._keys):
            raise Unauthorized("The API key is missing or wrong")

    def _check_admin_key(self) -> None:
        if not self._admin_keys:
            raise Forbidden("This server was started without --admin-api-key")
        if _has_key(self._admin_keys):
            return
        if _has_key(self._keys):
            raise Forbidden("This takes an admin key, and the given one is an API key")
        raise Unauthorized("The admin key is missing or wrong")

    def _is_guarded(self) -> bool:
        """Told by the rule that matched: a path has several spellings. A guarded path asked with
        another method is guarded too, before the client learns that it does not take that."""
        error = request.routing_exception
        if isinstance(error, MethodNotAllowed):
            return "POST" in (error.valid_methods or ())
        route = self._route()
        return route is not None and route.needs_key

    def _route(self) -> Route | None:
        rule = request.url_rule
        return None if rule is None else self._routes[rule.endpoint]

    async def _answer_error(self, error: Exception) -> Response:
        """The boundary of every request: whatever was raised becomes JSON."""
        failure = describe(error)
        if failure.kind is FailureKind.INTERNAL:
            _log.error("%s %s failed", request.method, request.path, exc_info=error)
        record = exchange_of(request).record
        if record is not None:
            record.failed(failure.kind)
        return json_response(
            failure.body(request.path), failure.status, headers=self._headers(failure)
        )

    def _headers(self, failure: Failure) -> dict[str, str]:
        headers = dict(failure.headers)
        if failure.kind is FailureKind.OVERLOADED:
            n_running = self._services.admission.n_running
            headers["retry-after"] = str(self._services.retry_advice.seconds(n_running))
        return headers


def _has_key(keys: Sequence[bytes]) -> bool:
    """Whether the request has one of the keys."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    # All keys are compared, in constant time each, so that timing tells nothing.
    matches = [hmac.compare_digest(given.encode(), key) for key in keys]
    return scheme.lower() == "bearer" and any(matches)
