"""Patterns: ECMA's syntax, searched for, against Python's ``re`` where both agree."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structured.json_schema.llguidance_play import accepts, compile_schema

from tgi_llama.errors import ValidationError
from tgi_llama.structured.json_schema import ecma, pattern
from tgi_llama.structured.json_schema.normalise import normalise
from tgi_llama.structured.json_schema.overlap import first_overlap

TEXTS = [
    "",
    "a",
    "b",
    "ab",
    "ba",
    "abc",
    "aab",
    "a1",
    "12",
    "x-1",
    "é",
    "a b",
    "a.b",
    "]",
    "\t",
    "A",
]
SOURCES = [
    "", "a", "^a", "a$", "^a$", "^$", "^a|b$", "^(a|b)$", "(^a|b$)", "(^a|b)c?", "^(?:a|bc)+$",
    "a*?b", "^a{2}", "^.{1,2}$", "^[^a]", "[a-c]{2,}", "[\\d-]", "\\.", "[.]", "\\d+", "\\w\\s\\w",
    "^\\S+$", "^[\\w.]+$", "x\\x2d1", "\\u00e9", "\\t", "^(?<n>a)b", "(a|)b", "(a*)*b", "^\\D*$",
    "[\\s\\S]", "a{0}b", "^(^a)", "(a$)$", "(^a)?b", "[\\]]", "]",
]  # fmt: skip


@pytest.mark.parametrize("source", SOURCES)
def test_pattern_is_searched_for(source: str) -> None:
    schema = {"type": "string", "pattern": source}
    matcher = compile_schema(schema)
    compiled = ecma.compiled(source)
    assert compiled is not None
    for text in TEXTS:
        wanted = re.search(source.replace("?<n>", ""), text, re.ASCII) is not None
        assert accepts(matcher, text) is wanted, text
        assert pattern.matches(compiled, text, lambda _: None) is wanted, text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("^\\d$", "٣"),  # Python's digits are those of all scripts
        ("^\\D$", "٣"),  # ECMA's non-digits are all but ten
        ("^\\w$", "é"),
        ("^\\W$", "é"),
        ("^\\s$", "\ufeff"),
        ("^\\S$", "\x85"),
        ("^[^\\w]$", "é"),
        ("^.$", "\u2028"),
        ("^a$", "a\n"),  # Python's $ is also before a last line feed
    ],
)
def test_text_on_which_dialects_disagree_is_not_generated(source: str, text: str) -> None:
    matcher = compile_schema({"type": "string", "pattern": source})
    assert not accepts(matcher, text)


@pytest.mark.parametrize(
    ("source", "text", "others"),
    [
        ("^\\p{Lu}$", "É", "éa1"),
        ("^\\P{L}$", "1", "aé"),
        ("^\\u{1F600}$", "😀", "é"),
        ("^\\uD83D\\uDE00$", "😀", "é"),
        ("^[\\b\\cJ]$", "\b", "b"),
        ("^[\\s\\S]$", "\n", ["ab"]),
        ("^\\/$", "/", "\\"),
        ("^{$", "{", "a"),
        ("^[\\-\\p{Lu}\\]]+$", "-Á]", "a"),
        ("^[^\\p{Lu}]$", "a", "Á"),
        ("^a{,2}$", "a{,2}", ["a", "aa"]),
    ],
)
def test_syntax_of_ecma_is_understood(source: str, text: str, others: list[str]) -> None:
    matcher = compile_schema({"type": "string", "pattern": source})
    assert accepts(matcher, text)
    assert not any(accepts(matcher, other) for other in others)


@pytest.mark.parametrize(
    "source",
    ["(?=a)b", "(?!a)b", "(?<=a)b", "(?<!a)b", "(?i)a", "(?i:a)", "(a)\\1", "(?<n>a)\\k<n>", "\\ba",
     "a\\B", "(^a)+b", "[]", "\\p{Script=Greek}", "^\\x01$", "(" * 50 + ")" * 50, "a" * 60_000,
     "((a{1,300}){1,300}){1,300}", "[\\W_]", "|".join(["^a"] * 301)],
)  # fmt: skip
def test_what_no_grammar_can_do_is_refused_or_dropped(source: str) -> None:
    schema = {"properties": {"a": {"pattern": source, "type": "string"}}}
    with pytest.raises(ValidationError, match="cannot be enforced") as refused:
        normalise(schema, field="f")
    assert refused.value.field == "f.properties.a.pattern"
    relaxed = normalise(schema, field="f", relaxed=True)
    assert relaxed.relaxed_paths == ("f.properties.a.pattern",)


@pytest.mark.parametrize(
    "source", ["(", "a)", "[a", "*a", "a**", "a{2,1}", "[b-a]", "\\", "\\x1", "\\q", "^*",
               "[\\d-z]", "\\ud83d", "\\u{110000}"],
)  # fmt: skip
def test_what_is_no_pattern_is_refused_even_when_relaxed(source: str) -> None:
    with pytest.raises(ValidationError, match="pattern is not valid") as refused:
        normalise({"pattern": source}, field="f", relaxed=True)
    assert refused.value.field == "f.pattern"


def test_pattern_that_nothing_matches_is_unsatisfiable() -> None:
    with pytest.raises(ValidationError, match="the pattern matches no string") as refused:
        normalise({"type": "string", "pattern": "a^b"}, field="f")
    assert refused.value.field == "f.pattern"


def test_matching_is_linear_where_backtracking_is_not() -> None:
    compiled = ecma.compiled("^(a|a)*(a*)*b$")
    assert compiled is not None
    steps = []
    assert not pattern.matches(compiled, "a" * 200, steps.append)
    assert sum(steps) < 20_000


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("^a", "^b", False),
        ("^a", "b$", True),
        ("^a{2,3}$", "^a{4,}$", False),
        ("^a{2,4}$", "^a{4,}$", True),
        ("^(ab)*$", "^(ab)+a$", False),
        ("^$", "a", False),
        ("^\\W$", "^é$", False),
        ("^\\p{Lu}", "^[A-Z]", True),
        ("^[^a]", "^[^b]", True),
        ("^a{600}$", "^b", True),  # too large to find out
    ],
)
def test_overlap_of_patterns(one: str, other: str, overlap: bool) -> None:
    left, right = ecma.compiled(one), ecma.compiled(other)
    assert left is not None
    assert right is not None
    assert first_overlap([left, right], lambda _: None) == ((left, right) if overlap else None)
    assert first_overlap([right, left], lambda _: None) == ((right, left) if overlap else None)


@settings(max_examples=60, deadline=None)
@given(st.sets(st.text("ab\n😀", max_size=4), max_size=6), st.text("ab\n😀", max_size=5))
def test_excluded_words_are_all_that_is_excluded(words: set[str], text: str) -> None:
    node = pattern.other_than(frozenset(words))
    assert pattern.matches(pattern.Pattern(node), text, lambda _: None) is (text not in words)
