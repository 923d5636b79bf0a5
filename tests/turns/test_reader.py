"""What is certain is given out at once, and no more than what may become markup is held back."""

import pytest

from tgi_llama.turns.detection import turn_format
from tgi_llama.turns.parts import CallArguments, CallBegin, Content, Reasoning, TurnParser, TurnPart

from .examples import AUTO


def parser_of(name: str, template: str = "") -> TurnParser:
    make_parser = turn_format([template], (), name=name).plan(AUTO).make_parser
    assert make_parser is not None
    return make_parser()


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        (
            "hermes",
            [
                ("Hello wor", [Content("Hello wor")]),
                ("ld ", [Content("ld")]),
                ("<", []),
                ("b> <tool", [Content(" <b>")]),
                ("_", []),
                ("call>", []),
                ('\n{"name": "time"', [CallBegin(0, "time")]),
                (', "arguments": {"a', [CallArguments(0, '{"a')]),
                ('": [1', [CallArguments(0, '": [1')]),
                ("]}", [CallArguments(0, "]}")]),
                ("}\n</tool_", []),
                ("call>\n", []),
            ],
        ),
        (
            "hermes",
            [
                ('<tool_call>{"arguments": {"a"', []),
                (': 1}, "name": "ti', []),
                ('me"', [CallBegin(0, "time"), CallArguments(0, '{"a": 1}')]),
            ],
        ),
        (
            "llama3",
            [
                ('{"', []),
                ('answer"', [Content('{"answer"')]),
                (": 4", [Content(": 4")]),
            ],
        ),
        (
            "llama3",
            [('{"name": "Al', []), ('ice"', [Content('{"name": "Alice"')])],
        ),
        (
            "json",
            [
                ('{"name": "no_tool", "parameters": {"content": ', []),
                ('"It\\u00', [Content("It")]),
                ("e9 is", [Content("é is")]),
            ],
        ),
        (
            "functionary_v3.1",
            [("a <function", [Content("a")]), ("al", [Content(" <functional")])],
        ),
        (
            "mistral_v13",
            [("[TOOL_CALLS]ti", []), ("me[ARGS]", [CallBegin(0, "time")])],
        ),
    ],
)
def test_push_gives_out_what_is_certain(name: str, steps: list[tuple[str, list[TurnPart]]]) -> None:
    parser = parser_of(name)
    for text, parts in steps:
        assert parser.push(text) == parts, text


def test_push_gives_out_reasoning_as_it_comes() -> None:
    parser = parser_of("hermes", "<think></think>")
    assert parser.push("<think>\nSo") == [Reasoning("So")]
    assert parser.push(", it is.\n") == [Reasoning(", it is.")]
    assert parser.push("And") == [Reasoning("\nAnd")]
    assert parser.push("\n</thin") == []
    assert parser.push("k>\n\nYes") == [Content("Yes")]


def test_failure_says_what_was_wrong() -> None:
    parser = parser_of("hermes")
    assert parser.push('<tool_call>{"name": "launch') == []
    assert parser.failure is None
    assert parser.push('"') == [Content('<tool_call>{"name": "launch"')]
    assert parser.failure == "there is no tool 'launch'"
    assert parser.push("more") == [Content("more")]
    assert parser.n_calls == 0


def test_failure_after_a_call_has_begun_says_so() -> None:
    parser = parser_of("hermes")
    parser.push('<tool_call>{"name": "time", "arguments": {"a": ')
    assert parser.push("x}") == [Content("x}")]
    assert parser.failure == "not JSON at 'x}' after its call had begun"
    assert parser.n_calls == 1


def test_failure_quotes_little_of_a_long_text() -> None:
    parser = parser_of("hermes")
    parser.push("<tool_call>" + "x" * 10_000)
    assert parser.failure is not None
    assert len(parser.failure) < 100


def test_finish_of_a_call_that_is_cut_off_is_no_failure() -> None:
    parser = parser_of("hermes")
    parser.push('<tool_call>{"name": "time", "arguments": {"a": ')
    assert parser.finish() == []
    assert parser.failure is None


def test_finish_of_markup_without_a_name_is_one() -> None:
    parser = parser_of("hermes")
    parser.push('<tool_call>{"na')
    assert parser.finish() == [Content('<tool_call>{"na')]
    assert parser.failure == "the text ends inside of a tool call"
