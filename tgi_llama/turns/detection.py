"""Which format a model's turns have, by the text of its chat template.

A template's text shows how earlier calls are written into the prompt, and so how the model was
trained to write them. The table's order matters: the first
entry that fits is taken, and the last one where none does.
"""

from collections.abc import Iterable

import attrs

from tgi_llama.errors import ConfigError

from .command_a import COMMAND_A, COMMAND_A_TEXT
from .command_r import CommandRCalls
from .deepseek import DEEPSEEK_V3, DEEPSEEK_V3_1
from .formats import Calls, MarkedFormat
from .functionary import FunctionTagCalls, RecipientCalls
from .glm import GlmCalls
from .granite import GraniteCalls
from .harmony import HarmonyFormat
from .hermes import HermesCalls
from .json_way import JsonCalls
from .kimi import KimiCalls
from .llama import LlamaCalls
from .mistral import MistralCalls, MistralNamedCalls
from .parts import TurnFormat
from .phi import PhiCalls
from .qwen_coder import QwenCoderCalls
from .reasoning import detect_reasoning


@attrs.frozen
class Family:
    """An entry of the table."""

    calls: Calls | HarmonyFormat
    needles: tuple[tuple[str, ...], ...]
    """Alternatives; all texts of one of them must occur in the template."""
    frames_content: bool = False
    """As in ``MarkedFormat``."""
    is_never_free: bool = False

    def fits(self, template_source: str) -> bool:
        return any(all(text in template_source for text in texts) for texts in self.needles)


_TOOLS = "tools"
"""A template that shows earlier calls but no tools, as DeepSeek R1's does, says nothing of how the
model is told of them: then the server tells it, and how to answer."""

_DEEPSEEK = ("<｜tool▁sep｜>", _TOOLS)  # noqa: RUF001  the marks' own bars

FAMILIES: tuple[Family, ...] = (
    Family(HarmonyFormat(), needles=(("<|channel|>", "<|message|>"),)),
    Family(COMMAND_A_TEXT, needles=(("<|START_ACTION|>", "<|START_TEXT|>"),), frames_content=True),
    Family(COMMAND_A, needles=(("<|START_ACTION|>",),), frames_content=True),
    Family(CommandRCalls(), needles=(("Action:", '"tool_name"', _TOOLS),)),
    Family(DEEPSEEK_V3, needles=((*_DEEPSEEK, "```json"),)),
    Family(DEEPSEEK_V3_1, needles=(_DEEPSEEK,)),
    Family(PhiCalls(), needles=(("<|tool|>", "<|/tool|>"), ("<|/tool_call|>",))),
    Family(RecipientCalls(), needles=((">>>all",),), frames_content=True),
    Family(QwenCoderCalls(), needles=(("<tool_call>", "<function=", "<parameter="),)),
    Family(FunctionTagCalls(), needles=(("<function=", "</function>"),)),
    Family(MistralNamedCalls("mistral_v11", has_ids=True), needles=(("[CALL_ID]", "[ARGS]"),)),
    Family(MistralNamedCalls(), needles=(("[TOOL_CALLS]", "[ARGS]"),)),
    Family(MistralCalls(), needles=(("[TOOL_CALLS]",),)),
    Family(GraniteCalls(), needles=(("<|tool_call|>", "<|start_of_role|>"),)),
    Family(KimiCalls(), needles=(("<|tool_call_argument_begin|>",),)),
    Family(GlmCalls(), needles=(("<tool_call>", "<arg_key>", "<arg_value>"),)),
    Family(HermesCalls(), needles=(("<tool_call>", "</tool_call>"),)),
    Family(
        LlamaCalls(),
        needles=(("<|python_tag|>",), ("<|start_header_id|>", '"parameters": ', "ipython")),
    ),
    Family(JsonCalls(), needles=(), is_never_free=True),
)

FORMAT_NAMES: tuple[str, ...] = ("auto", *(family.calls.name for family in FAMILIES))
"""What ``--tool-format`` may be."""


def turn_format(
    template_sources: Iterable[str],
    control_spellings: Iterable[str],
    *,
    name: str = "auto",
) -> TurnFormat:
    """The format of a model with these templates (the one for tools first) and these control tokens
    in its vocabulary; ``name`` decides for itself where it is not ``auto``. Raises ConfigError for
    a name that there is not."""
    source = "\n".join(template_sources)
    reasoning = detect_reasoning(source)
    family = _by_text(source, control_spellings) if name == "auto" else _by_name(name)
    if isinstance(family.calls, HarmonyFormat):
        return family.calls
    return MarkedFormat(
        family.calls,
        reasoning,
        frames_content=family.frames_content,
        is_never_free=family.is_never_free,
    )


def _by_name(name: str) -> Family:
    for family in FAMILIES:
        if family.calls.name == name:
            return family
    raise ConfigError(f"--tool-format: {name!r} is none of {', '.join(FORMAT_NAMES)}")


def _by_text(source: str, control_spellings: Iterable[str]) -> Family:
    """A template that shows tools but no calls leaves it to the vocabulary."""
    texts = [source]
    if "tools" in source:
        texts.append("\n".join((source, *control_spellings)))
    for text in texts:
        for family in FAMILIES:
            if family.fits(text):
                return family
    return FAMILIES[-1]
