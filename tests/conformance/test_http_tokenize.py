"""``/tokenize`` and ``/chat_tokenize`` (contract 3.6, with the changes of decisions)."""

import json

import attrs
import pytest

from tgi_llama.server.app import create_app

CHAT = {"messages": [{"role": "é", "content": "!"}]}
PATHS = [("/tokenize", {"inputs": "hi"}), ("/chat_tokenize", CHAT)]


async def fetch(site, path, payload):
    response = await site.client().post(path, json=payload)
    return response, (await response.get_data()).decode()


async def test_tokenize_adds_special_tokens_with_empty_spans(make_site):
    _, body = await fetch(await make_site(), "/tokenize", {"inputs": "é"})
    assert body == (
        '[{"id":1,"text":"","start":0,"stop":0},{"id":233,"text":"é","start":0,"stop":2}]'
    )


async def test_tokenize_ignores_truncate_and_all_limits(make_site):
    ask = {"inputs": "a" * 1000, "parameters": {"truncate": 1}}
    _, body = await fetch(await make_site(), "/tokenize", ask)
    assert len(json.loads(body)) == 1001


async def test_chat_tokenize_gives_byte_offsets_into_the_rendered_text(make_site):
    _, body = await fetch(await make_site(), "/chat_tokenize", CHAT)
    answer = json.loads(body)
    assert list(answer) == ["tokenize_response", "templated_text"]
    assert answer["templated_text"] == "é: !\nassistant:"
    entries = answer["tokenize_response"]
    # The template writes special tokens itself, so none is added: the first entry is the text's.
    assert entries[0] == {"id": 233, "text": "é", "start": 0, "stop": 2}
    assert body.startswith('{"tokenize_response":[{"id":233,"text":"é","start":0,"stop":2},{"id":')
    utf8 = answer["templated_text"].encode()
    assert b"".join(utf8[e["start"] : e["stop"]] for e in entries) == utf8
    assert all(utf8[e["start"] : e["stop"]].decode() == e["text"] for e in entries)


async def test_chat_tokenize_of_a_chat_without_a_word_is_allowed(make_site):
    ask = {"messages": [], "add_generation_prompt": False}
    _, body = await fetch(await make_site(), "/chat_tokenize", ask)
    assert body == '{"tokenize_response":[],"templated_text":""}'


async def test_chat_tokenize_has_no_length_limit(make_site):
    ask = {"messages": [{"role": "user", "content": "a" * 1000}]}
    response, body = await fetch(await make_site(), "/chat_tokenize", ask)
    assert response.status_code == 200
    assert len(json.loads(body)["tokenize_response"]) > 1000


@pytest.mark.parametrize(("path", "payload"), PATHS)
async def test_it_takes_no_permit_and_is_not_counted(make_site, path, payload):
    site = await make_site(max_concurrent_requests=0)
    response, _ = await fetch(site, path, payload)
    assert response.status_code == 200
    assert site.metric("tgi_request_count") == 0
    assert not [name for name, _ in response.headers if name.lower().startswith("x-")]


@pytest.mark.parametrize(("path", "payload"), PATHS)
async def test_it_asks_for_the_key(make_site, path, payload):
    site = await make_site(api_keys=("secret",))
    response, _ = await fetch(site, path, payload)
    assert response.status_code == 401
    response = await site.client().post(
        path, json=payload, headers={"authorization": "Bearer secret"}
    )
    assert response.status_code == 200


async def test_chat_tokenize_of_a_wrong_shape_names_the_field(make_site):
    response, body = await fetch(await make_site(), "/chat_tokenize", {"messages": [{"role": 1}]})
    assert response.status_code == 422
    assert json.loads(body) == {
        "error": "Failed to deserialize the JSON body into the target type: "
        "messages[0].role: expected a string, got 1",
        "error_type": "validation",
    }


async def test_chat_tokenize_without_a_template_is_a_template_error(make_site):
    site = await make_site()
    validator = attrs.evolve(site.services.validator, chat_templates=None)
    site.app = create_app(attrs.evolve(site.services, validator=validator))
    response, body = await fetch(site, "/chat_tokenize", CHAT)
    assert response.status_code == 422
    assert json.loads(body) == {
        "error": "Template error: template not found",
        "error_type": "template_error",
    }


async def test_chat_tokenize_checks_tools_as_chat_does(make_site):
    tool = {"type": "function", "function": {"name": "clock", "parameters": {}}}
    ask = {**CHAT, "tools": [tool], "tool_choice": {"function": {"name": "weather"}}}
    response, body = await fetch(await make_site(), "/chat_tokenize", ask)
    assert response.status_code == 422
    assert json.loads(body) == {
        "error": "Tool error: Tool with name weather not found",
        "error_type": "tool_error",
    }
