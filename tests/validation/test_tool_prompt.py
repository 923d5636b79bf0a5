"""Models whose template knows no tools are told of them as TGI tells them (contract 6.3)."""

import json

import pytest
from fakes.constraints import HERMES, RememberingCompiler
from fakes.validation import ByteTokenizer, TaggedTemplates

from tgi_llama.turns.detection import turn_format
from tgi_llama.validation.constraints import Constraints
from tgi_llama.validation.rules import Limits
from tgi_llama.validation.tool_prompt import DEFAULT
from tgi_llama.validation.validator import Validator
from tgi_llama.wire.converter import parse
from tgi_llama.wire.openai_requests import ChatRequest

TOOL = {
    "type": "function",
    "function": {"name": "f", "description": "é", "parameters": {"type": "object"}},
}
USER = {"role": "user", "content": "hi"}
JSON_WAY = turn_format([], [])


def prompt_of(turns=JSON_WAY, *, reads_tools=False, messages=(USER,), **fields):
    templates = TaggedTemplates(reads_tools=reads_tools)
    validator = Validator(
        Limits(max_input_tokens=2000, max_total_tokens=4000),
        ByteTokenizer(),
        templates,
        constraints=Constraints(compiler=RememberingCompiler(), turn_format=turns),
    )
    body = {"messages": list(messages), "tools": [TOOL], **fields}
    (prepared,) = validator.chat(parse(ChatRequest, json.dumps(body).encode()))
    return prepared.prompt


def compact(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def test_template_without_tools_gets_list_and_prompt_at_the_end_of_the_last_message():
    expected = f"<user>hi\n---\n{compact([TOOL])}\n{DEFAULT}<assistant>"
    assert prompt_of(tool_choice="required") == expected


def test_model_that_may_decline_is_told_how():
    _, listed, *_ = prompt_of().split("\n---\n")[1].partition(compact(TOOL))
    assert listed == compact(TOOL)
    assert '"name":"no_tool"' in prompt_of()


def test_template_with_tools_gets_the_prompt_alone_where_the_model_has_no_format():
    assert prompt_of(reads_tools=True) == f"<user>hi\n---\n{DEFAULT}<assistant>"


def test_model_with_a_format_and_a_template_for_tools_is_told_nothing_more():
    assert prompt_of(HERMES, reads_tools=True) == "<user>hi<assistant>"
    assert prompt_of(HERMES, reads_tools=True, tool_prompt="") == "<user>hi<assistant>"


def test_model_with_a_format_but_no_template_for_tools_gets_the_list():
    assert prompt_of(HERMES, tool_choice="f") == f"<user>hi\n---\n{compact([TOOL])}<assistant>"


@pytest.mark.parametrize("turns", [HERMES, JSON_WAY])
def test_prompt_of_the_client_is_used_whatever_the_model_is(turns):
    asked = prompt_of(turns, reads_tools=True, tool_prompt="Do it.")
    assert asked == "<user>hi\n---\nDo it.<assistant>"


def test_plain_chat_is_left_as_it_is():
    assert prompt_of(tools=[]) == prompt_of(tool_choice="none") == "<user>hi<assistant>"


def test_earlier_calls_and_results_are_written_for_a_template_that_knows_none():
    call = {"id": "1", "function": {"name": "f", "arguments": '{"a": "é"}'}}
    broken = {"id": "2", "function": {"name": "f", "arguments": "{a"}}
    messages = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "5", "tool_call_id": "1"},
        {"role": "assistant", "content": "Again.", "tool_calls": [broken]},
        USER,
    ]
    before, _ = prompt_of(messages=messages).split("\n---\n")
    expected = (
        '<user>hi<assistant>{"name": "f", "parameters": {"a": "é"}}<user>5'
        '<assistant>Again.\n{"name": "f", "parameters": "{a"}<user>hi'
    )
    assert before == expected
    assert prompt_of(messages=messages, tools=None) == f"{expected}<assistant>"


def test_last_message_without_content_is_left_alone():
    call = {"id": "1", "function": {"name": "f", "arguments": "{}"}}
    messages = [USER, {"role": "assistant", "content": None, "tool_calls": [call]}]
    assert "---" not in prompt_of(HERMES, reads_tools=True, messages=messages, tool_prompt="x")


def test_name_of_the_tool_that_is_none_is_the_one_that_the_grammar_knows():
    taken = {"type": "function", "function": {"name": "no_tool", "parameters": {"type": "object"}}}
    prompt = prompt_of(tools=[TOOL, taken])
    assert prompt.count('"name":"no_tool"') == 1
    assert prompt.count('"name":"no_tool_"') == 1


def test_results_of_calls_are_one_message_with_each_other_and_with_what_the_user_says():
    def call(name):
        return {"id": name, "function": {"name": "f", "arguments": "{}"}}

    def result(name):
        return {"role": "tool", "content": f"of {name}", "tool_call_id": name}

    calls = {"role": "assistant", "content": None, "tool_calls": [call("a"), call("b")]}
    messages = [USER, USER, calls, result("a"), result("b"), USER, USER]
    before, _ = prompt_of(messages=messages).split("\n---\n")
    written = '{"name": "f", "parameters": {}}'
    # What the user says twice in a row is left as it is.
    assert before == f"<user>hi<user>hi<assistant>{written}\n{written}<user>of a\nof b\nhi<user>hi"
