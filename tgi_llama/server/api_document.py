"""The API document (OpenAPI 3.1), made from the routes and the wire types themselves.

``api_operations`` says which types a route takes and answers, ``wire/json_schema`` what these types
are in JSON, ``failures`` how the server words its errors.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs
from quart import Response
from werkzeug.exceptions import MethodNotAllowed, NotFound, RequestEntityTooLarge, RequestTimeout

from tgi_llama.errors import (
    AdapterConflict,
    EngineDead,
    Forbidden,
    GenerationError,
    IncompleteGeneration,
    Overloaded,
    ShuttingDown,
    TemplateError,
    ToolError,
    ValidationError,
)
from tgi_llama.wire import converter, json_text
from tgi_llama.wire.examples import Examples
from tgi_llama.wire.generate_responses import ErrorBody
from tgi_llama.wire.json_schema import Schema, Schemas
from tgi_llama.wire.openai_responses import OpenAiErrorBody
from tgi_llama.wire.parse_error import ParseError

from . import sse
from .api_operations import OPERATIONS, TAGS, Events, Operation, Text
from .bodies import json_response
from .failures import Unauthorized, UnsupportedMediaType, describe
from .header_names import STREAM_HEADERS
from .routes import Route

PATH: Final = "/api-doc/openapi.json"

_ABOUT: Final = (
    "Text generation for GGUF models. Limits of this server, such as those on tokens, are listed "
    "by `/info`. Unknown fields of a request are ignored. Every error is JSON with `error` and "
    "`error_type`."
)

_ALWAYS: Final[Mapping[str, str]] = {
    "vary": "What an answer may depend on.",
    "access-control-allow-origin": "Which web pages may read the answer. Absent where the "
    "request's origin is not allowed.",
    "access-control-expose-headers": "Which headers the code of such a page may read.",
}
"""Headers of every response."""

_OWN_HEADERS: Final[Mapping[int, Mapping[str, str]]] = {
    303: {"location": "Where the page is."},
    401: {"www-authenticate": "`Bearer`."},
    405: {"allow": "The methods that the path takes."},
    429: {"retry-after": "Seconds after which to try again."},
}

_MEANINGS: Final[Mapping[int, str]] = {
    400: "The body is not JSON.",
    401: "The API key is missing or wrong.",
    403: "The key does not open this route, or what was asked for is not to be had.",
    404: "There is nothing of this name.",
    405: "The path does not take this method.",
    408: "The body did not arrive in time.",
    409: "The name is taken, or something is being done with it.",
    413: "The body is too large.",
    415: "The body does not claim to be JSON.",
    422: "The request is wrong; the text names the field.",
    424: "The generation failed; others go on.",
    429: "All places are taken.",
    500: "The server failed.",
    503: "The server is stopping, or cannot compute.",
}


def _errors(path: str) -> Mapping[int, Mapping[str, Exception]]:
    """What may lead to each status, for examples. ``path`` stands before the names of fields."""
    return {
        400: {
            "not_json": ParseError(
                "Failed to parse the request body as JSON: "
                "Expecting value: line 1 column 1 (char 0)",
                status=400,
            )
        },
        401: {"no_key": Unauthorized("The API key is missing or wrong")},
        403: {"closed": Forbidden("This server was started without --admin-api-key")},
        404: {"unknown": NotFound()},
        405: {"method": MethodNotAllowed()},
        408: {"slow": RequestTimeout()},
        409: {"loading": AdapterConflict("the adapter 'pirate' is being loaded")},
        413: {"large": RequestEntityTooLarge()},
        415: {"type": UnsupportedMediaType()},
        422: {
            "wrong_type": ParseError('expected an integer, got "5"', path=f"{path}top_k"),
            "wrong_value": ValidationError(
                "`temperature` must be strictly positive", field=f"{path}temperature"
            ),
            "template": TemplateError("template not found"),
            "tools": ToolError("Tool with name get_weather not found"),
            "adapter": ValidationError(
                "`adapter_id` must be one of pirate. Given: 'sailor'", field=f"{path}adapter_id"
            ),
        },
        424: {"generation": GenerationError("the next token could not be computed")},
        429: {"overloaded": Overloaded()},
        500: {"incomplete": IncompleteGeneration(), "internal": RuntimeError()},
        503: {
            "stopping": ShuttingDown("the server is shutting down"),
            "dead": EngineDead("the decode thread died"),
        },
    }


_PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")
"""A variable part of a path as Quart writes it, for example ``<path:model_id>``."""


def with_api_document(
    routes: Sequence[Route], *, version: str, needs_key: bool
) -> tuple[Route, ...]:
    """The routes and one more, which serves the document about all of them. ``needs_key``: the
    server has API keys."""

    async def openapi() -> Response:
        return json_response(content)

    everything = (*routes, Route("GET", PATH, "openapi", openapi))
    content = document(everything, version=version, needs_key=needs_key)
    return everything


def document(routes: Sequence[Route], *, version: str, needs_key: bool) -> bytes:
    """The document as JSON. Routes that ``OPERATIONS`` does not describe are left out."""
    return converter.dump(_Writer(needs_key=needs_key).write(routes, version))


@attrs.define(eq=False)
class _Writer:
    """Collects what operations share while they are written."""

    needs_key: bool = attrs.field(kw_only=True)
    _schemas: Schemas = attrs.field(factory=Schemas, init=False)
    _headers: dict[str, Schema] = attrs.field(factory=dict, init=False)
    _responses: dict[str, Schema] = attrs.field(factory=dict, init=False)

    def write(self, routes: Sequence[Route], version: str) -> Schema:
        paths: dict[str, Schema] = {}
        for route in routes:
            if route.name in OPERATIONS:
                operations = paths.setdefault(_PARAMETER.sub(r"{\1}", route.path), {})
                operations[route.method.lower()] = self._operation(route, OPERATIONS[route.name])
        return {
            "openapi": "3.1.0",
            "info": {
                "title": "tgi_llama",
                "version": version,
                "description": _ABOUT,
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
            "paths": paths,
            "components": {
                "schemas": dict(sorted(self._schemas.definitions.items())),
                "responses": dict(sorted(self._responses.items())),
                "headers": self._headers,
                "securitySchemes": {
                    "key": {"type": "http", "scheme": "bearer"},
                    "admin": {"type": "http", "scheme": "bearer"},
                },
            },
        }

    def _operation(self, route: Route, operation: Operation) -> Schema:
        written: Schema = {
            "operationId": route.name,
            "tags": [operation.tag],
            "summary": operation.summary,
        }
        if operation.description:
            written["description"] = operation.description
        if route.needs_key:
            key: Schema = {"key": []}
            written["security"] = [key] if self.needs_key else [{}, key]
        if route.is_admin:
            written["security"] = [{"admin": []}]
        names = _PARAMETER.findall(route.path)
        if names:
            written["parameters"] = [_parameter(name) for name in names]
        if operation.request is not None:
            written["requestBody"] = self._request(operation)
        statuses = {str(operation.status): self._success(operation)}
        for status in sorted(_failures(route, operation)):
            statuses[str(status)] = self._failure(route, operation, status)
        return {**written, "responses": statuses}

    # --- bodies ---

    def _request(self, operation: Operation) -> Schema:
        schema = self._schemas.of_request(operation.request)
        media = {"schema": schema, **_examples(operation.request_examples)}
        return {"required": True, "content": {"application/json": media}}

    def _success(self, operation: Operation) -> Schema:
        description = "See `location`." if operation.status == 303 else "All went well."
        content: Schema = {}
        if isinstance(operation.answer, Text):
            media_type, _, _ = operation.answer.content_type.partition(";")
            content[media_type] = {"schema": {"type": "string"}}
        elif operation.answer is not None:
            schema = self._schemas.of_answer(operation.answer)
            content["application/json"] = {"schema": schema, **_examples(operation.answer_examples)}
        headers = dict(operation.headers)
        if operation.events is not None:
            description += (
                " A stream is silent for at most some seconds: then comes a comment (`:`)."
            )
            content["text/event-stream"] = self._events(operation.events)
            headers |= STREAM_HEADERS
        return {
            "description": description,
            **self._headers_of(operation.status, headers),
            **({"content": content} if content else {}),
        }

    def _events(self, events: Events) -> Schema:
        """One event, as an object with its ``data``: OpenAPI 3.1 has no other way to say it."""
        payload: Schema = {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": self._schemas.of_answer(events.types),
        }
        data = {"anyOf": [{"const": "[DONE]"}, payload]} if events.is_done else payload
        example = b"".join(sse.frame(converter.dump(event)) for event in events.example)
        return {
            "schema": {"type": "object", "properties": {"data": data}, "required": ["data"]},
            "example": (example + (sse.DONE if events.is_done else b"")).decode(),
        }

    # --- errors ---

    def _failure(self, route: Route, operation: Operation, status: int) -> Schema:
        """Operations whose errors look alike share a response."""
        if operation.is_health and status == 503:
            unhealthy = ErrorBody(error="unhealthy", error_type="healthcheck")
            return self._error(status, {"unhealthy": unhealthy}, "The server cannot generate.")
        is_native = _is_native(route)
        name = f"{'Native' if is_native else 'OpenAi'}{status}"
        if name not in self._responses:
            errors = _errors("parameters." if is_native else "")[status]
            bodies = {
                name: json_text.load(describe(error).body(route.path))
                for name, error in errors.items()
            }
            body_type = ErrorBody if is_native else OpenAiErrorBody
            self._responses[name] = self._error(status, bodies, _MEANINGS[status], body_type)
        return {"$ref": f"#/components/responses/{name}"}

    def _error(
        self, status: int, bodies: Examples, meaning: str, body_type: type = ErrorBody
    ) -> Schema:
        media = {"schema": self._schemas.of_answer(body_type), **_examples(bodies)}
        return {
            "description": meaning,
            **self._headers_of(status, {}),
            "content": {"application/json": media},
        }

    def _headers_of(self, status: int, headers: Mapping[str, str]) -> Schema:
        texts = {**headers, **_OWN_HEADERS.get(status, {}), **_ALWAYS}
        for name, text in texts.items():
            self._headers[name] = {"description": text, "schema": {"type": "string"}}
        return {"headers": {name: {"$ref": f"#/components/headers/{name}"} for name in texts}}


def _failures(route: Route, operation: Operation) -> Iterator[int]:
    """The statuses with which the route may refuse or fail."""
    yield 405
    yield 500
    yield from operation.refusals
    if route.needs_key or route.is_admin:
        yield 401
    if route.is_admin:
        yield 403
    if _PARAMETER.search(route.path):
        yield 404
    if operation.request is not None:
        yield from (400, 408, 413, 415, 422)
    if operation.request is not None or operation.is_health:
        yield 503
    if route.is_counted:
        yield from (424, 429)


def _is_native(route: Route) -> bool:
    """Whether errors on this route have TGI's form and not OpenAI's."""
    body = json_text.load(describe(NotFound()).body(route.path))
    return isinstance(body, dict) and isinstance(body["error"], str)


def _parameter(name: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _examples(values: Examples) -> Schema:
    if not values:
        return {}
    return {"examples": {name: {"value": value} for name, value in values.items()}}
