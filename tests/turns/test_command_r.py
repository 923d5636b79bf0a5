import attrs
import pytest

from tgi_llama.turns.command_r import CommandRCalls
from tgi_llama.turns.formats import MarkedFormat
from tgi_llama.turns.parts import TurnRequest, TurnTool

from .examples import AUTO, REQUESTS, parser_of
from .harness import Call, Turn, check_cut_off, check_reading
from .walks import Walker, check_walks

WORDS = ("Action:", "Action: ```json", "```json", '\n    {\n        "', "tool_name", "\n]```")
COMMAND_R = MarkedFormat(CommandRCalls())


def written(*calls: tuple[str, str]) -> str:
    """A list of calls as the prompt asks for it."""
    items = [
        f'    {{\n        "tool_name": "{name}",\n        "parameters": {arguments}\n    }}'
        for name, arguments in calls
    ]
    return "Action: ```json\n[\n" + ",\n".join(items) + "\n]```"


PARIS = ("get_weather", '{\n            "city": "Paris"\n        }')
PARIS_CALL = Call(*PARIS)
FLAT_PARIS = ("get_weather", '{"city": "Paris"}')
"""The walker's grammars have less white space."""
TIME = ("time", "{}")
TIME_CALL = Call(*TIME)
NO_TOOL = written(("directly-answer", "{}"))

TEXTS = [
    ("Hello there.", Turn("Hello there.")),
    ("Action: go home. Action:", Turn("Action: go home. Action:")),
    ("Action:\n\n``` json", Turn("Action:\n\n``` json")),
    (written(PARIS), Turn(calls=(PARIS_CALL,))),
    (written(PARIS, TIME), Turn(calls=(PARIS_CALL, TIME_CALL))),
    (f"Plan: I look.\n{written(PARIS)}\n", Turn("Plan: I look.", (PARIS_CALL,))),
    # As templates show earlier calls.
    (written(PARIS).replace(": ```", ":\n```"), Turn(calls=(PARIS_CALL,))),
    (written(PARIS)[:-2], Turn(calls=(PARIS_CALL,))),
    (
        written(("get_weather", '{"city": "```\\n\\"é\\u65e5]"}')),
        Turn(calls=(Call("get_weather", '{"city": "```\\n\\"é\\u65e5]"}'),)),
    ),
    (f"{NO_TOOL}\nAnswer: Hello.", Turn("Hello.")),
    (f"{NO_TOOL}\nHello.", Turn("Hello.")),
    (NO_TOOL, Turn()),
    ("Action: ```json\n[]```", Turn()),
    (NO_TOOL.replace("-", "_"), Turn()),
    (f"{NO_TOOL}{written(PARIS)}", Turn(calls=(PARIS_CALL,))),
]

BROKEN = [
    "Action: ```json\nget the weather```",
    written(("launch", "{}")),
    'Action: ```json\n[{"tool_name": "ti',
    "Action: ```json",
]


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_read_a_text_gives_its_parts(text: str, expected: Turn) -> None:
    check_reading(parser_of(COMMAND_R), text, expected)
    check_cut_off(parser_of(COMMAND_R), text, ("```json",))


@pytest.mark.parametrize("text", BROKEN)
def test_read_broken_markup_is_content(text: str) -> None:
    check_reading(parser_of(COMMAND_R), f"So: {text}", Turn(f"So: {text}", failed=True))


def test_read_a_list_that_breaks_keeps_its_first_call() -> None:
    text = written(PARIS).replace("\n]", "\n and so on")
    check_reading(parser_of(COMMAND_R), text, Turn("and so on```", (PARIS_CALL,), failed=True))


def test_read_a_tool_called_directly_answer_is_one() -> None:
    tool = TurnTool(name="directly_answer", parameters=None, field="tools[0].function")
    plan = COMMAND_R.plan(TurnRequest(tools=(tool,)))
    assert plan.make_parser is not None
    expected = Turn(calls=(Call("directly_answer", "{}"),))
    check_reading(plan.make_parser, written(("directly_answer", "{}")), expected)


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_walk_what_the_grammar_allows_is_read(request_: TurnRequest) -> None:
    turns = check_walks(COMMAND_R, request_, Walker((), WORDS))
    assert any(turn.calls for turn in turns)


@pytest.mark.parametrize(
    ("text", "is_allowed"),
    [
        ("Hello there. Action: none", True),
        (f"Plan: look.\n{written(FLAT_PARIS, TIME)}", True),
        (f"Plan: look.\n{written(FLAT_PARIS, TIME)}".replace(": ```", ":\n```"), True),
        (written(("launch", "{}")), False),
        (written(FLAT_PARIS).replace('"Paris"', "7"), False),
        (f"{NO_TOOL}\nAnswer: Hello.", True),
        (NO_TOOL, False),
        (f"{NO_TOOL}\nAnswer: ", False),
    ],
)
def test_grammar_holds_calls_to_their_tools_and_wants_an_answer_without_one(
    *, text: str, is_allowed: bool
) -> None:
    plan = COMMAND_R.plan(AUTO)
    assert plan.grammar is not None
    assert Walker().accepts(plan.grammar, text) is is_allowed


def test_grammar_does_not_answer_directly_where_a_call_is_wanted() -> None:
    plan = COMMAND_R.plan(attrs.evolve(AUTO, must_call=True))
    assert plan.grammar is not None
    assert Walker().accepts(plan.grammar, written(FLAT_PARIS))
    assert not Walker().accepts(plan.grammar, f"{NO_TOOL}\nAnswer: Hello.")
