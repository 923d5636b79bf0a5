"""Real templates: what tools and earlier calls look like in the prompt, and that a call, written as
the template shows it, is what the format's grammar allows and its parser reads."""

from datetime import datetime
from pathlib import Path

import attrs
import pytest

from tgi_llama.text.chat_template import ChatTemplate
from tgi_llama.turns.detection import turn_format
from tgi_llama.turns.parts import TurnPlan, TurnRequest, TurnTool

from .harness import Turn, check_reading, read
from .walks import Walker

# ruff: noqa: RUF001  DeepSeek's own bars

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "chat-templates"

PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "Its name"},
        "days": {"type": "integer", "description": "How many"},
    },
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = TurnTool(name="get_weather", parameters=PARAMETERS, field="tools[0].function")
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": PARAMETERS,
    },
}
ASK = {"role": "user", "content": "How is Zürich?"}
TELL = {"role": "tool", "tool_call_id": "call_1", "name": "get_weather", "content": "sunny"}
ARGUMENTS = {"city": 'Zürich "Alt"\nstadt', "days": 3}
WRITTEN = '{"city": "Zürich \\"Alt\\"\\nstadt", "days": 3}'


def called(arguments: object, **more: object) -> dict[str, object]:
    function = {"name": "get_weather", "arguments": arguments}
    return {
        "role": "assistant",
        "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
        **more,
    }


@attrs.frozen(kw_only=True)
class Golden:
    template: str
    format: str
    controls: tuple[str, ...]
    tools: str
    """How the prompt shows the tool."""
    call: str
    """How the prompt shows the call."""
    before: str
    """What stands before the call in the prompt."""
    after: str
    """What follows the call in the prompt, with the tool's result."""
    end: str
    """The end of the prompt."""


GOLDEN = [
    Golden(
        template="CohereForAI-c4ai-command-r-plus-tool_use",
        format="command_r",
        controls=(),
        tools='def get_weather(city: str, days: Optional[int] = None) -> List[Dict]:\n    """The '
        "weather in a city\n\n    Args:\n        city (str): Its name\n        days "
        '(Optional[int]): How many\n    """\n    pass\n```<|END_OF_TURN_TOKEN|>',
        call='\nAction:\n```json\n[\n    {\n        "tool_name": "get_weather",\n        '
        '"parameters": {\n            "city": "Zürich \\"Alt\\"\\nstadt",\n            "days": 3'
        "\n        }\n    }\n]```\n",
        before="<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        after="<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|><results>\nsunny</results>",
        end="]```<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
    ),
    Golden(
        template="Qwen3-Coder",
        format="qwen3_coder",
        controls=("<tool_call>", "</tool_call>"),
        tools="<tools>\n<function>\n<name>get_weather</name>\n<description>The weather in a city"
        "</description>\n<parameters>\n<parameter>\n<name>city</name>\n<type>string</type>\n"
        "<description>Its name</description>\n</parameter>\n<parameter>\n<name>days</name>\n"
        "<type>integer</type>\n<description>How many</description>\n</parameter>\n",
        call="<tool_call>\n<function=get_weather>\n<parameter=city>\nZürich "
        '"Alt"\nstadt\n</parameter>\n<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>',
        before="<|im_start|>assistant\n",
        after="<|im_end|>\n<|im_start|>user\n<tool_response>\nsunny\n</tool_response>\n<|im_end|>",
        end="<|im_end|>\n<|im_start|>assistant\n",
    ),
    Golden(
        template="openai-gpt-oss-120b",
        format="harmony",
        controls=("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|constrain|>"),
        tools="namespace functions {\n\n// The weather in a city\ntype get_weather = (_: {\n"
        "// Its name\ncity: string,\n// How many\ndays?: number,\n}) => any;\n\n} // namespace "
        "functions<|end|>",
        call=f" to=functions.get_weather<|channel|>commentary json<|message|>{WRITTEN}",
        before="<|start|>assistant",
        after="<|call|><|start|>functions.get_weather to=assistant<|channel|>commentary<|message|>"
        '"sunny"<|end|>',
        end="<|end|><|start|>assistant",
    ),
]


def prompt_of(golden: Golden) -> str:
    path = FOLDER / f"{golden.template}.jinja"
    if not path.exists():
        pytest.skip("the shared data has no chat templates")
    template = ChatTemplate(
        path.read_text(encoding="utf-8"),
        bos_token="<s>",
        eos_token="</s>",
        now=lambda: datetime(2026, 1, 2),
    )
    return template.render([ASK, called(ARGUMENTS), TELL], [TOOL])


def plan_of(golden: Golden, walker: Walker) -> TurnPlan:
    source = (FOLDER / f"{golden.template}.jinja").read_text(encoding="utf-8")
    found = turn_format([source], walker.controls)
    assert found.name == golden.format
    return found.plan(TurnRequest(tools=(WEATHER,), control_spellings=walker.controls))


EACH = pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.template)


@EACH
def test_prompt_shows_the_tool_the_call_and_its_result(golden: Golden) -> None:
    prompt = prompt_of(golden)
    assert golden.tools in prompt
    assert golden.before + golden.call + golden.after in prompt
    assert prompt.endswith(golden.end)


@EACH
def test_call_as_the_prompt_shows_it_is_read(golden: Golden) -> None:
    prompt_of(golden)  # skips where there is none
    make_parser = plan_of(golden, Walker(golden.controls)).make_parser
    assert make_parser is not None
    turn = read(make_parser, [golden.call])
    (call,) = turn.calls
    assert call.name == "get_weather"
    assert call.value == ARGUMENTS
    assert turn == Turn(calls=(call,))
    check_reading(make_parser, golden.call, turn)


@EACH
def test_call_as_the_prompt_shows_it_is_allowed(golden: Golden) -> None:
    prompt_of(golden)  # skips where there is none
    # The walker's grammars have less white space in JSON than the template writes.
    text = golden.call.replace(" " * 12, " ").replace("\n        }", " }").rstrip("\n")
    for controls in ((), golden.controls):
        walker = Walker(controls)
        plan = plan_of(golden, walker)
        assert plan.grammar is not None
        assert walker.accepts(plan.grammar, text)
        assert not walker.accepts(plan.grammar, text.replace("3", "three"))


def test_prompt_of_deepseek_r1_shows_a_call_whose_arguments_are_text() -> None:
    path = FOLDER / "deepseek-ai-DeepSeek-R1-Distill-Llama-8B.jinja"
    if not path.exists():
        pytest.skip("the shared data has no chat templates")
    source = path.read_text(encoding="utf-8")
    template = ChatTemplate(source, bos_token="<s>", eos_token="</s>")
    prompt = template.render([ASK, called({"city": "Zürich"}, content=""), TELL])
    assert prompt == (
        "<s><｜User｜>How is Zürich?<｜Assistant｜><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>"
        'function<｜tool▁sep｜>get_weather\n```json\n{"city": "Zürich"}\n```<｜tool▁call▁end｜>'
        "<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>sunny<｜tool▁output▁end｜>"
        "<｜tool▁outputs▁end｜>"
    )
    assert template.render([ASK]).endswith("<｜Assistant｜><think>\n")
    # It shows no tools, so the server tells the model of them, and of a way to call them.
    assert turn_format([source], ()).name not in ("deepseek_v3", "deepseek_v3.1")


def test_prompt_of_phi_3_5_shows_no_tools() -> None:
    path = FOLDER / "microsoft-Phi-3.5-mini-instruct.jinja"
    if not path.exists():
        pytest.skip("the shared data has no chat templates")
    assert turn_format([path.read_text(encoding="utf-8")], ()).name == "json"
