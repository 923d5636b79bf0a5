"""Examples of the API document. That requests are read and answers fit is in tests/conformance."""

from tgi_llama.wire import examples
from tgi_llama.wire.converter import dump


def test_last_example_of_a_stream_ends_it() -> None:
    assert examples.STREAMED[-1].generated_text == "".join(
        event.token.text for event in examples.STREAMED
    )
    for chunks in (examples.CHAT_CHUNKS, examples.COMPLETION_CHUNKS):
        *others, last = [chunk.choices[0].finish_reason for chunk in chunks]
        assert set(others) == {None}
        assert last is not None


def test_usage_adds_up() -> None:
    for answer in (examples.CHAT_COMPLETION, examples.COMPLETED):
        usage = answer.usage
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_text_of_a_kserve_example_travels_as_bytes() -> None:
    assert dump(examples.INFERRED) == (
        b'{"id":"42","outputs":[{"name":"out","shape":[1,3],"datatype":"BYTES","data":[32,53,44]}]}'
    )
