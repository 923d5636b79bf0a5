import attrs
import pytest

from tgi_llama.turns.command_a import COMMAND_A, COMMAND_A_TEXT
from tgi_llama.turns.formats import MarkedFormat
from tgi_llama.turns.parts import ParserFactory, TurnRequest
from tgi_llama.turns.reasoning import ReasoningMarks

from .examples import ANSWER, AUTO, REQUESTS
from .harness import Call, Turn, check_cut_off, check_reading
from .walks import Walker, check_walks

REASONING = ReasoningMarks("<|START_THINKING|>", "<|END_THINKING|>", gap="")
MARKS = ("<|START_ACTION|>", "<|END_ACTION|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>")
CONTROLS = (*MARKS, REASONING.begin, REASONING.end)
WORDS = ("START_", '\n    {"tool_call_id": "', "tool_name", "\n]")
FORMAT = MarkedFormat(COMMAND_A, REASONING, frames_content=True)


def written(*calls: tuple[str, str]) -> str:
    items = [
        f'    {{"tool_call_id": "{index}", "tool_name": "{name}", "parameters": {arguments}}}'
        for index, (name, arguments) in enumerate(calls)
    ]
    return "<|START_ACTION|>[\n" + ",\n".join(items) + "\n]<|END_ACTION|>"


PARIS = ("get_weather", '{"city": "Paris"}')
PARIS_CALL = Call(*PARIS)
TIME = ("time", "{}")
TIME_CALL = Call(*TIME)
THOUGHT = "<|START_THINKING|>I will look.<|END_THINKING|>"
HELLO = "<|START_RESPONSE|>Hello there.<|END_RESPONSE|>"

TEXTS = [
    ("Hello there.", Turn("Hello there.")),
    (HELLO, Turn("Hello there.")),
    (HELLO.replace("RESPONSE", "TEXT"), Turn("Hello there.")),
    (HELLO[:-16], Turn("Hello there.")),
    (f"{THOUGHT}\n{HELLO}", Turn("Hello there.", reasoning="I will look.")),
    (THOUGHT + written(PARIS), Turn(calls=(PARIS_CALL,), reasoning="I will look.")),
    (written(PARIS, TIME), Turn(calls=(PARIS_CALL, TIME_CALL))),
    (f"I look.{written(PARIS)}{HELLO}", Turn("I look.Hello there.", (PARIS_CALL,))),
    (written(PARIS).replace("[", "").replace("\n]", ""), Turn(calls=(PARIS_CALL,))),
    ("<|START_ACTION|>[]<|END_ACTION|>", Turn()),
    (written(PARIS)[:-5], Turn(calls=(PARIS_CALL,))),
    (
        written(("get_weather", '{"city": "]<|\\n\\"é\\u65e5"}')),
        Turn(calls=(Call("get_weather", '{"city": "]<|\\n\\"é\\u65e5"}'),)),
    ),
]

BROKEN = [
    "<|START_ACTION|>get the weather<|END_ACTION|>",
    written(("launch", "{}")),
    '<|START_ACTION|>[{"tool_call_id": 0, "tool_name": "ti',
    "<|START_ACTION|>",
]


def parser(request: TurnRequest = AUTO) -> ParserFactory:
    plan = FORMAT.plan(request)
    assert plan.make_parser is not None
    return plan.make_parser


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_read_a_text_gives_its_parts(text: str, expected: Turn) -> None:
    check_reading(parser(), text, expected)
    if not expected.reasoning:
        check_cut_off(parser(), text, MARKS)


@pytest.mark.parametrize("text", BROKEN)
def test_read_broken_markup_is_content(text: str) -> None:
    check_reading(parser(), f"So: {text}", Turn(f"So: {text}", failed=True))


def test_read_a_turn_whose_reasoning_or_answer_the_prompt_opened() -> None:
    request = attrs.evolve(AUTO, prompt_end="<|CHATBOT_TOKEN|><|START_THINKING|>")
    text = THOUGHT.removeprefix(REASONING.begin) + written(PARIS)
    check_reading(parser(request), text, Turn(calls=(PARIS_CALL,), reasoning="I will look."))
    request = attrs.evolve(AUTO, prompt_end="<|START_RESPONSE|>")
    check_reading(parser(request), "Hello.<|END_RESPONSE|>", Turn("Hello."))


def test_read_without_tools_takes_the_marks_of_an_answer_away() -> None:
    plan = FORMAT.plan(TurnRequest(control_spellings={"<|START_RESPONSE|>": 5}))
    assert plan.grammar is None
    assert plan.shown_controls == {5}
    assert plan.make_parser is not None
    text = THOUGHT + HELLO + written(PARIS)
    expected = Turn(f"Hello there.{written(PARIS)}", reasoning="I will look.")
    check_reading(plan.make_parser, text, expected)


@pytest.mark.parametrize("prompt_end", ["", REASONING.begin], ids=["open", "in reasoning"])
@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("controls", [(), CONTROLS], ids=["text", "tokens"])
def test_walk_what_the_grammar_allows_is_read(
    controls: tuple[str, ...], request_: TurnRequest, prompt_end: str
) -> None:
    walker = Walker(controls, (*WORDS, *CONTROLS))
    request = attrs.evolve(request_, control_spellings=walker.controls, prompt_end=prompt_end)
    turns = check_walks(FORMAT, request, walker, n_walks=30)
    assert any(turn.calls for turn in turns)


@pytest.mark.parametrize(
    ("content", "prompt_end", "text", "is_allowed"),
    [
        (False, "", f"{THOUGHT}{written(PARIS, TIME)}", True),
        (False, "", f"{THOUGHT}{HELLO}", True),
        (False, "", written(PARIS).replace('"Paris"', "7"), False),
        (True, "", f'{THOUGHT}<|START_RESPONSE|>{{"answer": 4}}<|END_RESPONSE|>', True),
        (True, "", f"{THOUGHT}{HELLO}", False),
        (True, "", f"{THOUGHT}{written(PARIS)}", True),
        (True, "<|START_RESPONSE|>", '{"answer": 4}', True),
    ],
)
def test_grammar_allows_what_templates_show(
    *, content: bool, prompt_end: str, text: str, is_allowed: bool
) -> None:
    for controls in ((), CONTROLS):
        walker = Walker(controls)
        request = attrs.evolve(
            AUTO,
            content=ANSWER if content else None,
            prompt_end=prompt_end,
            control_spellings=walker.controls,
        )
        plan = FORMAT.plan(request)
        assert plan.grammar is not None
        assert walker.accepts(plan.grammar, text) is is_allowed


def test_grammar_of_newer_models_has_their_mark() -> None:
    plan = MarkedFormat(COMMAND_A_TEXT, REASONING, frames_content=True).plan(
        TurnRequest(content=ANSWER)
    )
    assert plan.grammar is not None
    assert Walker().accepts(plan.grammar, '<|START_TEXT|>{"answer": 4}<|END_TEXT|>')
