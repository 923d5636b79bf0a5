"""What is special about version 3.2 of Functionary; the rest is in ``test_calls``."""

import attrs
import pytest

from tgi_llama.errors import ValidationError
from tgi_llama.turns.formats import MarkedFormat
from tgi_llama.turns.functionary import RecipientCalls
from tgi_llama.turns.parts import TurnRequest, TurnTool

from .examples import ANSWER, AUTO
from .harness import Call, Turn, check_reading
from .walks import Walker

FORMAT = MarkedFormat(RecipientCalls(), frames_content=True)
BEGUN = "<|start_header_id|>assistant<|end_header_id|>\n\n>>>all\nHel"
PARIS = '>>>get_weather\n{"city": "Paris"}'
PARIS_CALL = Call("get_weather", '{"city": "Paris"}')


@pytest.mark.parametrize("base", [AUTO, TurnRequest()], ids=["tools", "plain"])
@pytest.mark.parametrize("text", ["lo there.", " there >>> all"])
def test_read_a_text_that_the_prompt_has_begun(base: TurnRequest, text: str) -> None:
    make_parser = FORMAT.plan(attrs.evolve(base, prompt_end=BEGUN)).make_parser
    assert make_parser is not None
    check_reading(make_parser, text, Turn(text))


@pytest.mark.parametrize(
    "prompt_end", [f"{BEGUN}lo<|eot_id|>\n\n>>>", f"{BEGUN}lo.\n>>>", "<|eot_id|>"]
)
def test_read_a_text_that_ended_in_the_prompt_is_not_gone_on_with(prompt_end: str) -> None:
    make_parser = FORMAT.plan(attrs.evolve(AUTO, prompt_end=prompt_end)).make_parser
    assert make_parser is not None
    begin = "" if prompt_end.endswith(">>>") else ">>>"
    check_reading(make_parser, f"{begin}all\nHi", Turn("Hi"))
    check_reading(make_parser, "lo there.", Turn("lo there.", failed=True))


def test_grammar_goes_on_with_a_text_that_the_prompt_has_begun() -> None:
    request = attrs.evolve(AUTO, prompt_end=BEGUN)
    grammar = FORMAT.plan(request).grammar
    assert grammar is not None
    walker = Walker()
    assert walker.accepts(grammar, "lo there.")
    assert walker.accepts(grammar, f"lo.\n{PARIS}")
    make_parser = FORMAT.plan(request).make_parser
    assert make_parser is not None
    check_reading(make_parser, f"lo.\n{PARIS}", Turn("lo.", (PARIS_CALL,)))
    answer = FORMAT.plan(attrs.evolve(request, content=ANSWER)).grammar
    assert answer is not None
    assert walker.accepts(answer, '{"answer": 1}')
    must = FORMAT.plan(attrs.evolve(request, must_call=True)).grammar
    assert must is not None
    assert walker.accepts(must, PARIS)
    assert not walker.accepts(must, "lo there.")


def test_plan_a_tool_that_is_called_as_the_user_is_refused() -> None:
    tool = TurnTool(name="all", parameters=None, field="tools[1].function")
    with pytest.raises(ValidationError) as refused:
        FORMAT.plan(TurnRequest(tools=(*AUTO.tools[:1], tool)))
    assert refused.value.field == "tools[1].function.name"
