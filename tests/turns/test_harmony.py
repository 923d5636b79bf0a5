import re

import attrs
import pytest

from tgi_llama.turns.harmony import HarmonyFormat
from tgi_llama.turns.parts import ParserFactory, TurnRequest

from .examples import ANSWER, AUTO, REQUESTS
from .harness import Call, Turn, check_reading, read
from .walks import Walker, check_walks

CONTROLS = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|constrain|>")
MARKS = (*CONTROLS, "<|call|>", "<|return|>")
WORDS = ("analysis", "commentary", "final", " to=functions.", "assistant", " json")

THOUGHT = "<|channel|>analysis<|message|>They ask <b>.<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>Hello  there."
PREAMBLE = "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant"
PARIS = (
    "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>"
    '{"city": "Paris"}<|call|>'
)
TIME = " to=functions.time<|channel|>commentary json<|message|>{}<|call|>"
PARIS_CALL = Call("get_weather", '{"city": "Paris"}')
TIME_CALL = Call("time", "{}")

TEXTS = [
    ("", Turn()),
    ("<|channel|>final", Turn()),
    (f"{THOUGHT}<|channel|>comm", Turn(reasoning="They ask <b>.")),
    (FINAL, Turn("Hello  there.")),
    (f"{FINAL}<|return|>", Turn("Hello  there.")),
    (THOUGHT + FINAL, Turn("Hello  there.", reasoning="They ask <b>.")),
    (THOUGHT + THOUGHT + FINAL, Turn("Hello  there.", reasoning="They ask <b>.\n\nThey ask <b>.")),
    (PREAMBLE + FINAL, Turn("I look.\n\nHello  there.")),
    (THOUGHT + PARIS, Turn(reasoning="They ask <b>.", calls=(PARIS_CALL,))),
    (THOUGHT + PREAMBLE + PARIS, Turn("I look.", (PARIS_CALL,), "They ask <b>.")),
    (TIME, Turn(calls=(TIME_CALL,))),
    (f"{PARIS}<|start|>assistant{TIME}", Turn(calls=(PARIS_CALL, TIME_CALL))),
    (PARIS.replace(" <|constrain|>json", ""), Turn(calls=(PARIS_CALL,))),
    (PARIS.replace("<|call|>", ""), Turn(calls=(PARIS_CALL,))),
    (PARIS.replace("functions.", ""), Turn(calls=(PARIS_CALL,))),
    (
        PARIS.replace('"Paris"', '"<|end|>\\n\\"é\\u65e5"'),
        Turn(calls=(Call("get_weather", '{"city": "<|end|>\\n\\"é\\u65e5"}'),)),
    ),
    # An end that is missing: the next header ends the message.
    (THOUGHT.replace("<|end|>", "") + FINAL, Turn("Hello  there.", reasoning="They ask <b>.")),
    (
        "<|channel|>analysis<|message|>Hm.<|channel|>final json<|message|>4",
        Turn("4", reasoning="Hm."),
    ),
]

BROKEN = [
    "Hello without a header. " * 20,
    "Hello",
    "<|channel|>final<|end|>Hello",
    PARIS.replace("get_weather", "launch"),
    PARIS.replace('{"city": "Paris"}', "Paris").replace("get_weather", "python"),
]


def parser(*, split: bool = True) -> ParserFactory:
    plan = HarmonyFormat().plan(attrs.evolve(AUTO, split_reasoning=split))
    assert plan.make_parser is not None
    return plan.make_parser


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_read_a_text_gives_its_parts(text: str, expected: Turn) -> None:
    check_reading(parser(), text, expected)


@pytest.mark.parametrize("text", [THOUGHT + FINAL, THOUGHT + PREAMBLE + PARIS, TIME])
def test_read_a_text_that_is_cut_off_between_tokens_gives_a_beginning(text: str) -> None:
    whole = read(parser(), [text])
    tokens = re.findall(rf"{'|'.join(map(re.escape, MARKS))}|(?s:.)", text)
    for n_tokens in range(len(tokens)):
        given = "".join(tokens[:n_tokens])
        cut = read(parser(), [given])
        assert cut.failed == (given in (" ", " t", " to"))
        if cut.failed:
            continue
        assert whole.content.startswith(cut.content)
        assert whole.reasoning.startswith(cut.reasoning)
        for before, after in zip(cut.calls, whole.calls, strict=False):
            assert after.arguments.startswith(before.arguments)


@pytest.mark.parametrize("text", BROKEN)
def test_read_broken_markup_is_content(text: str) -> None:
    check_reading(parser(), text, Turn(text, failed=True))


def test_read_arguments_that_are_no_object_leaves_them_as_content() -> None:
    text = PARIS.replace('{"city": "Paris"}', "Paris")
    expected = Turn("Paris<|call|>", (Call("get_weather", ""),), failed=True)
    check_reading(parser(), text, expected)


def test_read_without_splitting_leaves_the_reasoning_in_the_content() -> None:
    marked = "<|channel|>analysis<|message|>They ask <b>.<|end|>"
    check_reading(parser(split=False), THOUGHT + FINAL, Turn(f"{marked}Hello  there."))
    check_reading(parser(split=False), THOUGHT + PARIS, Turn(marked, (PARIS_CALL,)))


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("controls", [(), CONTROLS], ids=["text", "tokens"])
def test_walk_what_the_grammar_allows_is_read(
    request_: TurnRequest, controls: tuple[str, ...]
) -> None:
    walker = Walker(controls, (*WORDS, *CONTROLS))
    request = attrs.evolve(request_, control_spellings=walker.controls)
    turns = check_walks(HarmonyFormat(), request, walker)
    assert any(turn.calls for turn in turns)
    assert all(len(turn.calls) <= 1 for turn in turns)


@pytest.mark.parametrize(
    ("content", "must_call", "text", "is_allowed"),
    [
        (False, False, THOUGHT + PREAMBLE + PARIS.removesuffix("<|call|>"), True),
        (False, False, THOUGHT + THOUGHT + FINAL, True),
        (False, False, TIME.removesuffix("<|call|>"), True),
        (False, False, "Hello", False),
        (False, False, PARIS.replace('"Paris"', "7").removesuffix("<|call|>"), False),
        (False, True, THOUGHT + PARIS.removesuffix("<|call|>"), True),
        (False, True, THOUGHT + FINAL, False),
        (True, False, THOUGHT + '<|channel|>final<|message|>{"answer": 4}', True),
        (True, False, THOUGHT + FINAL, False),
        (True, False, PREAMBLE + '<|channel|>final<|message|>{"answer": 4}', False),
    ],
)
def test_grammar_constrains_calls_and_the_final_channel_only(
    *, content: bool, must_call: bool, text: str, is_allowed: bool
) -> None:
    for controls in ((), CONTROLS):
        walker = Walker(controls)
        request = attrs.evolve(
            AUTO,
            content=ANSWER if content else None,
            must_call=must_call,
            control_spellings=walker.controls,
        )
        plan = HarmonyFormat().plan(request)
        assert plan.grammar is not None
        assert walker.accepts(plan.grammar, text) is is_allowed


def test_plan_without_tools_still_reads_channels() -> None:
    plan = HarmonyFormat().plan(TurnRequest(control_spellings={"<|channel|>": 7, "<|x|>": 8}))
    assert plan.grammar is None
    assert plan.shown_controls == {7}
    assert plan.make_parser is not None
    check_reading(
        plan.make_parser, THOUGHT + FINAL, Turn("Hello  there.", reasoning="They ask <b>.")
    )
    answer = HarmonyFormat().plan(TurnRequest(content=ANSWER))
    assert answer.grammar is not None
    assert Walker().accepts(answer.grammar, '<|channel|>final<|message|>{"answer": 4}')


OPEN_FINAL = "<|end|><|start|>assistant<|channel|>final<|message|>Hel"
OPEN_ANALYSIS = "<|end|><|start|>assistant<|channel|>analysis<|message|>They"


@pytest.mark.parametrize(
    ("prompt_end", "text", "expected"),
    [
        (OPEN_FINAL, "lo  there.<|return|>", Turn("lo  there.")),
        (OPEN_FINAL, " there.", Turn(" there.")),
        (OPEN_FINAL, f"lo.<|end|><|start|>assistant{PARIS}", Turn("lo.", (PARIS_CALL,))),
        (OPEN_ANALYSIS, f"ask.<|end|><|start|>assistant{FINAL}", Turn("Hello  there.", (), "ask.")),
        # What the prompt ends with is no message of the assistant's that is open.
        ("<|start|>user<|message|>Hi", FINAL, Turn("Hello  there.")),
        (f"{OPEN_FINAL}<|return|>", FINAL, Turn("Hello  there.")),
        ("<|end|><|start|>assistant", FINAL, Turn("Hello  there.")),
    ],
)
def test_read_a_message_that_the_prompt_has_begun(
    prompt_end: str, text: str, expected: Turn
) -> None:
    plan = HarmonyFormat().plan(attrs.evolve(AUTO, prompt_end=prompt_end))
    assert plan.make_parser is not None
    check_reading(plan.make_parser, text, expected)


def test_read_reasoning_that_the_prompt_has_begun_and_is_not_split() -> None:
    request = attrs.evolve(AUTO, prompt_end=OPEN_ANALYSIS, split_reasoning=False)
    plan = HarmonyFormat().plan(request)
    assert plan.make_parser is not None
    text = f" ask.<|end|><|start|>assistant{FINAL}"
    check_reading(plan.make_parser, text, Turn(" ask.<|end|>Hello  there."))


@pytest.mark.parametrize(
    ("prompt_end", "fields", "text", "is_allowed"),
    [
        (OPEN_FINAL, {}, "lo  there.", True),
        (OPEN_FINAL, {}, f"lo{FINAL}", False),
        (OPEN_FINAL, {"content": ANSWER}, '{"answer": 4}', True),
        (OPEN_FINAL, {"must_call": True}, "lo  there.", False),
        (
            OPEN_FINAL,
            {"must_call": True},
            f"lo.<|end|><|start|>assistant{PARIS.removesuffix('<|call|>')}",
            True,
        ),
        (OPEN_ANALYSIS, {}, f"ask.<|end|><|start|>assistant{FINAL}", True),
        (OPEN_ANALYSIS, {}, "ask.", False),
    ],
)
def test_grammar_goes_on_with_a_message_that_the_prompt_has_begun(
    prompt_end: str, fields: dict[str, object], text: str, is_allowed: bool
) -> None:
    for controls in ((), CONTROLS):
        walker = Walker(controls)
        request = attrs.evolve(
            AUTO, prompt_end=prompt_end, control_spellings=walker.controls, **fields
        )
        plan = HarmonyFormat().plan(request)
        assert plan.grammar is not None
        assert walker.accepts(plan.grammar, text) is is_allowed
