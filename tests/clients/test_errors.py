"""How the clients word what the server refuses or fails at: which exception they raise."""

import asyncio

import huggingface_hub.errors
import openai
import pytest
import text_generation.errors
from fakes.engine import FakeEngine, fails_after
from huggingface_hub import AsyncInferenceClient, InferenceClient
from text_generation import AsyncClient, Client

from tgi_llama.errors import EngineDead, GenerationError, IncompleteGeneration

MESSAGES = [{"role": "user", "content": "hi"}]
OVERLOADED = {"max_concurrent_requests": 0}
BROKEN = FakeEngine(fails_after(error=GenerationError("no memory")))
INCOMPLETE = FakeEngine(fails_after(error=IncompleteGeneration("lost")))
BROKEN_LATER = FakeEngine(fails_after("a", error=GenerationError("no memory")))

pytestmark = pytest.mark.filterwarnings(
    "ignore::pydantic.PydanticDeprecatedSince20",
    # Some of the clients leave the connection of a failed request to the garbage collector.
    "ignore::ResourceWarning",
)


# --- OpenAI ---


def chat(url, **fields):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0) as client:
        answer = client.chat.completions.create(model="tgi", messages=MESSAGES, **fields)
        return list(answer) if fields.get("stream") else answer


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "engine", "settings", "expected", "words"),
    [
        ({}, None, {"api_keys": ("right",)}, openai.AuthenticationError, "API key"),
        ({"temperature": -1}, None, {}, openai.UnprocessableEntityError, "`temperature` must be"),
        ({"max_tokens": "x"}, None, {}, openai.UnprocessableEntityError, "max_tokens: expected an"),
        ({}, None, OVERLOADED, openai.RateLimitError, "Model is overloaded"),
        (
            {},
            FakeEngine(closed=EngineDead("the decode thread died")),
            {},
            openai.InternalServerError,
            "decode thread",
        ),
    ],
    ids=["key", "value", "type", "overload", "dead"],
)
def test_openai_exception_is_that_of_the_status(
    failure_of, stream, fields, engine, settings, expected, words
):
    error = failure_of(lambda url: chat(url, stream=stream, **fields), engine, **settings)
    assert isinstance(error, expected)
    assert words in error.message
    assert error.body["message"] in error.message


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda client: client.models.retrieve("no-such-model"), openai.NotFoundError),
        (lambda client: client.embeddings.create(model="x", input="y"), openai.NotFoundError),
        (
            lambda client: client.post(
                "/completions", content=b"{", options={"headers": {}}, cast_to=object
            ),
            openai.BadRequestError,
        ),
    ],
    ids=["model", "route", "not json"],
)
def test_openai_exception_for_what_is_not_there(failure_of, call, expected):
    def ask(url):
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            return call(client)

    assert isinstance(failure_of(ask), expected)


@pytest.mark.parametrize(
    ("engine", "expected", "status"),
    [(BROKEN, openai.APIStatusError, 424), (INCOMPLETE, openai.InternalServerError, 500)],
    ids=["generation", "incomplete"],
)
def test_openai_exception_for_a_failed_generation(failure_of, engine, expected, status):
    error = failure_of(chat, engine)
    assert isinstance(error, expected)
    assert error.status_code == status
    # A stream has begun by then: the error is its last event.
    streamed = failure_of(lambda url: chat(url, stream=True), engine)
    assert isinstance(streamed, openai.APIError)
    assert error.body["message"] in streamed.message


def test_openai_param_names_the_field(failure_of):
    error = failure_of(lambda url: chat(url, top_logprobs=21, logprobs=True))
    assert (error.param, error.type) == ("top_logprobs", "invalid_request_error")


def test_openai_failure_in_a_stream_comes_after_what_was_generated(failure_of):
    pieces = []

    def ask(url):
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            for chunk in client.chat.completions.create(model="x", messages=MESSAGES, stream=True):
                pieces.append(chunk.choices[0].delta.content)

    error = failure_of(ask, BROKEN_LATER)
    assert pieces == ["a"]
    assert isinstance(error, openai.APIError)
    assert error.message == "Request failed during generation: no memory"


def test_openai_retries_when_the_server_says_so(failure_of):
    retry_after = []

    def ask(url):
        hooks = {"response": [lambda r: retry_after.append(r.headers["retry-after"])]}
        with (
            openai.DefaultHttpxClient(event_hooks=hooks) as http,
            openai.OpenAI(
                base_url=f"{url}/v1", api_key="none", max_retries=1, http_client=http
            ) as client,
        ):
            client.completions.create(model="tgi", prompt="x")

    assert isinstance(failure_of(ask, **OVERLOADED), openai.RateLimitError)
    assert retry_after == ["1", "1"]


# --- huggingface_hub ---

HUB = huggingface_hub.errors


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "engine", "settings", "expected", "words"),
    [
        ({"top_k": -1}, None, {}, HUB.ValidationError, "`top_k` must be strictly positive"),
        ({"adapter_id": "x"}, None, {}, HUB.ValidationError, "`adapter_id` must name an adapter"),
        ({}, None, OVERLOADED, HUB.OverloadedError, "Model is overloaded"),
        ({}, BROKEN, {}, HUB.GenerationError, "no memory"),
        ({}, INCOMPLETE, {}, HUB.TextGenerationError, "Incomplete generation"),
    ],
    ids=["value", "adapter", "overload", "generation", "incomplete"],
)
def test_hub_text_generation_exception_is_that_of_the_error_type(
    failure_of, stream, fields, engine, settings, expected, words
):
    def ask(url):
        answer = InferenceClient(url).text_generation("x", details=True, stream=stream, **fields)
        return list(answer) if stream else answer

    error = failure_of(ask, engine, **settings)
    assert isinstance(error, expected)
    assert words in str(error)


def test_hub_async_client_raises_the_same(failure_of):
    async def ask(url):
        async with AsyncInferenceClient(url) as client:
            return await client.text_generation("x", top_k=-1)

    error = failure_of(lambda url: asyncio.run(ask(url)))
    assert isinstance(error, HUB.ValidationError)


@pytest.mark.parametrize("stream", [False, True])
def test_hub_chat_exception_shows_the_answer(failure_of, stream):
    def ask(url):
        return InferenceClient(url).chat_completion(MESSAGES, temperature=-1, stream=stream)

    error = failure_of(ask)
    assert isinstance(error, HUB.HfHubHTTPError)
    assert error.response.status_code == 422
    assert "`temperature` must be strictly positive" in error.response.text


def test_hub_failure_in_a_stream_is_raised(failure_of):
    def ask(url):
        return list(InferenceClient(url).text_generation("x", stream=True))

    assert isinstance(failure_of(ask, BROKEN_LATER), HUB.GenerationError)


def test_hub_key_is_sent_and_judged(failure_of):
    def ask(url, token):
        return InferenceClient(url, token=token).text_generation("x")

    error = failure_of(lambda url: ask(url, "wrong"), api_keys=("right",))
    assert isinstance(error, HUB.UnknownError), "TGI has no word for it"
    accepted = failure_of(lambda url: ask(url, "right"), api_keys=("right",), **OVERLOADED)
    assert isinstance(accepted, HUB.OverloadedError)


# --- text-generation ---

TGI = text_generation.errors


@pytest.mark.parametrize("make_client", [Client, AsyncClient], ids=["sync", "async"])
@pytest.mark.parametrize(
    ("fields", "engine", "settings", "expected"),
    [
        ({"max_new_tokens": 0}, None, {}, TGI.ValidationError),
        ({}, None, OVERLOADED, TGI.OverloadedError),
        ({}, BROKEN, {}, TGI.GenerationError),
        ({}, INCOMPLETE, {}, TGI.IncompleteGenerationError),
        ({}, None, {"api_keys": ("right",)}, TGI.UnknownError),
    ],
    ids=["value", "overload", "generation", "incomplete", "key"],
)
def test_text_generation_exception_is_that_of_the_error_type(
    failure_of, make_client, fields, engine, settings, expected
):
    def ask(url):
        answer = make_client(url).generate("x", **fields)
        return asyncio.run(answer) if make_client is AsyncClient else answer

    assert type(failure_of(ask, engine, **settings)) is expected


def test_text_generation_stream_raises_what_is_known_before_the_first_token(failure_of):
    def ask(url):
        return list(Client(url).generate_stream("x", max_new_tokens=0))

    assert type(failure_of(ask)) is TGI.ValidationError
