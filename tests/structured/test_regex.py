"""Python's syntax of regular expressions in Rust's, and what there is no equal of."""

import re

import pytest
from fakes.grammars import Bench

from tgi_llama.errors import ValidationError
from tgi_llama.structured.grammar import RegexGrammar
from tgi_llama.structured.regex import to_rust

TEXTS = ("", "a", "aa", "aaa", "aaaa", "ab", "b", "[", "&", '{"a": 1}', "{", "a{,x}", "é", "A")
ODD_LETTERS = ("\u0301", "²", "½", "٣", "\x1c", "\u2028", "\b", "-", "_")

PATTERNS = (
    "a{,3}",
    'a{,x}|{"a": \\d}',
    r"\{",
    "{",
    r"a\Z",
    r"\Aa$",
    "^a|b$",
    "[a[]*",
    "[&&a]*",
    "[]a]",
    "[^]a]",
    r"[\]a]",
    "a*?b?",
    "(?P<name>a)+",
    "(?i)a",
    r"\w",
    r"\W",
    r"\s",
    r"\S",
    r"\d",
    r"\D",
    r"[\w-]",
    r"[^\w]",
    r"[^\W]",
    r"[\W\d]",
    r"[a\S]",
    r"[\b]",
    ".?",
    "a{2}",
    "a{2,}",
    "a{2,3}",
    "(?:a|b)+",
    "",
)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.filterwarnings("ignore:Possible nested set")
def test_regex_takes_what_python_matches_as_a_whole(bench: Bench, pattern: str) -> None:
    grammar = RegexGrammar(pattern=pattern, field="f")
    for text in TEXTS + ODD_LETTERS:
        assert bench.accepts(grammar, text) == bool(re.fullmatch(pattern, text)), text


@pytest.mark.parametrize(
    "pattern", [r"\p{L}", r"\p{Lowercase}+", r"[\p{L}]", r"\x{61}", r"\u{61}", r"\P{N}"]
)
def test_what_python_has_not_means_what_it_does_in_rust(bench: Bench, pattern: str) -> None:
    grammar = RegexGrammar(pattern=pattern, field="f")
    assert bench.accepts(grammar, "a")
    assert not bench.accepts(grammar, "1")


@pytest.mark.parametrize(
    ("pattern", "what"),
    [
        ("(?=a)a", "look-ahead"),
        ("a(?!b)", "look-ahead"),
        ("(?<=a)b", "look-behind"),
        ("(?<!a)b", "look-behind"),
        (r"(a)\1", "back-references"),
        ("(?P<x>a)(?P=x)", "back-references"),
        ("(?>a)", "atomic groups"),
        ("(a)?(?(1)b|c)", "conditional groups"),
        ("a*+", "possessive quantifiers"),
        ("a{2,3}+", "possessive quantifiers"),
    ],
)
def test_what_has_no_equal_is_refused_by_name(pattern: str, what: str) -> None:
    with pytest.raises(ValidationError, match=what) as caught:
        to_rust(pattern, field="guided_regex")
    assert caught.value.field == "guided_regex"


@pytest.mark.parametrize("pattern", ["(", "*", "a{3,2}", r"\bword\b", "[z-a]", "\\"])
def test_what_is_wrong_is_refused_with_the_field(bench: Bench, pattern: str) -> None:
    assert (
        bench.refusal(RegexGrammar(pattern=pattern, field="guided_regex")).field == "guided_regex"
    )
