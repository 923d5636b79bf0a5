"""A chat request's messages as the arguments of the model's chat template. Pure functions."""

from collections.abc import Mapping, Sequence

import attrs

from tgi_llama.wire.openai_requests import ChatRequest, ImagePart, Message, RefusalPart

from .rules import reject, reject_unsupported

_RESERVED_VARIABLES = frozenset(
    ("self", "messages", "tools", "add_generation_prompt", "continue_final_message")
)
"""What ``chat_template_kwargs`` may not set, because the request has a field for it."""


@attrs.frozen(kw_only=True)
class ChatPrompt:
    """The arguments for the chat template."""

    messages: Sequence[Mapping[str, object]]
    add_generation_prompt: bool
    continue_final_message: bool | None
    """None: as TGI, an assistant's last message is continued."""
    variables: Mapping[str, object]


def chat_prompt(request: ChatRequest) -> ChatPrompt:
    """Without a word from the client the template decides as TGI does: an assistant's last message
    is continued."""
    last = request.messages[-1] if request.messages else None
    continues = request.continue_final_message
    opens_turn = request.add_generation_prompt
    if continues is None and opens_turn is not None:
        continues = False
    if opens_turn is None:
        opens_turn = not continues
    if continues and opens_turn:
        reject(
            "`continue_final_message` and `add_generation_prompt` cannot both be true",
            field="continue_final_message",
        )
    if continues and (last is None or last.text is None):
        reject(
            "`continue_final_message` needs a last message with content",
            field="continue_final_message",
        )
    return ChatPrompt(
        messages=[_template_message(m, index) for index, m in enumerate(request.messages)],
        add_generation_prompt=opens_turn,
        continue_final_message=continues,
        variables=_template_variables(request),
    )


def _template_message(message: Message, index: int) -> dict[str, object]:
    """The message as a template sees it: ``role``, ``content`` (always text) and whichever of the
    optional keys the client sent."""
    result: dict[str, object] = {"role": message.role, "content": _content(message, index)}
    if message.name is not None:
        result["name"] = message.name
    if message.tool_calls:
        result["tool_calls"] = [
            {
                "id": call.id,
                "type": call.type,
                "function": {
                    "name": call.function.name,
                    "arguments": call.function.parsed_arguments,
                },
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        result["tool_call_id"] = message.tool_call_id
    if message.reasoning_content is not None:
        result["reasoning_content"] = message.reasoning_content
    return result


def _content(message: Message, index: int) -> str:
    text = message.text
    if text is None:
        return ""
    if isinstance(text, str):
        return text
    texts = []
    for position, part in enumerate(text):
        if isinstance(part, ImagePart):
            reject_unsupported("image_url", field=f"messages[{index}].content[{position}]")
        texts.append(part.refusal if isinstance(part, RefusalPart) else part.text)
    return "".join(texts)


def _template_variables(request: ChatRequest) -> Mapping[str, object]:
    variables = request.chat_template_kwargs or {}
    for name in sorted(_RESERVED_VARIABLES.intersection(variables)):
        reject(f"`chat_template_kwargs` cannot set `{name}`", field=f"chat_template_kwargs.{name}")
    fields = {"documents": request.documents, "reasoning_effort": request.reasoning_effort}
    return {**{name: value for name, value in fields.items() if value is not None}, **variables}
