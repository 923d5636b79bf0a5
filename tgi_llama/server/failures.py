"""From exceptions to what the client reads: the one table of statuses, types and texts.

Native routes answer TGI's ``{"error", "error_type"}``, the routes under ``/v1/`` the object that
both OpenAI's and TGI's clients can read.
"""

import attrs
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from tgi_llama.errors import (
    AdapterConflict,
    AdapterError,
    AdapterNotFound,
    EngineDead,
    Forbidden,
    GenerationError,
    IncompleteGeneration,
    Overloaded,
    RequestCancelled,
    RequestError,
    ShuttingDown,
    SuffixNotSupported,
    TemplateError,
    ToolError,
    TooManyPrompts,
    ValidationError,
)
from tgi_llama.metrics import FailureKind
from tgi_llama.wire import converter
from tgi_llama.wire.generate_responses import ErrorBody
from tgi_llama.wire.openai_responses import OpenAiError, OpenAiErrorBody
from tgi_llama.wire.parse_error import ParseError

OPENAI_PREFIX = "/v1/"

_OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    424: "server_error",
    429: "rate_limit_error",
}


@attrs.frozen(kw_only=True)
class Failure:
    """One failed request, ready to be written."""

    status: int
    kind: FailureKind
    error_type: str
    """TGI's word."""
    message: str
    param: str | None = None
    """JSON path of the culprit."""
    headers: tuple[tuple[str, str], ...] = ()

    def body(self, path: str) -> bytes:
        """The JSON object for a client of this URL path."""
        if path.startswith(OPENAI_PREFIX):
            return converter.dump(self._openai_body())
        return converter.dump(ErrorBody(error=self.message, error_type=self.error_type))

    def _openai_body(self) -> OpenAiErrorBody:
        error = OpenAiError(
            message=self.message, type=self._openai_type(), param=self.param, code=self.status
        )
        return OpenAiErrorBody(error=error, error_type=self.error_type)

    def _openai_type(self) -> str:
        default = "invalid_request_error" if self.status < 500 else "server_error"
        return _OPENAI_TYPES.get(self.status, default)


class Unauthorized(RequestError):
    """The API key is missing or wrong (401)."""


class UnsupportedMediaType(RequestError):
    """The body does not claim to be JSON (415)."""


@attrs.frozen
class _Row:
    """How to describe one class of exceptions. ``text`` may name the exception as ``{}``."""

    error: type[Exception]
    status: int
    kind: FailureKind
    error_type: str
    text: str = "{}"

    def describe(self, error: Exception) -> Failure:
        return Failure(
            status=self.status,
            kind=self.kind,
            error_type=self.error_type,
            message=self.text.replace("{}", str(error)),
        )


_ROWS = (  # a class stands before its base
    _Row(SuffixNotSupported, 422, FailureKind.VALIDATION, "suffix not supported"),
    _Row(TooManyPrompts, 422, FailureKind.VALIDATION, "batch size exceeded"),
    _Row(ValidationError, 422, FailureKind.VALIDATION, "validation", "Input validation error: {}"),
    _Row(TemplateError, 422, FailureKind.TEMPLATE, "template_error", "Template error: {}"),
    _Row(ToolError, 422, FailureKind.TOOL, "tool_error", "Tool error: {}"),
    _Row(Overloaded, 429, FailureKind.OVERLOADED, "overloaded", "Model is overloaded"),
    _Row(
        GenerationError,
        424,
        FailureKind.GENERATION,
        "generation",
        "Request failed during generation: {}",
    ),
    _Row(
        IncompleteGeneration,
        500,
        FailureKind.INCOMPLETE,
        "incomplete_generation",
        "Incomplete generation",
    ),
    _Row(ShuttingDown, 503, FailureKind.UNAVAILABLE, "unavailable"),
    _Row(EngineDead, 503, FailureKind.UNAVAILABLE, "unavailable"),
    _Row(RequestCancelled, 499, FailureKind.DROPPED, "dropped"),
    _Row(ParseError, 422, FailureKind.PARSE, "validation"),
    _Row(AdapterError, 422, FailureKind.VALIDATION, "adapter_error", "Adapter error: {}"),
    _Row(AdapterNotFound, 404, FailureKind.VALIDATION, "not_found"),
    _Row(AdapterConflict, 409, FailureKind.VALIDATION, "conflict"),
    _Row(Forbidden, 403, FailureKind.AUTH, "authorization"),
    _Row(Unauthorized, 401, FailureKind.AUTH, "authentication"),
    _Row(
        UnsupportedMediaType,
        415,
        FailureKind.PARSE,
        "validation",
        "Expected request with `Content-Type: application/json`",
    ),
)

_INTERNAL = _Row(
    Exception, 500, FailureKind.INTERNAL, "internal_error", "The server failed; its log says why"
)

_WRONG_SHAPE = "Failed to deserialize the JSON body into the target type: "

_HTTP_TEXTS = {
    404: "There is no such route",
    405: "The route does not take this method",
    408: "The request body did not arrive in time",
    413: "Failed to buffer the request body: length limit exceeded",
}


def describe(error: Exception) -> Failure:
    """What to tell the client about this exception, as the answer to its request."""
    if isinstance(error, HTTPException):
        return _describe_http(error)
    row = next((row for row in _ROWS if isinstance(error, row.error)), _INTERNAL)
    failure = row.describe(error)
    if isinstance(error, ParseError):
        return _describe_parse_error(failure, error)
    if isinstance(error, ValidationError):
        return attrs.evolve(failure, param=error.field)
    if isinstance(error, AdapterError):
        return attrs.evolve(failure, param="lora_path")
    if isinstance(error, (AdapterNotFound, AdapterConflict)):
        return attrs.evolve(failure, param="lora_name")
    if isinstance(error, Unauthorized):
        return attrs.evolve(failure, headers=(("www-authenticate", "Bearer"),))
    return failure


def describe_in_stream(error: Exception) -> Failure:
    """The same for an answer that has begun: TGI words one of the errors differently there."""
    failure = describe(error)
    if isinstance(error, IncompleteGeneration):
        return attrs.evolve(
            failure,
            error_type="incomplete_generation_stream",
            message="Incomplete generation stream",
        )
    return failure


def _describe_parse_error(failure: Failure, error: ParseError) -> Failure:
    """TGI tells two kinds apart by how the text begins; that of bad JSON says so itself."""
    prefix = _WRONG_SHAPE if error.status == 422 else ""
    return attrs.evolve(
        failure,
        status=error.status,
        message=prefix + failure.message,
        param=error.path or None,
    )


def _describe_http(error: HTTPException) -> Failure:
    status = error.code or 500
    if status >= 500:
        return _INTERNAL.describe(error)
    headers: tuple[tuple[str, str], ...] = ()
    if isinstance(error, MethodNotAllowed):
        headers = (("allow", ", ".join(sorted(error.valid_methods or ()))),)
    return Failure(
        status=status,
        kind=FailureKind.PARSE,
        error_type="validation",
        message=_HTTP_TEXTS.get(status) or error.description or error.name,
        headers=headers,
    )
