"""One measured request, from its first byte to its last event."""

import time
from collections.abc import Callable

import trio

from tgi_llama.errors import MeasuredRequestFailed

from .dialects import Event, Job, error_text
from .framing import EventReader
from .http_client import Response, open_response
from .sample import Failure, Sample
from .server import Server


async def measure(server: Server, job: Job, sample: Sample, *, timeout_s: float) -> None:
    """Streams the job's answer into ``sample``. What goes wrong is recorded, not raised."""
    route = server.dialect.route(job)
    request = server.endpoint.request("POST", route.path, route.body(job, server.asking))
    sample.sent = time.perf_counter()
    try:
        with trio.fail_after(timeout_s):
            async with open_response(server.endpoint, request) as response:
                await _check(response)
                await _read(response, route.read, sample)
    except MeasuredRequestFailed as error:
        sample.failure = Failure(error.kind, str(error))
    except trio.TooSlowError:
        sample.failure = Failure("timeout", f"no end within {timeout_s:g} s")
    finally:
        if sample.milestone is not None:
            sample.milestone.give_up()
    sample.ended = time.perf_counter()
    if sample.failure is None and not sample.event_times and sample.n_generated == 0:
        # A model that ends at once has made its end-of-generation token.
        sample.failure = Failure("no token", "the answer ended without any token")


async def _check(response: Response) -> None:
    if response.status != 200:
        message = error_text(await response.read_text()) or "an answer without a body"
        raise MeasuredRequestFailed(f"http {response.status}", message)
    if "event-stream" not in response.content_type:
        message = f"the answer is not a stream but {response.content_type or 'of no type'}"
        raise MeasuredRequestFailed("protocol", message)


async def _read(response: Response, read: Callable[[bytes], Event], sample: Sample) -> None:
    """Reads to the event that ends the stream. What comes behind it is not waited for."""
    reader = EventReader()
    texts: list[str] = []
    is_ended = False
    while not is_ended:
        data = await response.read_some()
        now = time.perf_counter()
        if not data:
            raise MeasuredRequestFailed("cut", "the stream ended without its last event")
        n_before = len(sample.event_times)
        for payload in reader.feed(data):
            event = read(payload)
            if event.text:
                sample.event_times.append(now)
                texts.append(event.text)
            sample.n_token_events += event.is_token
            is_ended = is_ended or event.is_end
            if event.counts is not None:
                sample.counts = event.counts
            if event.finish_reason is not None:
                sample.finish_reason = event.finish_reason
        n_events = len(sample.event_times)
        sample.n_shared_reads += max(0, n_events - n_before - 1)
        if sample.milestone is not None:
            sample.milestone.note(n_events)
    sample.text = "".join(texts)
