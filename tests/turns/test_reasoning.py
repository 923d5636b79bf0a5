"""Reasoning before content, calls and constrained answers."""

import attrs
import pytest

from tgi_llama.structured.grammar import RegexGrammar
from tgi_llama.turns.formats import MarkedFormat
from tgi_llama.turns.granite import GraniteCalls
from tgi_llama.turns.hermes import HermesCalls
from tgi_llama.turns.parts import ParserFactory, TurnRequest
from tgi_llama.turns.reasoning import GRANITE_THINK, THINK, detect_reasoning

from .call_cases import HERMES, PARIS
from .examples import ANSWER, AUTO, REQUESTS
from .harness import Turn, check_cut_off, check_reading
from .walks import Walker, check_walks

FORMAT = MarkedFormat(HermesCalls(), THINK)
PLAIN = TurnRequest()
OPENED = TurnRequest(prompt_end="<|im_start|>assistant\n<think>\n")
CLOSED = TurnRequest(prompt_end="<|im_start|>assistant\n<think>\n\n</think>\n\n")
ANSWER_OR_CALL = attrs.evolve(AUTO, content=ANSWER)
CALL = HERMES.one


def parser_of(request: TurnRequest, turn_format: MarkedFormat = FORMAT) -> ParserFactory:
    make_parser = turn_format.plan(request).make_parser
    assert make_parser is not None
    return make_parser


@pytest.mark.parametrize(
    ("request_", "text", "expected"),
    [
        (PLAIN, "<think>\nSo.\n</think>\n\nHi", Turn("Hi", reasoning="So.")),
        (PLAIN, "\n<think>So.\n\nYes</think>Hi\n", Turn("Hi\n", reasoning="So.\n\nYes")),
        (PLAIN, "<think>\n\n</think>\n\nHi", Turn("Hi")),
        (PLAIN, " Hi <think>no</think>", Turn(" Hi <think>no</think>")),
        (PLAIN, "<thin", Turn("<thin")),
        (PLAIN, "<think>\nSo </thi", Turn(reasoning="So")),
        (PLAIN, "", Turn()),
        (OPENED, "So.\n</think>\n\nHi", Turn("Hi", reasoning="So.")),
        (OPENED, "So", Turn(reasoning="So")),
        (AUTO, f"<think>\nSo {CALL}.\n</think>\n\n{CALL}", Turn("", (PARIS,), f"So {CALL}.")),
        (AUTO, f"<think>\nSo.\n</think>\n\nI see.{CALL}", Turn("I see.", (PARIS,), "So.")),
        (AUTO, f"I see.{CALL}", Turn("I see.", (PARIS,))),
        (ANSWER_OR_CALL, f"<think>\nSo.\n</think>\n\n{CALL}", Turn("", (PARIS,), "So.")),
        (ANSWER_OR_CALL, '<think>So.</think>\n\n{"answer": 1}', Turn('{"answer": 1}', (), "So.")),
    ],
)
def test_read_reasoning_comes_apart(request_: TurnRequest, text: str, expected: Turn) -> None:
    check_reading(parser_of(request_), text, expected)
    check_cut_off(parser_of(request_), text)


def test_read_reasoning_that_the_model_opens_once_more_comes_apart() -> None:
    text = "<think>\nSo.\n</think>\n\nHi"
    check_reading(parser_of(OPENED), text, Turn("Hi", reasoning="So."))


@pytest.mark.parametrize(
    ("request_", "text", "content"),
    [
        (PLAIN, "<think>\nSo.\n</think>\n\nHi", "<think>\nSo.\n</think>\n\nHi"),
        (OPENED, "So.\n</think>\n\nHi", "So.\n</think>\n\nHi"),
        (OPENED, "So", "So"),
    ],
)
def test_read_reasoning_that_is_not_split_is_content(
    request_: TurnRequest, text: str, content: str
) -> None:
    request_ = attrs.evolve(request_, split_reasoning=False)
    check_reading(parser_of(request_), text, Turn(content))


def test_read_calls_in_reasoning_that_is_not_split_are_none() -> None:
    request = attrs.evolve(AUTO, split_reasoning=False)
    expected = Turn(f"<think>{CALL}</think>", (PARIS,))
    check_reading(parser_of(request), f"<think>{CALL}</think>\n{CALL}", expected)


def test_plan_after_reasoning_that_the_prompt_closed_there_is_none() -> None:
    plan = FORMAT.plan(CLOSED)
    assert plan.make_parser is None
    tools = attrs.evolve(AUTO, prompt_end=CLOSED.prompt_end)
    check_reading(parser_of(tools), f"<think>{CALL}", Turn("<think>", (PARIS,)))


@pytest.mark.parametrize("way", REQUESTS)
@pytest.mark.parametrize("base", [PLAIN, OPENED, CLOSED], ids=["optional", "opened", "closed"])
@pytest.mark.parametrize("controls", [(), ("<think>", "</think>")], ids=["text", "tokens"])
def test_walk_calls_after_reasoning_are_read(
    way: str, base: TurnRequest, controls: tuple[str, ...]
) -> None:
    walker = Walker(controls)
    request = attrs.evolve(
        REQUESTS[way], prompt_end=base.prompt_end, control_spellings=walker.controls
    )
    check_walks(FORMAT, request, walker, n_walks=8)


@pytest.mark.parametrize("controls", [(), ("<think>", "</think>")], ids=["text", "tokens"])
def test_plan_constrained_content_begins_after_the_reasoning(controls: tuple[str, ...]) -> None:
    walker = Walker(controls)
    answer, thought = '{"answer": 1}', "So <tool_call> {1}\n</think>\n\n"
    request = TurnRequest(content=ANSWER, control_spellings=walker.controls)
    optional = FORMAT.plan(request).grammar
    opened = FORMAT.plan(attrs.evolve(request, prompt_end="<think>\n")).grammar
    closed = FORMAT.plan(attrs.evolve(request, prompt_end=CLOSED.prompt_end)).grammar
    assert optional is not None
    assert opened is not None
    assert closed == ANSWER
    assert walker.accepts(optional, answer)
    assert walker.accepts(optional, f"<think>\n{thought}{answer}")
    assert not walker.accepts(optional, f"{thought}{answer}")
    assert not walker.accepts(optional, f"<think>\n{thought}")
    assert walker.accepts(opened, f"{thought}{answer}")
    assert not walker.accepts(opened, answer)
    check_reading(
        parser_of(request), f"<think>\n{thought}{answer}", Turn(answer, (), "So <tool_call> {1}")
    )


def test_plan_a_mark_in_reasoning_cannot_be_spelled_where_it_is_a_token() -> None:
    walker = Walker(("<think>", "</think>"))
    request = TurnRequest(content=ANSWER, control_spellings=walker.controls)
    plan = FORMAT.plan(request)
    assert plan.shown_controls == set(walker.controls.values())
    assert plan.grammar is not None
    begin, end = walker.controls["<think>"], b"</think>"
    assert walker.compile(plan.grammar).try_consume_tokens([*b"<think>"]) == 0
    assert walker.compile(plan.grammar).try_consume_tokens([begin, *end]) == len(end)


def test_read_granites_answer_has_marks_of_its_own() -> None:
    turn_format = MarkedFormat(GraniteCalls(), GRANITE_THINK)
    text = "<think>So.</think><response>Hi <b>\n</response>"
    check_reading(parser_of(PLAIN, turn_format), text, Turn("Hi <b>", reasoning="So."))
    check_cut_off(parser_of(PLAIN, turn_format), text, ("<response>", "</response>"))
    check_reading(parser_of(PLAIN, turn_format), "a</response>", Turn("a</response>"))


def test_read_granites_constrained_answer_may_spell_its_marks() -> None:
    turn_format = MarkedFormat(GraniteCalls(), GRANITE_THINK)
    answer = '{"text": "</response> <response>"}'
    expected = Turn(answer, reasoning="So.")
    for request in (TurnRequest(content=ANSWER), attrs.evolve(AUTO, content=ANSWER)):
        text = f"<think>So.</think><response>{answer}"
        check_reading(parser_of(request, turn_format), text, expected)
        check_cut_off(parser_of(request, turn_format), text)
    must = attrs.evolve(AUTO, must_call=True)
    call = '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris"}}]'
    text = f"<think>So.</think><response>{call}"
    check_reading(parser_of(must, turn_format), text, Turn("", (PARIS,), "So."))


@pytest.mark.parametrize("base", [TurnRequest(), AUTO], ids=["plain", "tools"])
def test_read_white_space_that_begins_a_constrained_answer_is_part_of_it(base: TurnRequest) -> None:
    request = attrs.evolve(base, content=RegexGrammar(pattern=r"\s+yes\s*", field="x"))
    for answer in (" yes", "\n\n yes\n"):
        text = f"<think>So.</think>\n\n{answer}"
        check_reading(parser_of(request), text, Turn(answer, reasoning="So."))
        grammar = FORMAT.plan(request).grammar
        assert grammar is not None
        assert Walker().accepts(grammar, text)
    for cut in ("<think>So.</think>", "<think>So.</think>\n", "<think>So.</think>\n\n"):
        check_reading(parser_of(request), cut, Turn(reasoning="So."))


@pytest.mark.parametrize(
    ("source", "begin"),
    [
        ("{{ '<think>\n' }} </think>", "<think>"),
        ("Write your response between <response></response>, <think></think>", "<think>"),
        ("<|START_THINKING|><|END_THINKING|> </think>", "<|START_THINKING|>"),
        ("[THINK] [/THINK]", "[THINK]"),
        ("'Here is my thought process:' 'Here is my response:'", "Here is my thought process:"),
    ],
)
def test_detect_reasoning_finds_the_templates_marks(source: str, begin: str) -> None:
    marks = detect_reasoning(source)
    assert marks is not None
    assert marks.begin == begin


def test_detect_reasoning_without_marks_finds_none() -> None:
    assert detect_reasoning("{{ messages[0].content }}") is None
