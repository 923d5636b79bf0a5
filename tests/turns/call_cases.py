"""Texts of the families that have tables in ``test_calls.py``, and what they mean."""

import attrs

from tgi_llama.turns.formats import Calls, MarkedFormat
from tgi_llama.turns.functionary import FunctionTagCalls, RecipientCalls
from tgi_llama.turns.granite import GraniteCalls
from tgi_llama.turns.hermes import HermesCalls
from tgi_llama.turns.json_way import JsonCalls
from tgi_llama.turns.kimi import KimiCalls
from tgi_llama.turns.llama import LlamaCalls
from tgi_llama.turns.mistral import MistralCalls, MistralNamedCalls

from .harness import Call, Turn

ARGUMENTS = '{"city": "Paris"}'
TRICKY = '{"city":"a}\\"]</tool_call>{\\u00e9 日", "days": -1e2}'
PARIS = Call("get_weather", ARGUMENTS)
TRICKY_CALL = Call("get_weather", TRICKY)
TIME = Call("time", "{}")


@attrs.frozen(kw_only=True)
class Cases:
    calls: Calls
    one: str
    """A call of get_weather for Paris."""
    two: str
    """That, and one of time."""
    tricky: str
    """A call of get_weather with ``TRICKY`` arguments."""
    texts: tuple[tuple[str, Turn], ...] = ()
    """Others, and what they mean."""
    broken: tuple[str, ...] = ()
    """Texts that are content because their markup is none."""
    frames_content: bool = False
    prompt_end: str = ""
    controls: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    """What never shows up in content."""
    asks_for_two: bool = True
    """The grammar allows more than one call."""

    @property
    def turn_format(self) -> MarkedFormat:
        return MarkedFormat(self.calls, None, self.frames_content)


HERMES = Cases(
    calls=HermesCalls(),
    one=f'<tool_call>\n{{"name": "get_weather", "arguments": {ARGUMENTS}}}\n</tool_call>',
    two=f'<tool_call>\n{{"name": "get_weather", "arguments": {ARGUMENTS}}}\n</tool_call>\n'
    '<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>',
    tricky=f'<tool_call>{{"arguments":{TRICKY},"id":[1, {{"b":null}}],"name":"get_weather"}}'
    "</tool_call>",
    marks=("<tool_call>", "</tool_call>"),
    controls=("<tool_call>", "</tool_call>"),
    texts=(
        (" a <b> <tool <tool_cal </tool_\n", Turn(" a <b> <tool <tool_cal </tool_\n")),
        ('So.\n\n<tool_call>{"name": "time"}</tool_call> Done.', Turn("So.Done.", (TIME,))),
        ('<tool_call>{"name": "time", "arguments": null}', Turn(calls=(TIME,))),
        ('<tool_call>{"name": "time", "arguments": ""}</tool_', Turn(calls=(TIME,))),
        (
            '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"\\\\u00e9\\"}"}',
            Turn(calls=(Call("get_weather", '{"city": "\\u00e9"}'),)),
        ),
        (
            '<tool_call>{"arguments": " {\\"city\\": \\"\\u65e5\\"}\\n", "name": "get_weather"}',
            Turn(calls=(Call("get_weather", '{"city": "日"}'),)),
        ),
    ),
    broken=(
        "<tool_call>get the weather</tool_call>",
        '<tool_call>{"name": "launch", "arguments": {}}</tool_call>',
        '<tool_call>{"arguments": {"city": "x"}}</tool_call>',
        '<tool_call>{"arguments": [1], "name": "time"}</tool_call>',
        '<tool_call>{"arguments": "[1]", "name": "time"}</tool_call>',
        '<tool_call>{"arguments": "{} {}", "name": "time"}</tool_call>',
        '<tool_call>{"name": 1}</tool_call>',
        '<tool_call>{"name" "time"}</tool_call>',
        '<tool_call>{"id": 1 "name": "time"}</tool_call>',
        "<tool_call>{name: time}</tool_call>",
        '<tool_call>\n{"name": "get_w',
        "<tool_call>",
    ),
)

_LLAMA_ONE = f'{{"name": "get_weather", "parameters": {ARGUMENTS}}}'

LLAMA = Cases(
    calls=LlamaCalls(),
    one=_LLAMA_ONE,
    two=f'{_LLAMA_ONE}; {{"name": "time", "parameters": {{}}}}',
    tricky=f' {{"type": "function", "name": "get_weather", "parameters": {TRICKY}}}\n',
    marks=("<|python_tag|>",),
    controls=("<|python_tag|>",),
    asks_for_two=False,
    texts=(
        (f"<|python_tag|>{_LLAMA_ONE}", Turn(calls=(PARIS,))),
        ("<|python_tag|>time.call()", Turn(calls=(TIME,))),
        (
            '<|python_tag|>get_weather.call(city="a)\\"b", days=2)',
            Turn(calls=(Call("get_weather", '{"city": "a)\\"b", "days": 2}'),)),
        ),
        ('\n {"answer": 42}', Turn('\n {"answer": 42}')),
        ('{"name": "Alice", "age": 3}', Turn('{"name": "Alice", "age": 3}')),
        ("{ no JSON }", Turn("{ no JSON }")),
        (f"So: {_LLAMA_ONE}", Turn(f"So: {_LLAMA_ONE}")),
    ),
    broken=(
        '{"name": "get_w',
        "{",
        "<|python_tag|>print(1)",
        "<|python_tag|>launch.call()",
        '<|python_tag|>{"city": "x"}',
        "<|python_tag|>",
    ),
)

_MISTRAL_ONE = f'{{"name": "get_weather", "arguments": {ARGUMENTS}}}'
_TIME_OBJECT = '{"name": "time", "arguments": {}}'

MISTRAL = Cases(
    calls=MistralCalls(),
    one=f"[TOOL_CALLS][{_MISTRAL_ONE}]",
    two=f"[TOOL_CALLS] [{_MISTRAL_ONE}, {_TIME_OBJECT}]",
    tricky=f'[TOOL_CALLS][{{"name": "get_weather", "arguments": {TRICKY}, "id": "a1B2c3D4e"}}]',
    marks=("[TOOL_CALLS]",),
    controls=("[TOOL_CALLS]",),
    texts=(
        (f"I look. [TOOL_CALLS]{_MISTRAL_ONE}", Turn("I look.", (PARIS,))),
        (f"[TOOL_CALLS]get_weather[ARGS]{ARGUMENTS}", Turn(calls=(PARIS,))),
        (f"[TOOL_CALLS][{_MISTRAL_ONE}", Turn(calls=(PARIS,))),
        ("[1, 2] [TOOL", Turn("[1, 2] [TOOL")),
    ),
    broken=("[TOOL_CALLS][1]", "[TOOL_CALLS] none", '[TOOL_CALLS][{"name": "launch"}]'),
)

MISTRAL_NAMED = Cases(
    calls=MistralNamedCalls(),
    one=f"[TOOL_CALLS]get_weather[ARGS]{ARGUMENTS}",
    two=f"[TOOL_CALLS]get_weather[ARGS]{ARGUMENTS}[TOOL_CALLS]time[ARGS]{{}}",
    tricky=f"[TOOL_CALLS] get_weather[ARGS] {TRICKY}\n",
    marks=("[TOOL_CALLS]", "[ARGS]"),
    controls=("[TOOL_CALLS]", "[ARGS]"),
    texts=(
        (f"[TOOL_CALLS]get_weather[CALL_ID]a1B2c3D4e[ARGS]{ARGUMENTS}", Turn(calls=(PARIS,))),
        (f"[TOOL_CALLS]get_weather{ARGUMENTS}", Turn(calls=(PARIS,))),
    ),
    broken=("[TOOL_CALLS]launch[ARGS]{}", "[TOOL_CALLS]time[ARGS", f"[TOOL_CALLS]{'x' * 100}"),
)

MISTRAL_WITH_IDS = Cases(
    calls=MistralNamedCalls("mistral_v11", has_ids=True),
    one=f"[TOOL_CALLS]get_weather[CALL_ID]a1B2c3D4e[ARGS]{ARGUMENTS}",
    two=f"[TOOL_CALLS]get_weather[CALL_ID]a1B2c3D4e[ARGS]{ARGUMENTS}"
    "[TOOL_CALLS]time[CALL_ID]a1B2c3D4f[ARGS]{}",
    tricky=f"[TOOL_CALLS]get_weather[CALL_ID]x[ARGS]{TRICKY}",
    marks=("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"),
    controls=("[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"),
)

GRANITE = Cases(
    calls=GraniteCalls(),
    one=f"<|tool_call|>[{_MISTRAL_ONE}]",
    two=f"<|tool_call|>[{_MISTRAL_ONE}, {_TIME_OBJECT}]",
    tricky=f'<|tool_call|> [ {{ "arguments" : {TRICKY} , "name" : "get_weather" }} ] ',
    marks=("<|tool_call|>",),
    controls=("<|tool_call|>",),
    texts=((f"<|tool_call|>{_MISTRAL_ONE}", Turn(calls=(PARIS,))),),
    broken=("<|tool_call|>no", "<|tool_call|>[[]]"),
)

FUNCTION_TAGS = Cases(
    calls=FunctionTagCalls(),
    one=f"<function=get_weather>{ARGUMENTS}</function>",
    two=f"<function=get_weather>{ARGUMENTS}</function><function=time>{{}}</function>",
    tricky=f"<function=get_weather>\n{TRICKY}\n</function>",
    marks=("<function=", "</function>"),
    texts=(("So. <function=time>{}</func", Turn("So.", (TIME,))),),
    broken=("<function=launch>{}</function>", "<function=time", "<function=>{}</function>"),
)

RECIPIENTS = Cases(
    calls=RecipientCalls(),
    frames_content=True,
    prompt_end="assistant<|end_header_id|>\n\n>>>",
    one=f"get_weather\n{ARGUMENTS}",
    two=f"get_weather\n{ARGUMENTS}\n>>>time\n{{}}",
    tricky=f"get_weather\n{TRICKY}",
    marks=(">>>time\n", ">>>get_weather\n"),
    texts=(
        ("all\nIn Python: >>> 1", Turn("In Python: >>> 1")),
        (f"all\nI look.>>>get_weather\n{ARGUMENTS}>>>time\n{{}}", Turn("I look.", (PARIS, TIME))),
        ("", Turn()),
    ),
    broken=("Hello", "launch\n{}", "time {}"),
)

JSON_WAY = Cases(
    calls=JsonCalls(),
    one=_LLAMA_ONE,
    two=f'{_LLAMA_ONE}\n{{"name": "time", "parameters": {{}}}}',
    tricky=f' {{"parameters": {TRICKY}, "name": "get_weather"}} ',
    marks=("no_tool",),
    texts=(
        (
            '{"name": "no_tool", "parameters": {"content": "Hi \\"\\ud83d\\ude00\\n\\u00e9}}"}}',
            Turn('Hi "\N{GRINNING FACE}\né}}'),
        ),
        ("", Turn()),
    ),
    broken=("Hello", '{"name": "launch"}', '{"name": "no_tool", "parameters": {"text": ""}}'),
)

_KIMI_BEGIN, _KIMI_END = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
_KIMI_MARKS = (
    _KIMI_BEGIN,
    _KIMI_END,
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
)


def _kimi(call_id: str, arguments: str) -> str:
    return f"<|tool_call_begin|>{call_id}<|tool_call_argument_begin|>{arguments}<|tool_call_end|>"


_KIMI_ONE = _kimi("functions.get_weather:0", ARGUMENTS)
_KIMI_TIME = _kimi("functions.time:1", "{}")

KIMI = Cases(
    calls=KimiCalls(),
    one=f"{_KIMI_BEGIN}{_KIMI_ONE}{_KIMI_END}",
    two=f"{_KIMI_BEGIN}{_KIMI_ONE}{_KIMI_TIME}{_KIMI_END}",
    tricky=f"{_KIMI_BEGIN}\n{_kimi(' functions.get_weather:12 ', f' {TRICKY} ')}\n{_KIMI_END}\n",
    marks=_KIMI_MARKS,
    controls=_KIMI_MARKS,
    texts=(
        (f"I look.{_KIMI_BEGIN}{_KIMI_ONE}", Turn("I look.", (PARIS,))),
        (f"{_KIMI_BEGIN}{_kimi('get_weather:0', ARGUMENTS)}{_KIMI_END}", Turn(calls=(PARIS,))),
    ),
    broken=(
        f"{_KIMI_BEGIN}{_KIMI_END}",
        f"{_KIMI_BEGIN}{_kimi('functions.launch:0', '{}')}",
        f"{_KIMI_BEGIN}{_kimi('get_weather', '{}')}",
        f"{_KIMI_BEGIN}<|tool_call_begin|>functions.ti",
    ),
)

CASES = (
    HERMES,
    KIMI,
    LLAMA,
    MISTRAL,
    MISTRAL_NAMED,
    MISTRAL_WITH_IDS,
    GRANITE,
    FUNCTION_TAGS,
    RECIPIENTS,
    JSON_WAY,
)
