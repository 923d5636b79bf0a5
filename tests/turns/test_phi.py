import attrs
import pytest

from tgi_llama.turns.formats import MarkedFormat
from tgi_llama.turns.parts import TurnRequest
from tgi_llama.turns.phi import PhiCalls

from .examples import AUTO, REQUESTS, parser_of
from .harness import Call, Turn, check_cut_off, check_reading
from .walks import Walker, check_walks

MARKS = ("<|tool_call|>", "<|/tool_call|>")
WORDS = ("functools", "functools[", "[{")
PHI = MarkedFormat(PhiCalls())

PARIS = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
TIME = '{"name": "time", "parameters": {}}'
PARIS_CALL = Call("get_weather", '{"city": "Paris"}')
TIME_CALL = Call("time", "{}")

TEXTS = [
    ("Hello there.", Turn("Hello there.")),
    ("The functools of <|tool", Turn("The functools of <|tool")),
    (f"<|tool_call|>[{PARIS}]<|/tool_call|>", Turn(calls=(PARIS_CALL,))),
    (f"<|tool_call|>[{PARIS}, {TIME}]<|/tool_call|>", Turn(calls=(PARIS_CALL, TIME_CALL))),
    (f"I look. <|tool_call|>\n[{PARIS}]\n", Turn("I look.", (PARIS_CALL,))),
    (f"functools[{PARIS}, {TIME}]", Turn(calls=(PARIS_CALL, TIME_CALL))),
    (f"I look.\nfunctools[{PARIS}] Done.", Turn("I look.Done.", (PARIS_CALL,))),
    (
        'functools[{"name": "get_weather", "arguments": {"city": "]<|\\"é\\u65e5"}}]',
        Turn(calls=(Call("get_weather", '{"city": "]<|\\"é\\u65e5"}'),)),
    ),
]

BROKEN = [
    "<|tool_call|>get the weather<|/tool_call|>",
    '<|tool_call|>[{"name": "launch", "arguments": {}}]<|/tool_call|>',
    "functools[0]",
    "functools[{}]",
    'functools[{"name": "ti',
    "<|tool_call|>",
]


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_read_a_text_gives_its_parts(text: str, expected: Turn) -> None:
    check_reading(parser_of(PHI), text, expected)
    check_cut_off(parser_of(PHI), text, (*MARKS, "functools["))


@pytest.mark.parametrize("text", BROKEN)
def test_read_broken_markup_is_content(text: str) -> None:
    check_reading(parser_of(PHI), f"So: {text}", Turn(f"So: {text}", failed=True))


def test_read_a_list_that_breaks_keeps_its_first_call() -> None:
    text = f"functools[{PARIS}; {TIME}]"
    check_reading(parser_of(PHI), text, Turn(f"; {TIME}]", (PARIS_CALL,), failed=True))


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("controls", [(), MARKS], ids=["text", "tokens"])
def test_walk_what_the_grammar_allows_is_read(
    request_: TurnRequest, controls: tuple[str, ...]
) -> None:
    walker = Walker(controls, (*WORDS, *MARKS))
    request = attrs.evolve(request_, control_spellings=walker.controls)
    turns = check_walks(PHI, request, walker)
    assert any(turn.calls for turn in turns)


@pytest.mark.parametrize("controls", [(), MARKS], ids=["text", "tokens"])
def test_grammar_allows_both_ways_of_calling(controls: tuple[str, ...]) -> None:
    walker = Walker(controls)
    plan = PHI.plan(attrs.evolve(AUTO, control_spellings=walker.controls))
    assert plan.grammar is not None
    for text in (f"Look: functools[{PARIS}]", f"Look: <|tool_call|>[{PARIS}]<|/tool_call|>"):
        assert walker.accepts(plan.grammar, text)
        assert not walker.accepts(plan.grammar, text.replace('"Paris"', "7"))
