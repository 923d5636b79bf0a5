import attrs
import pytest

from tgi_llama.turns.detection import turn_format
from tgi_llama.turns.hermes import HermesCalls
from tgi_llama.turns.parts import TurnRequest

from .examples import AUTO, REQUESTS
from .harness import Call, Turn, check_cut_off, check_reading
from .walks import Walker, check_walks

MARKS = ("<tool_call>", "</tool_call>")
PARIS = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
TIME = '<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>'

PLAIN = turn_format([PARIS], {})
PARIS_CALL = Call("get_weather", '{"city": "Paris"}')
TIME_CALL = Call("time", "{}")

TEXTS = [
    ("Hello there.", Turn("Hello there.")),
    ("", Turn()),
    (" a <b> <tool <tool_cal </tool_\n", Turn(" a <b> <tool <tool_cal </tool_\n")),
    (PARIS, Turn(calls=(PARIS_CALL,))),
    (f"{PARIS}\n{TIME}", Turn(calls=(PARIS_CALL, TIME_CALL))),
    (f"{PARIS}{TIME}\n", Turn(calls=(PARIS_CALL, TIME_CALL))),
    (f"I look.\n\n{PARIS} Done.", Turn("I look.Done.", (PARIS_CALL,))),
    (f"{PARIS[:-12]}", Turn(calls=(PARIS_CALL,))),
    (
        '<tool_call>{"arguments":{"city":"a}\\"</tool_call>{"},"id":[1, {"b":null}],'
        '"name":"get_weather"}</tool_call>',
        Turn(calls=(Call("get_weather", '{"city":"a}\\"</tool_call>{"}'),)),
    ),
    (
        '<tool_call>\n{"name": "get_weather", "arguments": "{\\"city\\": \\"\\\\u00e9 \\u65e5\\"}"}'
        "\n</tool_call>",
        Turn(calls=(Call("get_weather", '{"city": "\\u00e9 日"}'),)),
    ),
    ('<tool_call>{"name": "time"}</tool_call>', Turn(calls=(TIME_CALL,))),
    ('<tool_call>{"name": "time", "arguments": null}</tool_call>', Turn(calls=(TIME_CALL,))),
    ('<tool_call>{"name": "time", "arguments": ""}</tool_call>', Turn(calls=(TIME_CALL,))),
]

BROKEN = [
    "<tool_call>get the weather</tool_call>",
    '<tool_call>{"name": "launch", "arguments": {}}</tool_call>',
    '<tool_call>{"arguments": {"city": "x"}}</tool_call>',
    '<tool_call>{"arguments": [1], "name": "time"}</tool_call>',
    '<tool_call>{"arguments": "[1]", "name": "time"}</tool_call>',
    '<tool_call>{"name": 1}</tool_call>',
    '<tool_call>{"name" "time"}</tool_call>',
    "<tool_call>{name: time}</tool_call>",
    f"<tool_call>{PARIS}",
    '<tool_call>\n{"name": "get_w',
    "<tool_call>",
]


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_read_a_text_gives_its_parts(text: str, expected: Turn) -> None:
    plan = PLAIN.plan(AUTO)
    assert plan.make_parser is not None
    check_reading(plan.make_parser, text, expected)
    check_cut_off(plan.make_parser, text, MARKS)


@pytest.mark.parametrize("text", BROKEN)
def test_read_broken_markup_is_content(text: str) -> None:
    plan = PLAIN.plan(AUTO)
    assert plan.make_parser is not None
    check_reading(plan.make_parser, f"So: {text} {TIME}", Turn(f"So: {text} {TIME}", failed=True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '<tool_call>{"name": "time", "arguments": {"a": 1,}}</tool_call>',
            Turn("}}</tool_call>", (Call("time", '{"a": 1,'),), failed=True),
        ),
        (
            '<tool_call>{"name": "time", "arguments": {}} and {TIME}',
            Turn("and {TIME}", (TIME_CALL,), failed=True),
        ),
    ],
)
def test_read_markup_that_breaks_after_its_name_keeps_the_call(text: str, expected: Turn) -> None:
    plan = PLAIN.plan(AUTO)
    assert plan.make_parser is not None
    check_reading(plan.make_parser, text, expected)


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("controls", [(), MARKS], ids=["text", "tokens"])
def test_walk_what_the_grammar_allows_is_read(
    request_: TurnRequest, controls: tuple[str, ...]
) -> None:
    walker = Walker(controls)
    turns = check_walks(
        turn_format([PARIS], walker.controls),
        attrs.evolve(request_, control_spellings=walker.controls),
        walker,
    )
    assert any(turn.calls for turn in turns)


def test_name_is_that_of_the_calls() -> None:
    assert PLAIN.name == HermesCalls().name == "hermes"
