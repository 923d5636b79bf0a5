"""Bytes to JSON values: what Python's parser would let pass is refused."""

import pytest

from tgi_llama.wire.json_text import RepeatedKeys, load
from tgi_llama.wire.parse_error import ParseError


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(b"", "Expecting value", id="empty"),
        pytest.param(b'{"inputs": "a"', "Expecting ',' delimiter", id="truncated"),
        pytest.param(b'{"inputs": "a"} {}', "Extra data", id="two values"),
        pytest.param(b"{'inputs': 1}", "Expecting property name", id="single quotes"),
        pytest.param(b'"\xff"', "not UTF-8 at byte 1", id="latin-1"),
        pytest.param('"a"'.encode("utf-16"), "not UTF-8 at byte 0", id="utf-16"),
        pytest.param(b"\xef\xbb\xbf{}", "BOM", id="byte order mark"),
        pytest.param(b'"\xed\xa0\x80"', "not UTF-8", id="encoded surrogate"),
        pytest.param(b'["\\ud800"]', "half of a surrogate pair", id="escaped surrogate"),
        pytest.param(b'{"\\udc00": 1}', "half of a surrogate pair", id="surrogate in a key"),
        pytest.param(b'{"a": NaN}', "NaN is not a JSON number", id="NaN"),
        pytest.param(b"[-Infinity]", "-Infinity is not a JSON number", id="infinity"),
        pytest.param(b'"\n"', "control character", id="raw newline"),
        pytest.param(b"9" * 5000, "Exceeds the limit", id="huge integer"),
        pytest.param(b"[" * 100_000, "nested too deeply", id="bottomless list"),
        pytest.param(b'{"a":' * 100_000, "nested too deeply", id="bottomless object"),
        pytest.param(b"[" * 130 + b"]" * 130, "deeper than 128 levels", id="130 levels"),
    ],
)
def test_load_bad_json_is_refused_with_400(body: bytes, reason: str) -> None:
    with pytest.raises(ParseError, match=r"^Failed to parse the request body as JSON: ") as caught:
        load(body)
    assert reason in str(caught.value)
    assert caught.value.status == 400
    assert caught.value.path == ""


def test_load_128_levels_are_accepted() -> None:
    value = load(b"[" * 128 + b"]" * 128)
    assert value == load(b"[" * 128 + b"]" * 128)


def test_load_many_shallow_brackets_are_accepted() -> None:
    assert load(b"[" + b",".join([b'{"a":[1]}'] * 200) + b"]") == [{"a": [1]}] * 200


def test_load_surrogate_pair_becomes_one_character() -> None:
    assert load(b'"\\ud83d\\ude00"') == "\N{GRINNING FACE}"


def test_load_repeated_keys_are_reported_and_the_last_value_kept() -> None:
    value = load(b'{"a": 1, "b": 2, "a": 3}')
    assert isinstance(value, RepeatedKeys)
    assert value == {"a": 3, "b": 2}
    assert value.repeated == {"a"}
