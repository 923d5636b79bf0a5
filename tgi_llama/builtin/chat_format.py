"""Prompts as the model sees them: the shipped chat template, rendered as transformers does."""

import json
from pathlib import Path

from jinja2.sandbox import ImmutableSandboxedEnvironment

from .examples import Example

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END)  # their ids are 0, 1 and 2

TEMPLATE_PATH = Path(__file__).with_name("chat_template.jinja")


def template_text() -> str:
    """The chat template without a final newline, as it goes into the model's files."""
    return TEMPLATE_PATH.read_text("utf-8").rstrip("\n")


class PromptRenderer:
    """Turns examples into prompt texts."""

    def __init__(self) -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
        self._template = environment.from_string(template_text())

    def prompt(self, example: Example) -> str:
        """The text before the reply: raw, or the rendered chat up to the assistant's turn."""
        if example.raw is not None:
            return example.raw
        return self._template.render(
            messages=[{"role": m.role, "content": m.content} for m in example.messages],
            tools=[tool.declaration() for tool in example.tools] or None,
            bos_token=END_OF_TEXT,
            eos_token=TURN_END,
            add_generation_prompt=True,
        )
