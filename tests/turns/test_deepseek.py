import attrs
import pytest

from tgi_llama.turns.deepseek import DEEPSEEK_V3, DEEPSEEK_V3_1, DeepSeekCalls
from tgi_llama.turns.formats import MarkedFormat
from tgi_llama.turns.parts import ParserFactory, TurnRequest, TurnTool
from tgi_llama.turns.reasoning import THINK

from .examples import AUTO, REQUESTS
from .harness import Call, Turn, check_cut_off, check_reading
from .walks import Walker, check_walks

# ruff: noqa: RUF001  the marks' own bars
MARKS = (
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁calls▁end｜>",
)
BEGIN, CALL, SEPARATOR, CALL_END, END = MARKS
PARIS_CALL = Call("get_weather", '{"city": "Paris"}')
TIME_CALL = Call("time", "{}")


def fenced(name: str, arguments: str) -> str:
    return f"{CALL}function{SEPARATOR}{name}\n```json\n{arguments}\n```{CALL_END}"


def short(name: str, arguments: str) -> str:
    return f"{CALL}{name}{SEPARATOR}{arguments}{CALL_END}"


PARIS = fenced("get_weather", '{"city": "Paris"}')
TIME = fenced("time", "{}")
SHORT_PARIS = short("get_weather", '{"city": "Paris"}')
SHORT_TIME = short("time", "{}")

TEXTS = [
    ("Hello there.", Turn("Hello there.")),
    (" a <｜b｜> <｜tool▁ca", Turn(" a <｜b｜> <｜tool▁ca")),
    (f"{BEGIN}{PARIS}{END}", Turn(calls=(PARIS_CALL,))),
    (f"{BEGIN}{PARIS}\n{TIME}{END}", Turn(calls=(PARIS_CALL, TIME_CALL))),
    (f"I look.\n{BEGIN}\n{PARIS}{END} Done.", Turn("I look.Done.", (PARIS_CALL,))),
    (f"{PARIS}{TIME}", Turn(calls=(PARIS_CALL, TIME_CALL))),
    (f"{BEGIN}{PARIS[:-6]}", Turn(calls=(PARIS_CALL,))),
    (f"{BEGIN}{SHORT_PARIS}{END}", Turn(calls=(PARIS_CALL,))),
    (f"{BEGIN}{SHORT_PARIS}{SHORT_TIME}{END}", Turn(calls=(PARIS_CALL, TIME_CALL))),
    (
        BEGIN + fenced("get_weather", '{"city": "```\\n\\"é\\u65e5' + CALL_END + '"}') + END,
        Turn(calls=(Call("get_weather", '{"city": "```\\n\\"é\\u65e5' + CALL_END + '"}'),)),
    ),
]

BROKEN = [
    BEGIN + fenced("launch", "{}") + END,
    f"{BEGIN}{END}",
    f"{BEGIN}{CALL}function{SEPARATOR}\n```json\n{{}}\n```{CALL_END}",
    f"{BEGIN}{CALL}{SEPARATOR}{{}}{CALL_END}",
    f"{BEGIN}the weather",
    f"{BEGIN}{CALL}{'x' * 300}{SEPARATOR}",
    f"{BEGIN}{CALL}function{SEPARATOR}get_we",
]


def parser(*, prompt_end: str = "") -> ParserFactory:
    plan = MarkedFormat(DEEPSEEK_V3, THINK).plan(attrs.evolve(AUTO, prompt_end=prompt_end))
    assert plan.make_parser is not None
    return plan.make_parser


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_read_a_text_gives_its_parts(text: str, expected: Turn) -> None:
    check_reading(parser(), text, expected)
    check_cut_off(parser(), text, MARKS)


@pytest.mark.parametrize("text", BROKEN)
def test_read_broken_markup_is_content(text: str) -> None:
    check_reading(parser(), f"So: {text}", Turn(f"So: {text}", failed=True))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            BEGIN + fenced("time", '{"a": }') + END,
            Turn("}\n```" + CALL_END + END, (Call("time", '{"a": '),), failed=True),
        ),
        (
            f"{BEGIN}{CALL}function{SEPARATOR}time\n{{}}",
            Turn("{}", (Call("time", ""),), failed=True),
        ),
        (
            BEGIN + short("time", "{}").replace(CALL_END, " and so on"),
            Turn("and so on", (TIME_CALL,), failed=True),
        ),
    ],
)
def test_read_markup_that_breaks_after_its_name_keeps_the_call(text: str, expected: Turn) -> None:
    check_reading(parser(), text, expected)


def test_read_a_call_after_reasoning_that_the_prompt_opened() -> None:
    text = f"They ask for {BEGIN}.\n</think>\n\n{BEGIN}{PARIS}{END}"
    expected = Turn(reasoning=f"They ask for {BEGIN}.", calls=(PARIS_CALL,))
    check_reading(parser(prompt_end="<｜Assistant｜><think>\n"), text, expected)


@pytest.mark.parametrize("prompt_end", ["", "<think>\n"], ids=["closed", "in reasoning"])
@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("controls", [(), MARKS], ids=["text", "tokens"])
@pytest.mark.parametrize("calls", [DEEPSEEK_V3, DEEPSEEK_V3_1], ids=["v3", "v3.1"])
def test_walk_what_the_grammar_allows_is_read(
    calls: DeepSeekCalls, controls: tuple[str, ...], request_: TurnRequest, prompt_end: str
) -> None:
    walker = Walker(controls, MARKS)
    request = attrs.evolve(request_, control_spellings=walker.controls, prompt_end=prompt_end)
    reasoning = THINK if prompt_end else None
    turns = check_walks(MarkedFormat(calls, reasoning), request, walker, n_walks=12)
    assert any(turn.calls for turn in turns)


@pytest.mark.parametrize(
    ("calls", "text"),
    [
        (DEEPSEEK_V3, f"Look.\n{BEGIN}{PARIS}\n{TIME}{END}"),
        (DEEPSEEK_V3_1, f"Look.{BEGIN}{SHORT_PARIS}{SHORT_TIME}{END}"),
    ],
)
def test_grammar_allows_what_templates_show(calls: DeepSeekCalls, text: str) -> None:
    for controls in ((), MARKS):
        walker = Walker(controls)
        plan = MarkedFormat(calls).plan(attrs.evolve(AUTO, control_spellings=walker.controls))
        assert plan.grammar is not None
        assert walker.accepts(plan.grammar, text)
        assert not walker.accepts(plan.grammar, text.replace("get_weather", "launch"))
        assert not walker.accepts(plan.grammar, text.replace('"Paris"', "7"))
        assert plan.shown_controls == frozenset(walker.controls.values())


def test_read_a_call_that_is_cut_behind_its_kind_does_not_take_that_for_the_name() -> None:
    tool = TurnTool(name="function", parameters=None, field="tools[0].function")
    request = attrs.evolve(AUTO, tools=(*AUTO.tools, tool))
    make_parser = MarkedFormat(DEEPSEEK_V3).plan(request).make_parser
    assert make_parser is not None
    check_cut_off(make_parser, f"{BEGIN}{PARIS}{END}", MARKS)
