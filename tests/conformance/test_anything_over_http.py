"""Whatever a client sends, in whatever field, body or header: a 4xx that says where, or an answer;
never a 5xx, and the next client notices nothing."""

import json
import re
from collections.abc import Awaitable, Callable

import attrs
import pytest
import trio
from fakes.site import Site, build_site
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tgi_llama.wire.generate_requests import GenerateParameters
from tgi_llama.wire.kserve import InferRequest
from tgi_llama.wire.openai_requests import ChatRequest, CompletionRequest

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(min_value=-(2**70), max_value=2**70),
    st.integers(min_value=-3, max_value=40),
    st.floats(),  # NaN and infinities too: Python writes them, though JSON has none
    st.text(max_size=8),
    st.sampled_from(["", "json", "text", "auto", "none", "tgi", "\ud800", "\x00", "a" * 300]),
)
KEYS = st.one_of(
    st.sampled_from(["type", "value", "function", "name", "role", "content", "text", "url", "1"]),
    st.text(max_size=4),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=10,
)

CHAT = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 3}
COMPLETION = {"prompt": "a", "max_tokens": 3}
INFER = {
    "id": "1",
    "inputs": [{"name": "a", "shape": [1], "datatype": "BYTES", "data": [97]}],
    "outputs": [{"name": "b"}],
}
MESSAGE_FIELDS = ("role", "content", "name", "tool_calls", "tool_call_id")

NATIVE_ROUTES = ("/", "/generate", "/generate_stream", "/tokenize", "/invocations")
INFER_ROUTE = "/v2/models/m/versions/1/infer"
ROUTES = (
    *NATIVE_ROUTES,
    "/v1/chat/completions",
    "/v1/completions",
    "/chat_tokenize",
    "/vertex",
    INFER_ROUTE,
)

N_BATCH = 25
"""Requests per example: building the application for each would take longer than they do."""

# The same examples on every run: a failure must not depend on the day.
same_every_time = settings(
    derandomize=True,
    deadline=None,
    max_examples=12,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@attrs.frozen
class Ask:
    route: str
    body: object
    place: str
    """The path of the field with the anything in it."""


def field_of(kind: type) -> st.SearchStrategy[str]:
    return st.sampled_from([field.name for field in attrs.fields(kind)])


def native(name: str, value: object, route: str) -> Ask:
    parameters = {"max_new_tokens": 3, name: value}
    return Ask(route, {"inputs": "a", "parameters": parameters}, f"parameters.{name}")


def in_vertex(name: str, value: object) -> Ask:
    parameters = {"max_new_tokens": 3, name: value}
    place = f"instances[0].parameters.{name}"
    return Ask("/vertex", {"instances": [{"inputs": "a", "parameters": parameters}]}, place)


def in_message(name: str, value: object, route: str) -> Ask:
    message = {"role": "user", "content": "a", name: value}
    return Ask(route, {**CHAT, "messages": [message]}, "messages[0]")


CHAT_ROUTES = st.sampled_from(["/v1/chat/completions", "/chat_tokenize", "/invocations"])
COMPLETION_ROUTES = st.sampled_from(["/v1/completions", "/invocations"])

ASKS = st.one_of(
    st.builds(native, field_of(GenerateParameters), ANYTHING, st.sampled_from(NATIVE_ROUTES)),
    st.builds(in_vertex, field_of(GenerateParameters), ANYTHING),
    st.builds(in_message, st.sampled_from(MESSAGE_FIELDS), ANYTHING, CHAT_ROUTES),
    st.builds(
        lambda name, value, route: Ask(route, {**CHAT, name: value}, name),
        field_of(ChatRequest),
        ANYTHING,
        CHAT_ROUTES,
    ),
    st.builds(
        lambda name, value, route: Ask(route, {**COMPLETION, name: value}, name),
        field_of(CompletionRequest),
        ANYTHING,
        COMPLETION_ROUTES,
    ),
    st.builds(
        lambda name, value: Ask(INFER_ROUTE, {**INFER, name: value}, name),
        field_of(InferRequest),
        ANYTHING,
    ),
    st.builds(lambda route, body: Ask(route, body, ""), st.sampled_from(ROUTES), ANYTHING),
)


def on_a_site(test: Callable[[Site], Awaitable[None]]) -> None:
    """Runs ``test(site)``; afterwards everything that it held must be free."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            site = await build_site(nursery)
            try:
                await test(site)
                await is_unharmed(site)
            except Exception as error:  # raised below, outside the nursery that would wrap it
                failures.append(error)
            await site.close()
            nursery.cancel_scope.cancel()

    failures: list[Exception] = []
    trio.run(main)
    if failures:
        raise failures[0]


async def is_unharmed(site: Site) -> None:
    response = await site.client().post("/generate", json={"inputs": "a"})
    assert response.status_code == 200
    assert await response.get_json() == {"generated_text": "Hello world"}
    assert site.admission.n_running == 0
    assert site.engine.n_open == 0


def message_of(body: dict[str, object]) -> str:
    error = body["error"]
    return error if isinstance(error, str) else error["message"]


DESERIALIZE = "Failed to deserialize the JSON body into the target type: "


def check_refusal(status: int, body: dict[str, object], place: str) -> None:
    assert 400 <= status < 500
    message = message_of(body)
    assert isinstance(body["error_type"], str)
    assert 0 < len(message) < 600
    if not message.startswith(DESERIALIZE):
        return
    # A field that is read as something else where its neighbours are missing has no path.
    told = message.removeprefix(DESERIALIZE)
    assert not place or told.startswith((place, "expected")), (told, place)


@same_every_time
@given(asks=st.lists(ASKS, min_size=N_BATCH, max_size=N_BATCH))
def test_any_json_in_any_field_is_answered_or_refused_with_its_place(asks: list[Ask]) -> None:
    async def ask_all(site: Site) -> None:
        for ask in asks:
            response = await site.client().post(
                ask.route,
                data=json.dumps(ask.body),
                headers={"content-type": "application/json"},
            )
            data = await response.get_data()
            if response.status_code != 200:
                check_refusal(response.status_code, json.loads(data), ask.place)

    on_a_site(ask_all)


@same_every_time
@given(bodies=st.lists(st.binary(max_size=80), min_size=N_BATCH, max_size=N_BATCH))
@pytest.mark.parametrize("route", ["/generate", "/v1/chat/completions", "/vertex"])
def test_any_bytes_are_refused_as_json_or_as_shape(route: str, bodies: list[bytes]) -> None:
    async def ask_all(site: Site) -> None:
        for body in bodies:
            response = await site.client().post(
                route, data=body, headers={"content-type": "application/json"}
            )
            assert response.status_code in (400, 422)
            assert message_of(await response.get_json())

    on_a_site(ask_all)


VISIBLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)
HEADER_NAMES = (
    "Authorization",
    "Content-Type",
    "Accept",
    "Origin",
    "Expect",
    "Cookie",
    "Range",
    "Accept-Encoding",
    "Access-Control-Request-Headers",
    "If-None-Match",
    "traceparent",
    "X-Y",
)
HEADERS = st.tuples(st.sampled_from(HEADER_NAMES), VISIBLE)


@same_every_time
@given(
    asks=st.lists(
        st.tuples(
            st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "QUERY"]),
            st.sampled_from([*ROUTES, "/info", "/v1/models", "/docs/", "/nothing", "/%00", "/%ff"]),
            st.lists(HEADERS, max_size=3),
        ),
        min_size=N_BATCH,
        max_size=N_BATCH,
    )
)
def test_any_method_and_headers_are_answered_below_500(
    asks: list[tuple[str, str, list[tuple[str, str]]]],
) -> None:
    async def ask_all(site: Site) -> None:
        for method, path, headers in asks:
            client = await site.connect()
            lines = [f"{method} {path} HTTP/1.1", "Host: test", "Connection: close"]
            lines += [f"{name}: {value.strip()}" for name, value in headers]
            body = b'{"inputs": "a"}' if method == "POST" else b""
            head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""])
            await client.send(head.encode() + body)
            answer = (await client.read_to_eof()).decode("latin-1")
            found = re.match(r"(?:HTTP/1\.1 100 \r\n(?:.*\r\n)*?\r\n)?HTTP/1\.1 (\d{3}) ", answer)
            assert found, (method, path, headers, answer)
            assert int(found[1]) < 500

    on_a_site(ask_all)
