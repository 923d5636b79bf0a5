"""Puts a streamed answer together: body, headers, and who owns the permit meanwhile."""

from contextlib import ExitStack

from quart import Request, Response

from . import response_headers
from .exchange import exchange_of, record_of
from .generations import Generations
from .services import Services
from .sse import Frames, SseBody, sse_response


def stream_response(
    services: Services,
    request: Request,
    generations: Generations,
    frames: Frames,
    resources: ExitStack,
) -> Response:
    """A 200 answer that streams. ``resources`` (permits and engine streams) belong to the exchange
    from now on, which closes them if the body never gets to."""
    exchange_of(request).resources.enter_context(resources)
    body = SseBody(
        generations,
        frames,
        record=record_of(request),
        release=resources.close,
        keep_alive_s=services.settings.keep_alive_s,
        on_worker=services.admission.validate,
        delivered=services.metrics.record_delivery,
        writer=exchange_of(request).writer,
    )
    return sse_response(
        body, response_headers.streamed(generations, services.settings.compute_type)
    )
