"""Templates of ours, and what transformers 4.57.6 made of some conversations with them.

To record again, with TEST_REFERENCE_PYTHON set: ``python -m pytest
tests/text/test_reference_prompts.py -k recorded`` shows the difference; the JSON file holds, by
template and by conversation, the prompt, or null where there is none.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from tgi_llama.errors import TemplateError
from tgi_llama.text.chat_template import ChatTemplate

from .conversations import Conversation, conversations

NOW = datetime(2024, 7, 26, 12, 30)
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}

_TAGS = """\
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content %}
    {%- set rest = messages[1:] %}
{%- else %}
    {%- set system = 'Today is ' + strftime_now('%d %b %Y') %}
    {%- set rest = messages %}
{%- endif %}
{{- bos_token + '<system>' + (system if system is string else system | tojson) }}
{%- for tool in tools or [] %}
    {{- '\\n' + tool.function | tojson }}
{%- endfor %}
{%- for document in documents or [] %}
    {{- '\\n[' ~ loop.index ~ '] ' ~ document.title | upper ~ ': ' ~ document.text }}
{%- endfor %}
{{- '\\n' }}
{%- for message in rest %}
    {%- if message.role not in ['user', 'assistant', 'tool'] %}
        {{- raise_exception('Unknown role: ' ~ message.role) }}
    {%- endif %}
    {{- '<' ~ message.role ~ '>' }}
    {%- if message.role == 'assistant' %}
        {%- generation %}
            {%- if message.reasoning_content and enable_thinking is not false %}
                {{- '(' + message.reasoning_content | trim + ')' }}
            {%- endif %}
            {{- message.content or '' }}
            {%- for call in message.tool_calls or [] %}
                {{- call.function.name ~ '(' }}
                {%- for name, value in (call.function.arguments or {}) | items %}
                    {{- name ~ '=' ~ value | tojson ~ (', ' if not loop.last else '') }}
                {%- endfor %}
                {{- ')' }}
            {%- endfor %}
            {{- eos_token }}
        {%- endgeneration %}
    {%- elif message.content is string %}
        {{- message.content | trim }}
    {%- else %}
        {%- for part in message.content %}{{ part.text }}{% endfor %}
    {%- endif %}
    {{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<assistant>' }}{% endif %}
"""

_BLOCKS = """\
{% macro show(message, depth=0) %}
  [{{ message.role }}{% if message.name is defined %} {{ message.name }}{% endif %}]
  {% for line in (message.content if message.content is string else '') .split('\\n') %}
    {% if not line %}{% continue %}{% endif %}
    {{ loop.index0 }}: {{ line }}
  {% else %}
    nothing
  {% endfor %}
{% endmacro %}
{% set ns = namespace(n=0) %}
{% for message in messages %}
{% set ns.n = ns.n + 1 %}
{{ show(message) }}
{% endfor %}
{{ ns.n }} {{ tools is none }} {{ documents is defined }} {{ unk_token }}
{% if add_generation_prompt %}>{% endif %}
"""

OWN: Mapping[str, str] = {"tags": _TAGS, "blocks": _BLOCKS}


def template_of(source: str) -> ChatTemplate:
    bos, eos, unk = SPECIAL.values()
    return ChatTemplate(
        source, bos_token=bos, eos_token=eos, more_tokens={"unk_token": unk}, now=lambda: NOW
    )


def prompt_of(template: ChatTemplate, conversation: Conversation) -> str | None:
    """None where the template refuses the conversation."""
    try:
        return template.render(
            conversation.messages,
            conversation.tools,
            add_generation_prompt=conversation.add_generation_prompt,
            continue_final_message=conversation.continue_final_message,
            **{"documents": conversation.documents, **conversation.kwargs},  # type: ignore[arg-type]
        )
    except TemplateError:
        return None


def recorded_conversations() -> list[Conversation]:
    return list(conversations())[::9]


def recorded() -> Mapping[str, Mapping[str, str | None]]:
    text = Path(__file__).with_name("recorded_prompts.json").read_text(encoding="utf-8")
    return cast("dict[str, Any]", json.loads(text))
