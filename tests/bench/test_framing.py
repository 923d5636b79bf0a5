"""Bodies and events, however the network cuts them."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgi_llama.bench.framing import BodyToTheEnd, ChunkedBody, EventReader, SizedBody
from tgi_llama.errors import MeasuredRequestFailed

_CHUNKED = b"5\r\nhello\r\nA;extension=1\r\n, chunked \r\n5\r\nworld\r\n0\r\n\r\n"
_EVENTS = (
    b'data: {"a": 1}\n\n: a comment\n\nevent: x\ndata: {"b": 2}\n\ndata:{"c": 3}\r\n\r\n'
    b'error: {"d": 4}\n\ndata: one\ndata: two\n\ndata: [DONE]\n\n'
)
_PAYLOADS = [b'{"a": 1}', b'{"b": 2}', b'{"c": 3}', b'{"d": 4}', b"one\ntwo", b"[DONE]"]


def _pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    marks = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(marks)]


@given(st.lists(st.integers(min_value=0, max_value=1000), max_size=8))
def test_chunked_body_is_read_however_it_is_cut(cuts: list[int]) -> None:
    body = ChunkedBody()

    content = b"".join(body.feed(piece) for piece in _pieces(_CHUNKED, cuts))

    assert content == b"hello, chunked world"
    assert body.is_complete


def test_chunked_body_byte_by_byte_is_not_complete_before_its_last_chunk() -> None:
    body = ChunkedBody()
    before_the_last = _CHUNKED.index(b"0\r\n\r\n")

    for byte in _CHUNKED[:before_the_last]:
        body.feed(bytes([byte]))

    assert not body.is_complete


@pytest.mark.parametrize("data", [b"soon\r\n", b"-5\r\nhello", b"x" * 2000])
def test_chunked_body_without_a_size_fails(data: bytes) -> None:
    with pytest.raises(MeasuredRequestFailed, match="a chunk of the answer has"):
        ChunkedBody().feed(data)


def test_sized_body_ends_where_it_says() -> None:
    body = SizedBody(5)

    assert (body.feed(b"hel"), body.is_complete) == (b"hel", False)
    assert (body.feed(b"lo, more"), body.is_complete) == (b"lo", True)
    assert SizedBody(0).is_complete


def test_body_to_the_end_never_says_that_it_is_complete() -> None:
    body = BodyToTheEnd()

    assert (body.feed(b"x"), body.is_complete) == (b"x", False)


@given(st.lists(st.integers(min_value=0, max_value=1000), max_size=8))
def test_events_are_read_however_they_are_cut(cuts: list[int]) -> None:
    reader = EventReader()

    payloads = [one for piece in _pieces(_EVENTS, cuts) for one in reader.feed(piece)]

    assert payloads == _PAYLOADS


def test_event_of_two_lines_that_looks_like_one_is_joined() -> None:
    assert EventReader().feed(b"data: a\ndata: b\n\n") == [b"a\nb"]
    assert EventReader().feed(b"data: a\nb") == []
