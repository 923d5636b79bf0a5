"""Templates that refuse ids of another length get ids of theirs."""

import json

from fakes.constraints import HERMES, RememberingCompiler
from fakes.validation import ByteTokenizer, TaggedTemplates

from tgi_llama.turns.detection import turn_format
from tgi_llama.validation.constraints import Constraints
from tgi_llama.validation.rules import Limits
from tgi_llama.validation.validator import Validator
from tgi_llama.wire.converter import parse
from tgi_llama.wire.openai_requests import ChatRequest

IDS = ("call_0123456789abcdef", "abcDEF123", "a")


def ids_shown(turns):
    calls = [{"id": one, "function": {"name": "f", "arguments": "{}"}} for one in IDS]
    messages = [
        {"role": "assistant", "content": None, "tool_calls": calls},
        *({"role": "tool", "content": "x", "tool_call_id": one} for one in IDS),
    ]
    templates = TaggedTemplates()
    Validator(
        Limits(max_input_tokens=500, max_total_tokens=600),
        ByteTokenizer(),
        templates,
        constraints=Constraints(compiler=RememberingCompiler(), turn_format=turns),
    ).chat(parse(ChatRequest, json.dumps({"messages": messages}).encode()))
    calling, *results = templates.calls[0]["messages"]
    shown = [call["id"] for call in calling["tool_calls"]]
    assert [result["tool_call_id"] for result in results] == shown
    return shown


def test_mistral_gets_nine_letters_and_digits() -> None:
    shown = ids_shown(turn_format(["[TOOL_CALLS]"], []))
    assert all(len(one) == 9 and one.isalnum() for one in shown)
    assert shown[1] == IDS[1]
    assert len(set(shown)) == len(IDS)


def test_others_get_what_the_client_sent() -> None:
    assert ids_shown(HERMES) == list(IDS)
