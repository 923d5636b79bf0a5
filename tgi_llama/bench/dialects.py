"""What is said to a server and what its events mean, in OpenAI's API and in TGI's. No I/O.

A dialect is a pair of functions per kind of request: one writes the body, one reads an event.
"""

from collections.abc import Callable, Mapping, Sequence

import attrs
import orjson

from tgi_llama.errors import MeasuredRequestFailed

_DONE = b"[DONE]"
_MESSAGE_LIMIT = 300


@attrs.frozen
class Message:
    role: str
    content: str


@attrs.frozen(kw_only=True)
class Job:
    """One request to be measured."""

    group: str
    """The row of the report that it counts in."""
    n_tokens: int
    """How many tokens to ask for."""
    prompt: str = ""
    messages: Sequence[Message] = ()
    """A chat, where there are any; ``prompt`` is not used then."""


@attrs.frozen(kw_only=True)
class Asking:
    """What all requests to one server have in common."""

    model: str
    ignore_eos: bool
    fields: Mapping[str, object] = attrs.field(factory=dict)
    """Extra fields of the body, as the user gave them."""


@attrs.frozen
class Counts:
    """What the server says it computed; None where it does not say."""

    n_prompt: int | None = None
    n_generated: int | None = None
    n_cached: int | None = None


@attrs.define
class Event:
    """What one server-sent event says."""

    text: str = ""
    """What it adds to the visible text."""
    is_token: bool = False
    """It stands for a token, though that may have no text (yet)."""
    is_end: bool = False
    finish_reason: str | None = None
    counts: Counts | None = None


@attrs.frozen
class Route:
    path: str
    body: Callable[[Job, Asking], bytes]
    read: Callable[[bytes], Event]
    """Raises MeasuredRequestFailed for an error and for what is no event of this route."""


@attrs.frozen
class Dialect:
    name: str
    complete: Route
    chat: Route

    def route(self, job: Job) -> Route:
        return self.chat if job.messages else self.complete


def _openai_body(job: Job, asking: Asking, prompt: Mapping[str, object]) -> bytes:
    return orjson.dumps(
        {
            "model": asking.model,
            **prompt,
            "max_tokens": job.n_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **({"ignore_eos": True} if asking.ignore_eos else {}),
            **asking.fields,
        }
    )


def _completion_body(job: Job, asking: Asking) -> bytes:
    return _openai_body(job, asking, {"prompt": job.prompt})


def _chat_body(job: Job, asking: Asking) -> bytes:
    messages = [{"role": one.role, "content": one.content} for one in job.messages]
    return _openai_body(job, asking, {"messages": messages})


def _native_body(job: Job, asking: Asking) -> bytes:
    # Greedy by its own switch: TGI refuses a temperature of 0. It has no way to ignore EOS.
    parameters = {"max_new_tokens": job.n_tokens, "do_sample": False, **asking.fields}
    return orjson.dumps({"inputs": job.prompt, "parameters": parameters})


def _read_completion(payload: bytes) -> Event:
    if payload == _DONE:
        return Event(is_end=True)
    frame = _frame(payload)
    event = Event()
    for choice in _objects(frame.get("choices")):
        _take_choice(event, choice, choice.get("text"))
    event.counts = _usage(frame.get("usage"))
    return event


def _read_chat(payload: bytes) -> Event:
    if payload == _DONE:
        return Event(is_end=True)
    frame = _frame(payload)
    event = Event()
    for choice in _objects(frame.get("choices")):
        delta = choice.get("delta")
        # What reasoning models think is generated text like any other.
        names = ("content", "reasoning_content")
        texts = [delta.get(name) for name in names] if isinstance(delta, dict) else []
        _take_choice(event, choice, next((text for text in texts if text), None))
    event.counts = _usage(frame.get("usage"))
    return event


def _take_choice(event: Event, choice: Mapping[str, object], text: object) -> None:
    if isinstance(text, str):
        event.text += text
        event.is_token = event.is_token or bool(text) or choice.get("finish_reason") is None
    reason = choice.get("finish_reason")
    if isinstance(reason, str):
        event.finish_reason = reason


def _usage(usage: object) -> Counts | None:
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details")
    return Counts(
        _whole(usage.get("prompt_tokens")),
        _whole(usage.get("completion_tokens")),
        _whole(details.get("cached_tokens")) if isinstance(details, dict) else None,
    )


def _read_native(payload: bytes) -> Event:
    frame = _frame(payload)
    token = frame.get("token")
    if not isinstance(token, dict):
        raise _strange(payload)
    text = token.get("text")
    is_visible = isinstance(text, str) and token.get("special") is not True
    event = Event(text=str(text) if is_visible else "", is_token=True)
    details = frame.get("details")
    if isinstance(details, dict):
        event.finish_reason = str(details.get("finish_reason"))
        counts = [_whole(details.get(name)) for name in ("input_length", "generated_tokens")]
        event.counts = Counts(*counts)
    event.is_end = frame.get("generated_text") is not None
    return event


def _frame(payload: bytes) -> Mapping[str, object]:
    try:
        frame = orjson.loads(payload)
    except orjson.JSONDecodeError:
        raise _strange(payload) from None
    if not isinstance(frame, dict):
        raise _strange(payload)
    if frame.get("error") is not None:
        raise MeasuredRequestFailed("error event", error_text(payload.decode(errors="replace")))
    return frame


def _strange(payload: bytes) -> MeasuredRequestFailed:
    shown = payload.decode(errors="replace")[:_MESSAGE_LIMIT]
    return MeasuredRequestFailed("protocol", f"the stream has an event of another kind: {shown}")


def _objects(value: object) -> Sequence[Mapping[str, object]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None


def error_text(body: str) -> str:
    """The message in an error's JSON body, whoever's API it is in; else the body. At most
    ``_MESSAGE_LIMIT`` characters, on one line."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        value = body
    for name in ("error", "message"):
        if isinstance(value, dict):
            value = value.get(name, value)
    text = value if isinstance(value, str) else body
    return " ".join(text.split())[:_MESSAGE_LIMIT]


_OPENAI_COMPLETE = Route("/v1/completions", _completion_body, _read_completion)
_OPENAI_CHAT = Route("/v1/chat/completions", _chat_body, _read_chat)
OPENAI = Dialect("openai", _OPENAI_COMPLETE, _OPENAI_CHAT)
# TGI has no chat of its own: its chats are OpenAI's.
TGI = Dialect("tgi", Route("/generate_stream", _native_body, _read_native), _OPENAI_CHAT)
DIALECTS = {dialect.name: dialect for dialect in (OPENAI, TGI)}
