"""Every family's calls: read at every cut, written by every grammar."""

import attrs
import pytest

from tgi_llama.turns.parts import ParserFactory, TurnRequest

from .call_cases import CASES, PARIS, TIME, TRICKY_CALL, Cases
from .examples import AUTO, REQUESTS
from .harness import Call, Turn, check_cut_off, check_reading
from .walks import Walker, check_walks

FAMILIES = pytest.mark.parametrize("cases", CASES, ids=lambda cases: cases.calls.name)
TEXTS = pytest.mark.parametrize(
    ("cases", "text", "expected"),
    [
        pytest.param(cases, text, expected, id=f"{cases.calls.name}-{index}")
        for cases in CASES
        for index, (text, expected) in enumerate(
            [
                (cases.one, Turn(calls=(PARIS,))),
                (cases.two, Turn(calls=(PARIS, TIME))),
                (cases.tricky, Turn(calls=(TRICKY_CALL,))),
                *cases.texts,
            ]
        )
    ],
)
BROKEN = pytest.mark.parametrize(
    ("cases", "text"),
    [
        pytest.param(cases, text, id=f"{cases.calls.name}-{index}")
        for cases in CASES
        for index, text in enumerate(cases.broken)
    ],
)


def parser_of(cases: Cases, request: TurnRequest = AUTO) -> ParserFactory:
    request = attrs.evolve(request, prompt_end=cases.prompt_end)
    make_parser = cases.turn_format.plan(request).make_parser
    assert make_parser is not None
    return make_parser


@TEXTS
def test_read_a_text_gives_its_parts(cases: Cases, text: str, expected: Turn) -> None:
    check_reading(parser_of(cases), text, expected)


@TEXTS
def test_read_a_text_that_is_cut_off_gives_its_beginning(
    cases: Cases, text: str, expected: Turn
) -> None:
    assert not expected.failed
    check_cut_off(parser_of(cases), text, cases.marks)


@BROKEN
def test_read_broken_markup_is_content(cases: Cases, text: str) -> None:
    check_reading(parser_of(cases), text, Turn(text, failed=True))


@FAMILIES
def test_read_arguments_that_break_keeps_the_call_and_gives_out_the_rest(cases: Cases) -> None:
    place = cases.one.index("Paris") + len("Paris")
    text = f"{cases.one[:place]}\n{cases.one[place:]}"
    call = Call("get_weather", '{"city": "Paris')
    rest = text[place:].lstrip()  # white space before content that follows a call is no part of it
    check_reading(parser_of(cases), text, Turn(rest, (call,), failed=True))


@FAMILIES
def test_plan_the_grammar_accepts_what_the_model_was_trained_to_write(cases: Cases) -> None:
    for controls in ((), cases.controls):
        walker = Walker(controls)
        request = attrs.evolve(AUTO, control_spellings=walker.controls, prompt_end=cases.prompt_end)
        grammar = cases.turn_format.plan(request).grammar
        assert grammar is not None
        assert walker.accepts(grammar, cases.one)
        assert walker.accepts(grammar, cases.two.replace("] [", "][")) == cases.asks_for_two
        alone = cases.turn_format.plan(attrs.evolve(request, parallel=False)).grammar
        assert alone is not None
        assert walker.accepts(alone, cases.one)
        assert not walker.accepts(alone, cases.two)


@pytest.mark.parametrize("way", REQUESTS)
@pytest.mark.parametrize(
    ("cases", "has_controls"),
    [
        pytest.param(cases, has_controls, id=f"{cases.calls.name}-{kind}")
        for cases in CASES
        for kind, has_controls in (("text", False), ("tokens", True))
        if cases.controls or not has_controls
    ],
)
def test_walk_what_the_grammar_allows_is_read(cases: Cases, way: str, has_controls: bool) -> None:
    walker = Walker(cases.controls if has_controls else ())
    request = attrs.evolve(
        REQUESTS[way], control_spellings=walker.controls, prompt_end=cases.prompt_end
    )
    turns = check_walks(cases.turn_format, request, walker, n_walks=12)
    if request.must_call:
        assert all(turn.calls for turn in turns)


@FAMILIES
def test_plan_shows_the_marks_that_are_tokens(cases: Cases) -> None:
    controls = {mark: 1000 + index for index, mark in enumerate(cases.controls)}
    request = attrs.evolve(AUTO, control_spellings={**controls, "<|other|>": 7})
    plan = cases.turn_format.plan(request)
    assert plan.shown_controls == set(controls.values())


@FAMILIES
def test_plan_without_tools_is_free_text(cases: Cases) -> None:
    plan = cases.turn_format.plan(TurnRequest(prompt_end=cases.prompt_end))
    assert plan.grammar is None
    assert (plan.make_parser is None) == (not cases.frames_content)
