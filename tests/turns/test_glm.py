import attrs
import pytest

from tgi_llama.turns.formats import MarkedFormat
from tgi_llama.turns.glm import GlmCalls
from tgi_llama.turns.parts import TurnRequest, TurnTool

from .examples import AUTO, REQUESTS, parser_of
from .harness import Call, Turn, check_cut_off, check_reading
from .test_qwen_coder import FORM
from .walks import Walker, check_walks

MARKS = (
    *("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
)
GLM = MarkedFormat(GlmCalls())


def written(name: str, **values: str) -> str:
    """A call as the template shows it."""
    pairs = [
        f"<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n"
        for key, value in values.items()
    ]
    return f"<tool_call>{name}\n{''.join(pairs)}</tool_call>"


PARIS = written("get_weather", city="Paris")
PARIS_CALL = Call("get_weather", '{"city": "Paris"}')
TIME = written("time")
TIME_CALL = Call("time", "{}")

TEXTS = [
    ("Hello there.", Turn("Hello there.")),
    (" a <b> <tool_c", Turn(" a <b> <tool_c")),
    (PARIS, Turn(calls=(PARIS_CALL,))),
    (f"I look.\n{PARIS}\n{TIME}", Turn("I look.", (PARIS_CALL, TIME_CALL))),
    (PARIS.replace("\n", ""), Turn(calls=(PARIS_CALL,))),
    (TIME.replace("\n", ""), Turn(calls=(TIME_CALL,))),
    (
        written("get_weather", city='\n"a"\\ é日\n', days="3"),
        Turn(calls=(Call("get_weather", r'{"city": "\n\"a\"\\ é日\n", "days": 3}'),)),
    ),
    (
        written("get_note", text="3", tags='["</arg_value>"]'),
        Turn(calls=(Call("get_note", '{"text": "3", "tags": ["</arg_value>"]}'),)),
    ),
    (
        written("get_weather", days="three"),
        Turn(calls=(Call("get_weather", '{"days": "three"}'),)),
    ),
]

BROKEN = [
    "<tool_call>get the weather</tool_call>",
    '<tool_call>{"name": "time", "arguments": {}}</tool_call>',
    written("launch"),
    "<tool_call>get_w",
    "<tool_call>",
]


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_read_a_text_gives_its_parts(text: str, expected: Turn) -> None:
    check_reading(parser_of(GLM), text, expected)
    check_cut_off(parser_of(GLM), text, MARKS)


@pytest.mark.parametrize("text", BROKEN)
def test_read_broken_markup_is_content(text: str) -> None:
    check_reading(parser_of(GLM), f"So: {text}", Turn(f"So: {text}", failed=True))


def test_read_markup_that_breaks_after_its_name_keeps_the_call() -> None:
    text = "<tool_call>time\n<arg_key>a</arg_key> 3</tool_call>"
    expected = Turn("3</tool_call>", (Call("time", ""),), failed=True)
    check_reading(parser_of(GLM), text, expected)


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("controls", [(), MARKS], ids=["text", "tokens"])
def test_walk_what_the_grammar_allows_is_read(
    request_: TurnRequest, controls: tuple[str, ...]
) -> None:
    walker = Walker(controls, MARKS)
    request = attrs.evolve(request_, control_spellings=walker.controls)
    turns = check_walks(GLM, request, walker)
    assert any(turn.calls for turn in turns)


@pytest.mark.parametrize("controls", [(), MARKS], ids=["text", "tokens"])
def test_walk_values_are_valid_by_their_schema(controls: tuple[str, ...]) -> None:
    walker = Walker(controls, MARKS)
    tool = TurnTool(name="fill", parameters=FORM, field="tools[0].function")
    request = TurnRequest(tools=(tool,), must_call=True, control_spellings=walker.controls)
    assert len(check_walks(GLM, request, walker, n_walks=40)) > 4


def test_grammar_allows_what_the_template_shows() -> None:
    text = f"I look.\n{written('get_weather', city='Paris', days='3')}\n{TIME}"
    for controls in ((), MARKS):
        walker = Walker(controls)
        plan = GLM.plan(attrs.evolve(AUTO, control_spellings=walker.controls))
        assert plan.grammar is not None
        assert walker.accepts(plan.grammar, text)
        assert plan.shown_controls == frozenset(walker.controls.values())
        for old, new in (("get_weather", "launch"), ("days", "hours"), (">3<", ">x<")):
            assert not walker.accepts(plan.grammar, text.replace(old, new))
