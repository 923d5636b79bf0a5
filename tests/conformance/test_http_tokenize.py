"""``/tokenize`` and ``/chat_tokenize`` (contract 3.6, with the changes of decisions)."""

import json

import attrs
import pytest
from fakes.engine import FakeEngine, text_events
from fakes.site import CONTROL

from tgi_llama.server.app import create_app
from tgi_llama.validation.prompts import ParseSpecial

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


# --- spellings of control tokens ------------------------------------------------------------------

END = "<|end|>"


async def entries_of(site, path, payload):
    _, body = await fetch(site, path, payload)
    answer = json.loads(body)
    return answer if path == "/tokenize" else answer["tokenize_response"]


async def test_prompt_has_control_tokens_and_conversation_has_not(make_site):
    site = await make_site()
    prompt = await entries_of(site, "/tokenize", {"inputs": f"é{END}"})
    assert prompt[1:] == [
        {"id": 233, "text": "é", "start": 0, "stop": 2},
        {"id": CONTROL, "text": END, "start": 2, "stop": 9},
    ]
    chat = {"messages": [{"role": "é", "content": END}]}
    entries = await entries_of(site, "/chat_tokenize", chat)
    assert CONTROL not in [entry["id"] for entry in entries]
    assert "".join(entry["text"] for entry in entries) == f"é: {END}\nassistant:"


async def test_option_says_where_control_tokens_are_read(make_site):
    site = await make_site()
    for where, in_prompt, in_chat in (("all", True, True), ("none", False, False)):
        validator = attrs.evolve(site.services.validator, parse_special_tokens=ParseSpecial(where))
        site.app = create_app(attrs.evolve(site.services, validator=validator))
        chat = {"messages": [{"role": "user", "content": END}]}
        for path, payload, is_read in (
            ("/tokenize", {"inputs": END}, in_prompt),
            ("/chat_tokenize", chat, in_chat),
        ):
            ids = [entry["id"] for entry in await entries_of(site, path, payload)]
            assert (CONTROL in ids) is is_read


CONVERSATION = {"messages": [{"role": "user", "content": f"a{END}"}]}


@pytest.mark.parametrize(
    ("path", "payload", "is_read"),
    [
        ("/v1/chat/completions", CONVERSATION, False),
        ("/invocations", CONVERSATION, False),
        ("/vertex", {"instances": [CONVERSATION]}, False),
        ("/generate", {"inputs": END}, True),
        ("/", {"inputs": END}, True),
        ("/v1/completions", {"prompt": END}, True),
        ("/invocations", {"inputs": END}, True),
        ("/vertex", {"instances": [{"inputs": END}]}, True),
    ],
)
async def test_every_route_takes_a_conversation_as_text(make_site, path, payload, is_read):
    prompts = []

    def remember(request):
        prompts.append(request.prompt_ids)
        return text_events("a")

    response, body = await fetch(await make_site(FakeEngine(remember)), path, payload)
    assert response.status_code == 200, body
    (ids,) = prompts
    assert (CONTROL in ids) is is_read
