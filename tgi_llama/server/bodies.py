"""Bytes in and out of the JSON routes."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from quart import Request, Response

from tgi_llama.admission import Admission
from tgi_llama.wire import converter

from .failures import UnsupportedMediaType

_PARSED_AT_ONCE_BYTES = 32 * 1024
"""Strict parsing takes about 0.1 ms per kilobyte, for which all streams wait on the Trio thread;
longer bodies are parsed by a validation worker."""

WRITTEN_AT_ONCE_TOKENS = 256
"""The same for long answers: with several alternatives a token, 2000 tokens take 30 ms to write."""

T = TypeVar("T")


async def read_request(request: Request, kind: type[T], admission: Admission) -> T:
    """The whole request body as a wire type. Raises ParseError, UnsupportedMediaType, and
    werkzeug's errors for a body that is too large (while it is read) or too slow."""
    mimetype = request.mimetype
    if mimetype != "application/json" and not _is_json_suffix(mimetype):
        raise UnsupportedMediaType
    body = await request.get_data(cache=False, as_text=False, parse_form_data=False)
    if len(body) <= _PARSED_AT_ONCE_BYTES:
        return converter.parse(kind, body)
    return await admission.validate(partial(converter.parse, kind, body))


async def write_answer(make: Callable[[], object], n_tokens: int, admission: Admission) -> bytes:
    """The JSON of what ``make`` returns, an answer that lists up to ``n_tokens`` tokens."""
    if n_tokens <= WRITTEN_AT_ONCE_TOKENS:
        return converter.dump(make())
    return await admission.validate(lambda: converter.dump(make()))


def _is_json_suffix(mimetype: str) -> bool:
    return mimetype.startswith("application/") and mimetype.endswith("+json")


def json_response(
    body: bytes, status: int = 200, *, headers: Mapping[str, str] | None = None
) -> Response:
    return Response(body, status, dict(headers or {}), content_type="application/json")
