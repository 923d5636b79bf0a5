"""Real templates: which format they are found to have, what goes into their prompts, and that what
they write for an earlier call is what the format asks for and reads."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import attrs
import pytest

from tgi_llama.errors import ConfigError
from tgi_llama.text.chat_template import ChatTemplate
from tgi_llama.turns.detection import FORMAT_NAMES, turn_format
from tgi_llama.turns.formats import MarkedFormat
from tgi_llama.turns.parts import TurnRequest

from .call_cases import PARIS
from .examples import WEATHER, WEATHER_SCHEMA
from .harness import Turn, check_reading
from .walks import Walker

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "chat-templates"

TOOL: Mapping[str, object] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Looks it up",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
USER = {"role": "user", "content": "Weather in Paris?"}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "id": "a1B2c3D4e",
            "type": "function",
            "function": {"name": "get_weather", "arguments": {"city": "Paris"}},
        }
    ],
}
RESULT = {"role": "tool", "tool_call_id": "a1B2c3D4e", "content": "18 degrees"}


@attrs.frozen(kw_only=True)
class Golden:
    format_name: str
    shows: str
    """How a prompt tells of the tool."""
    opens: str
    """The prompt's end, where the model goes on."""
    writes: str
    """The call in a history."""
    ends: str
    """What follows it: the end of the turn, and the tool's result."""
    is_asked_for: bool = True
    """The grammar asks for the call as it is written."""


_QWEN_TOOL = (
    '<tools>\n{"type": "function", "function": {"name": "get_weather", "description": '
    '"Looks it up", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}'
    "\n</tools>"
)
_HERMES_CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
_QWEN_END = (
    "<|im_end|>\n<|im_start|>user\n<tool_response>\n18 degrees\n</tool_response><|im_end|>\n"
    "<|im_start|>assistant\n"
)

GOLDEN = {
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use": Golden(
        format_name="hermes",
        shows='{"type": "function", "function": {"name": "get_weather", "description": '
        '"get_weather(city: str) - Looks it up',
        opens="<|im_start|>assistant\n",
        writes=_HERMES_CALL,
        ends="<|im_end|>\n<|im_start|>tool\n<tool_response>\n18 degrees\n</tool_response>"
        "<|im_end|><|im_start|>assistant\n",
    ),
    "Qwen-Qwen2.5-7B-Instruct": Golden(
        format_name="hermes",
        shows=_QWEN_TOOL,
        opens="<|im_start|>assistant\n",
        writes=_HERMES_CALL,
        ends=_QWEN_END,
    ),
    "Qwen-Qwen3-0.6B": Golden(
        format_name="hermes",
        shows=_QWEN_TOOL,
        opens="<|im_start|>assistant\n",
        writes=_HERMES_CALL,
        ends=_QWEN_END,
    ),
    "meta-llama-Llama-3.1-8B-Instruct": Golden(
        format_name="llama3",
        shows='Respond in the format {"name": function name, "parameters": dictionary of argument'
        ' name and its value}.Do not use variables.\n\n{\n    "type": "function",\n    "function":'
        ' {\n        "name": "get_weather",\n',
        opens="<|start_header_id|>assistant<|end_header_id|>\n\n",
        writes='{"name": "get_weather", "parameters": {"city": "Paris"}}',
        ends='<|eot_id|><|start_header_id|>ipython<|end_header_id|>\n\n"18 degrees"<|eot_id|>'
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "mistralai-Mistral-Nemo-Instruct-2407": Golden(
        format_name="mistral",
        shows='[AVAILABLE_TOOLS][{"type": "function", "function": {"name": "get_weather", ',
        opens="[INST]Weather in Paris?[/INST]",
        writes='[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}, '
        '"id": "a1B2c3D4e"}]',
        ends='</s>[TOOL_RESULTS]{"content": 18 degrees, "call_id": "a1B2c3D4e"}[/TOOL_RESULTS]',
        is_asked_for=False,  # the models leave the id out
    ),
    "ibm-granite-granite-3.3-2B-Instruct": Golden(
        format_name="granite",
        shows="<|start_of_role|>available_tools<|end_of_role|>[\n    {\n"
        '        "type": "function",\n        "function": {\n            "name": "get_weather",\n',
        opens="<|start_of_role|>assistant<|end_of_role|>",
        writes="",  # the template forgets calls
        ends="<|end_of_text|>\n<|start_of_role|>tool<|end_of_role|>18 degrees<|end_of_text|>\n"
        "<|start_of_role|>assistant<|end_of_role|>",
    ),
    "microsoft-Phi-3.5-mini-instruct": Golden(
        format_name="json",
        shows="<|user|>\nWeather in Paris?<|end|>\n",  # nothing: the server has to
        opens="<|assistant|>\n",
        writes="",
        ends="<|end|>\n<|assistant|>\n",
    ),
}


def source_of(name: str) -> str:
    path = FOLDER / f"{name}.jinja"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return path.read_text(encoding="utf-8")


def template_of(name: str) -> ChatTemplate:
    return ChatTemplate(
        source_of(name), bos_token="<s>", eos_token="</s>", now=lambda: datetime(2026, 1, 2)
    )


@pytest.mark.parametrize(("name", "golden"), GOLDEN.items(), ids=GOLDEN)
def test_render_tells_of_tools_calls_and_results(name: str, golden: Golden) -> None:
    template = template_of(name)
    prompt = template.render([USER], tools=[TOOL])
    assert golden.shows in prompt
    assert prompt.endswith(golden.opens)
    history = template.render([USER, CALL, RESULT], tools=[TOOL])
    assert history == f"{prompt}{golden.writes}{golden.ends}"


@pytest.mark.parametrize(("name", "golden"), GOLDEN.items(), ids=GOLDEN)
def test_turn_format_is_that_of_the_template(name: str, golden: Golden) -> None:
    assert turn_format([source_of(name)], ()).name == golden.format_name


@pytest.mark.parametrize(
    ("name", "golden"), [item for item in GOLDEN.items() if item[1].writes], ids=str
)
def test_plan_a_call_is_asked_for_and_read_as_the_template_writes_it(
    name: str, golden: Golden
) -> None:
    walker = Walker()
    request = TurnRequest(tools=(WEATHER,), prompt_end=golden.opens)
    plan = turn_format([source_of(name)], ()).plan(request)
    assert plan.grammar is not None
    assert plan.make_parser is not None
    assert walker.accepts(plan.grammar, golden.writes) == golden.is_asked_for
    check_reading(plan.make_parser, golden.writes, Turn(calls=(PARIS,)))


def test_render_qwen3_without_thinking_closes_the_reasoning() -> None:
    name = "Qwen-Qwen3-0.6B"
    prompt = template_of(name).render([USER], enable_thinking=False)
    assert turn_format([source_of(name)], ()).plan(TurnRequest(prompt_end=prompt)).grammar is None
    open_prompt = template_of(name).render([USER])
    plan = turn_format([source_of(name)], ()).plan(TurnRequest(prompt_end=open_prompt))
    assert plan.make_parser is not None
    check_reading(plan.make_parser, "<think>\nHm\n</think>\n\nYes", Turn("Yes", reasoning="Hm"))


def test_render_deepseek_r1_opens_the_reasoning() -> None:
    name = "deepseek-ai-DeepSeek-R1-Distill-Llama-8B"
    prompt = template_of(name).render([USER])
    plan = turn_format([source_of(name)], ()).plan(TurnRequest(prompt_end=prompt))
    assert plan.make_parser is not None
    check_reading(plan.make_parser, "Hm\n</think>\n\nYes", Turn("Yes", reasoning="Hm"))


SEPARATOR = "<｜tool▁sep｜>"  # noqa: RUF001  DeepSeek's own bars


@pytest.mark.parametrize(
    ("source", "controls", "name"),
    [
        ("{{ tools }} [TOOL_CALLS] [CALL_ID] [ARGS]", (), "mistral_v11"),
        ("{{ tools }} [TOOL_CALLS] [ARGS]", (), "mistral_v13"),
        ("{{ tools }} '[TOOL_CALLS] ['", (), "mistral"),
        ("{{ tools }} <function=' + name + '>' + arguments + '</function>", (), "functionary_v3.1"),
        ("{{ '>>>all\n' + content }}", (), "functionary_v3.2"),
        ("{{ tools }}", ("<|python_tag|>", "<s>"), "llama3"),
        ("{{ tools }}", (), "json"),
        ("{{ messages }}", ("<|python_tag|>", "[TOOL_CALLS]"), "json"),
        ("<|channel|>analysis<|message|>", (), "harmony"),
        ("<|START_ACTION|>[<|END_ACTION|>", (), "command_a"),
        ("<|START_ACTION|> <|START_TEXT|>", (), "command_a_text"),
        ('{{ tools }} Action: "tool_name"', (), "command_r"),
        (f"tools {SEPARATOR} ```json", (), "deepseek_v3"),
        (f"tools {SEPARATOR}", (), "deepseek_v3.1"),
        (f"calls {SEPARATOR} ```json", (), "json"),
        ("{{ tools }}", (SEPARATOR,), "deepseek_v3.1"),
        ("<|tool|>{{ message['tools'] }}<|/tool|>", (), "phi4"),
        ("<tool_call> <function= <parameter= </function> </tool_call>", (), "qwen3_coder"),
        ("<tool_call> <arg_key> <arg_value> </tool_call>", (), "glm4"),
        ("<|tool_call_begin|> <|tool_call_argument_begin|>", (), "kimi_k2"),
    ],
)
def test_turn_format_of_a_template(source: str, controls: tuple[str, ...], name: str) -> None:
    assert turn_format([source], controls).name == name


def test_turn_format_by_name_needs_no_template() -> None:
    for name in FORMAT_NAMES:
        if name != "auto":
            assert turn_format(["<think></think> [TOOL_CALLS]"], (), name=name).name == name
    chosen = turn_format(["<think></think>"], (), name="llama3")
    assert isinstance(chosen, MarkedFormat)
    assert chosen.reasoning is not None


def test_turn_format_by_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(ConfigError, match=r"^--tool-format: 'gorilla' is none of auto, "):
        turn_format([], (), name="gorilla")


def test_format_names_are_distinct() -> None:
    assert len(set(FORMAT_NAMES)) == len(FORMAT_NAMES)


def test_plan_after_reasoning_a_turn_that_is_never_free_begins_with_its_form() -> None:
    turn = turn_format(["<think></think>"], (), name="json")
    plan = turn.plan(TurnRequest(tools=(attrs.evolve(WEATHER, parameters=WEATHER_SCHEMA),)))
    assert plan.grammar is not None
    call = '{"name": "get_weather", "parameters": {"city": "Paris"}}'
    assert Walker().accepts(plan.grammar, f"<think>Hm</think>\n\n{call}")
