"""Every kind of grammar on the built-in model's vocabulary: what it takes and what it does not."""

import pytest
from fakes.grammars import Bench

from tgi_llama.structured.grammar import (
    ChoiceGrammar,
    CompositeGrammar,
    JsonSchemaGrammar,
    LarkGrammar,
    RegexGrammar,
)

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("pattern", "accepted", "refused"),
    [
        ("[a-z]{3}", ["abc"], ["ab", "abcd", "ABC"]),
        ("^abc$", ["abc"], ["xabc"]),
        ("a|bc", ["a", "bc"], ["abc"]),
        (r"\d+/\d+", ["1/2"], ["1"]),
        ("", [""], ["a"]),
        ('"a"', ['"a"'], ["a"]),
    ],
)
def test_regex_takes_what_the_whole_pattern_matches(
    bench: Bench, pattern: str, accepted: list[str], refused: list[str]
) -> None:
    grammar = RegexGrammar(pattern=pattern, field="guided_regex")
    assert all(bench.accepts(grammar, text) for text in accepted)
    assert not any(bench.accepts(grammar, text) for text in refused)


def test_schema_takes_valid_json_with_one_space_between_tokens(bench: Bench) -> None:
    grammar = JsonSchemaGrammar(schema=CITY, field="f")
    assert bench.accepts(grammar, '{"city": "Rome", "days": 3}')
    assert not bench.accepts(grammar, '{"city": "Rome", "days": 3.5}')
    assert not bench.accepts(grammar, '{"city": "Rome"}')


@pytest.mark.parametrize("choice", ["yes", 'a"b', "a\\b", "line\nbreak", "\x01", "é😀", "a/b", "|"])
def test_choice_takes_each_of_its_texts(bench: Bench, choice: str) -> None:
    grammar = ChoiceGrammar(choices=(choice, "other"), field="guided_choice")
    assert bench.accepts(grammar, choice)
    assert bench.accepts(grammar, "other")
    assert not bench.accepts(grammar, choice + "x")


def test_lark_takes_rules_terminals_and_schemas(bench: Bench) -> None:
    text = 'start: NAME "=" value\nNAME: /[a-z]+/\nvalue: %json {"type": "integer"} | "none"'
    grammar = LarkGrammar(text=text, field="guided_grammar")
    assert bench.accepts(grammar, "abc=12")
    assert bench.accepts(grammar, "abc=none")
    assert not bench.accepts(grammar, "abc=x")


def test_gbnf_is_converted(bench: Bench) -> None:
    grammar = LarkGrammar(text='root ::= "a" digit+\ndigit ::= [0-9]', field="guided_grammar")
    assert bench.accepts(grammar, "a12")
    assert not bench.accepts(grammar, "a")


def test_composite_takes_its_parts_where_they_are_named(bench: Bench) -> None:
    grammar = CompositeGrammar(
        lark='start: "<" @call ">" (@tail)?',
        parts=(
            ("call", JsonSchemaGrammar(schema=CITY, field="tools[0]")),
            ("tail", RegexGrammar(pattern="!+", field="x")),
        ),
    )
    assert bench.accepts(grammar, '<{"city": "a", "days": 1}>!!')
    assert not bench.accepts(grammar, '<{"city": "a", "days": "1"}>')


def test_composite_error_names_the_field_of_the_part_that_is_wrong(bench: Bench) -> None:
    grammar = CompositeGrammar(
        lark="start: @a | @b",
        parts=(
            ("a", RegexGrammar(pattern="x", field="tools[0]")),
            ("b", RegexGrammar(pattern="(", field="tools[1]")),
        ),
    )
    error = bench.refusal(grammar)
    assert error.field == "tools[1]"
    assert "unclosed group" in str(error)
