"""Each format: what is generated is valid by ``jsonschema``'s checks, and the usual is allowed."""

import json
import random

import pytest
from jsonschema import Draft202012Validator
from structured.json_schema.llguidance_play import accepts, compile_schema, generate

from tgi_llama.errors import ValidationError
from tgi_llama.structured.json_schema import formats
from tgi_llama.structured.json_schema.normalise import normalise

CASES: dict[str, tuple[list[str], list[str]]] = {
    "date": (
        ["2024-02-29", "2000-02-29", "1999-12-31", "0001-01-01", "2023-06-30", "0400-02-29"],
        [
            "2023-02-29",
            "1900-02-29",
            "2023-06-31",
            "0000-01-01",
            "2023-13-01",
            "23-1-1",
            "",
            "0000-02-29",
        ],
    ),
    "time": (
        ["12:30:00Z", "00:00:00.5+01:00", "23:59:59-23:59"],
        ["24:00:00Z", "12:30Z", "12:30:00", "12:60:00Z", "12:30:00+24:00"],
    ),
    "date-time": (
        ["2024-02-29T12:30:00Z", "1999-12-31T00:00:00.123456+02:00"],
        ["2023-02-29T12:30:00Z", "2024-02-29 12:30:00Z", "2024-02-29", "2024-01-01T25:00:00Z"],
    ),
    "duration": (
        ["P1Y", "P3W", "PT1H30M", "P1Y2M3DT4H5M6S", "PT6S", "P1DT1S"],
        ["", "P", "PT", "1Y", "P1W1D", "P1YT", "PT1H1S", "P1M1Y"],
    ),
    "email": (["a@b.c", "joe.bloggs+x@example.com"], ["a", "a@", "@b", "a@b@c", ".a@b", "a b@c"]),
    "hostname": (["localhost", "a-b.example.com", "x" * 63], ["", "-a", "a-", "a..b", "x" * 64]),
    "ipv4": (
        ["0.0.0.0", "127.0.0.1", "255.249.199.9"],
        ["256.0.0.1", "1.2.3", "01.2.3.4", "1.2.3.4.5"],
    ),
    "ipv6": (
        [
            "::",
            "::1",
            "1::",
            "1:2:3:4:5:6:7:8",
            "fe80::1:2",
            "::ffff:1.2.3.4",
            "1:2::7:8",
            "1::3:4:5:6:7:8",
        ],
        [":", "1:2:3:4:5:6:7", "1::2::3", "12345::", "::1.2.3", "1:2:3:4:5:6:7:8:9"],
    ),
    "uuid": (
        ["123e4567-e89b-12d3-a456-426614174000"],
        ["123e4567e89b12d3a456426614174000", "", "x"],
    ),
    "uri": (
        [
            "http://example.com/a?b=c#d",
            "urn:isbn:1",
            "mailto:a@b.c",
            "http://[::1]:80/",
            "file:///x",
            "a:",
        ],
        ["", "example.com", "//a/b", "http://a b", "http://[::1", "http://a/%zz", "1a:b"],
    ),
    "json-pointer": (["", "/", "/a/b~0~1/é"], ["a", "/~", "/~2"]),
}


def test_every_format_that_is_enforced_has_cases() -> None:
    assert set(CASES) == set(formats.PATTERNS)


@pytest.mark.parametrize("name", CASES)
def test_format_is_enforced(name: str) -> None:
    schema = {"type": "string", "format": name}
    matcher = compile_schema(schema)
    valid, invalid = CASES[name]
    assert [text for text in valid if not accepts(matcher, text)] == []
    assert [text for text in invalid if accepts(matcher, text)] == []


@pytest.mark.parametrize("name", CASES)
def test_random_text_of_a_format_is_valid(name: str) -> None:
    schema = {"type": "string", "format": name, "maxLength": 60}
    matcher = compile_schema(schema)
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    rng = random.Random(1)
    made = [generate(matcher, rng, 40) for _ in range(40)]
    texts = [text.decode() for text in made if text is not None]
    assert len(texts) >= 20
    for text in texts:
        validator.validate(json.loads(text))


@pytest.mark.parametrize("name", sorted(formats.UNSUPPORTED))
def test_format_of_the_standard_without_a_pattern_is_refused_or_dropped(name: str) -> None:
    schema = {"items": {"type": "string", "format": name}}
    with pytest.raises(ValidationError, match="cannot be enforced") as refused:
        normalise(schema, field="f")
    assert refused.value.field == "f.items.format"
    assert normalise(schema, field="f", relaxed=True).relaxed_paths == ("f.items.format",)


def test_format_that_no_standard_knows_is_an_annotation() -> None:
    written = normalise({"type": "string", "format": "file-path"}, field="f")
    assert written.schema == {"type": "string"}
    assert written.ignored_paths == ("f.format",)


def test_openapi_formats_of_integers_are_bounds() -> None:
    matcher = compile_schema({"type": "integer", "format": "int32"})
    assert accepts(matcher, 2**31 - 1)
    assert accepts(matcher, -(2**31))
    assert not accepts(matcher, 2**31)


def test_format_says_nothing_about_other_types() -> None:
    matcher = compile_schema({"format": "date"})
    assert accepts(matcher, 5)
    assert not accepts(matcher, "5")
