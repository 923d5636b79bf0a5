"""Frames of plain tokens are made from patterns: byte for byte what the wire types give."""

import re
from collections.abc import Sequence

import attrs
import pytest
from fakes.engine import finish, text_events
from fakes.site import LIMITS, CharacterTokenizer, CharacterVocabulary, PlainTemplate
from hypothesis import given, settings
from hypothesis import strategies as st

from tgi_llama.generation import FinishReason, Token, TokenEvent, TokenId
from tgi_llama.server import openai_frames
from tgi_llama.server.chat_frames import ChatFrames
from tgi_llama.server.chat_turns import finish_reason as reason_of
from tgi_llama.server.generate import NativeFrames
from tgi_llama.server.openai_frames import Answer, completion_frames
from tgi_llama.server.sse import Frames, frame
from tgi_llama.validation.prepared import PreparedGeneration
from tgi_llama.validation.validator import Validator
from tgi_llama.wire import converter, pattern
from tgi_llama.wire.generate_requests import GenerateParameters, GenerateRequest
from tgi_llama.wire.generate_responses import StreamResponse
from tgi_llama.wire.openai_requests import ChatRequest, CompletionRequest
from tgi_llama.wire.openai_responses import (
    ChatChunkChoice,
    ChatCompletionChunk,
    ChatDelta,
    CompletionChoice,
    CompletionChunk,
    CompletionChunkWithUsage,
)

NOW = 1_750_000_000
ANSWER = Answer(id="chatcmpl-1", model='50 % "off" %d %b\n', system_fingerprint="1.2.3")
VALIDATOR = Validator(
    LIMITS, CharacterTokenizer(), PlainTemplate(), vocabulary=CharacterVocabulary()
)
TEXTS = st.text(st.characters(codec="utf-8"))
TOKENS = st.builds(
    Token,
    st.integers(0, 2**31).map(TokenId),
    TEXTS,
    st.none() | st.floats(width=32, allow_nan=True, allow_infinity=True),
    st.booleans(),
)
EVENTS = st.builds(lambda token, delta: TokenEvent(token=token, delta=delta), TOKENS, TEXTS)


@pytest.fixture(autouse=True)
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_frames.time, "time", lambda: NOW + 0.5)


def chat(**fields: object) -> Sequence[PreparedGeneration]:
    body = converter.parse(
        ChatRequest, converter.dump({"messages": [{"role": "user", "content": "hi"}], **fields})
    )
    return VALIDATOR.chat(body)


def completion(**fields: object) -> Sequence[PreparedGeneration]:
    body = converter.parse(CompletionRequest, converter.dump({"prompt": "hi", **fields}))
    return VALIDATOR.completion(body)


def chat_chunk(index: int, event: TokenEvent) -> ChatCompletionChunk:
    reason = reason_of(event.finish.reason) if event.finish else None
    choice = ChatChunkChoice(
        index=index, delta=ChatDelta(content=event.delta), finish_reason=reason
    )
    return ChatCompletionChunk(
        id=ANSWER.id,
        created=NOW,
        model=ANSWER.model,
        system_fingerprint=ANSWER.system_fingerprint,
        choices=(choice,),
    )


def completion_chunk(index: int, event: TokenEvent, **usage: None) -> CompletionChunk:
    make = CompletionChunkWithUsage if usage else CompletionChunk
    reason = reason_of(event.finish.reason) if event.finish else None
    return make(
        id=ANSWER.id,
        created=NOW,
        choices=(CompletionChoice(index=index, text=event.delta, finish_reason=reason),),
        model=ANSWER.model,
        system_fingerprint=ANSWER.system_fingerprint,
        **usage,
    )


def framed(value: object) -> bytes:
    return frame(converter.dump(value))


@settings(max_examples=200)
@given(EVENTS, st.integers(0, 2))
def test_chat_token_is_framed_as_its_wire_type_is(event: TokenEvent, index: int) -> None:
    frames = ChatFrames(ANSWER, chat(n=3))
    for _ in range(2):
        assert frames.token(index, event) == framed(chat_chunk(index, event))


@settings(max_examples=200)
@given(EVENTS, st.integers(0, 1), st.booleans())
def test_completion_token_is_framed_as_its_wire_type_is(
    event: TokenEvent, index: int, include_usage: bool
) -> None:
    options: dict[str, object] = {"stream": True}
    usage: dict[str, None] = {}
    if include_usage:
        options["stream_options"] = {"include_usage": True}
        usage["usage"] = None
    frames = completion_frames(ANSWER, completion(prompt=["a", "b"], **options))
    for _ in range(2):
        assert frames.token(index, event) == framed(completion_chunk(index, event, **usage))


@settings(max_examples=200)
@given(st.lists(EVENTS, min_size=1, max_size=4))
def test_native_token_is_framed_as_its_wire_type_is(events: list[TokenEvent]) -> None:
    (prepared,) = VALIDATOR.generate(GenerateRequest(inputs="hi"), streaming=True)
    frames = NativeFrames(prepared)
    for index, event in enumerate(events):
        expected = StreamResponse(index=index + 1, token=event.token)
        assert frames.token(0, event) == framed(expected)


LAST = attrs.evolve(text_events("x")[0], finish=finish(FinishReason.EOS_TOKEN, n_generated=1))


def with_alternatives(event: TokenEvent) -> TokenEvent:
    return attrs.evolve(event, top_tokens=(event.token,), finish=None)


@pytest.mark.parametrize(
    ("frames", "event", "has"),
    [
        (lambda: ChatFrames(ANSWER, chat()), LAST, b'"finish_reason":"stop"'),
        (lambda: completion_frames(ANSWER, completion()), LAST, b'"finish_reason":"stop"'),
        (lambda: ChatFrames(ANSWER, chat(logprobs=True)), with_alternatives(LAST), b'"logprobs":{'),
        (
            lambda: completion_frames(ANSWER, completion(logprobs=1)),
            with_alternatives(LAST),
            b'"logprobs":{',
        ),
        (
            lambda: completion_frames(ANSWER, completion(echo=True)),
            attrs.evolve(LAST, finish=None),
            b'"text":"hi"',
        ),
        (
            lambda: NativeFrames(
                VALIDATOR.generate(
                    GenerateRequest(inputs="hi", parameters=GenerateParameters(details=True)),
                    streaming=True,
                )[0]
            ),
            LAST,
            b'"generated_text":"xx","details":{',
        ),
        (
            lambda: NativeFrames(
                VALIDATOR.generate(GenerateRequest(inputs="hi"), streaming=True)[0]
            ),
            with_alternatives(LAST),
            b'"top_tokens":[{',
        ),
    ],
)
def test_event_with_more_than_a_token_says_all_of_it(frames, event, has):  # type: ignore[no-untyped-def]
    made: Frames = frames()
    plain = attrs.evolve(event, finish=None, top_tokens=())
    if b"hi" not in has:
        made.token(0, plain)  # the pattern is there, and is not used
    assert has in made.token(0, event)


def test_echoed_prompt_is_followed_by_plain_tokens() -> None:
    frames = completion_frames(ANSWER, completion(echo=True))
    event = attrs.evolve(LAST, finish=None)
    first = framed(completion_chunk(0, event))
    prompt = framed(completion_chunk(0, attrs.evolve(event, delta="hi")))
    assert frames.token(0, event) == prompt + first
    assert frames.token(0, event) == first


def test_pattern_is_right_whatever_is_around_the_gaps() -> None:
    number, text = pattern.integer_stand_in(), pattern.text_stand_in()
    value = {"%d": "%b 100 %", "n": number, "t": text, "rest": ["%%"]}
    made = pattern.pattern(value, number, text) % (7, converter.dump_text("é%\n"))
    assert made == converter.dump({**value, "n": 7, "t": "é%\n"})


def test_pattern_of_a_value_without_its_stand_in_is_refused() -> None:
    with pytest.raises(AssertionError):
        pattern.pattern({"a": 1}, pattern.text_stand_in())


def test_frames_of_a_long_stream_all_have_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = ChatFrames(ANSWER, chat())
    (event,) = [attrs.evolve(one, finish=None) for one in text_events("a")]
    times = []
    for now in (NOW, NOW + 1, NOW + 60):
        monkeypatch.setattr(openai_frames.time, "time", lambda now=now: now)
        found = re.search(rb'"created":(\d+)', frames.token(0, event))
        assert found is not None
        times.append(int(found[1]))
    assert times == [NOW, NOW + 1, NOW + 60]
