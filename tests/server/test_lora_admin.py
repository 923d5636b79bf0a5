"""Loading and unloading adapters over HTTP: who may, what they may have, and what is answered."""

import pytest
import trio
import trio.testing
from fakes.adapters import EMPTY_GGUF, fetch_nothing
from fakes.engine import FakeEngine, generated
from fakes.raw_client import post

from tgi_llama.errors import AdapterError, EngineDead
from tgi_llama.models.adapters import AdapterSources

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
PIRATE = {"lora_name": "pirate", "lora_path": "pirate.gguf"}
KEY = {"authorization": "Bearer admin"}


@pytest.fixture
def make_admin_site(make_site, tmp_path):
    (tmp_path / "pirate.gguf").write_bytes(EMPTY_GGUF)

    async def make(*args, **settings):
        sources = AdapterSources(folders=(str(tmp_path),), fetch=fetch_nothing)
        return await make_site(*args, sources=sources, admin_keys=("admin", "chief"), **settings)

    return make


async def ask(site, path, payload, headers=KEY):
    response = await site.client().post(path, json=payload, headers=headers)
    return response.status_code, await response.get_json()


# --- who may ---


@pytest.mark.parametrize("path", [LOAD, UNLOAD])
@pytest.mark.parametrize("headers", [{}, KEY])
async def test_without_an_admin_key_the_routes_are_closed(make_site, path, headers):
    site = await make_site(api_keys=("admin",))
    status, body = await ask(site, path, PIRATE, headers)
    assert status == 403
    assert body["error"]["message"] == "This server was started without --admin-api-key"
    assert body["error"]["type"] == "permission_error"
    assert body["error_type"] == "authorization"


@pytest.mark.parametrize("path", [LOAD, UNLOAD])
@pytest.mark.parametrize("given", [None, "", "Bearer wrong", "Bearer ADMIN", "Basic admin", "é"])
async def test_wrong_key_is_401(make_admin_site, path, given):
    headers = {} if given is None else {"authorization": given}
    site = await make_admin_site()
    response = await site.client().post(path, json=PIRATE, headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert (await response.get_json())["error"]["message"] == "The admin key is missing or wrong"


@pytest.mark.parametrize("path", [LOAD, UNLOAD])
async def test_ordinary_key_is_403(make_admin_site, path):
    site = await make_admin_site(api_keys=("user",))
    status, body = await ask(site, path, PIRATE, {"authorization": "Bearer user"})
    assert status == 403
    assert "takes an admin key" in body["error"]["message"]


async def test_admin_key_opens_nothing_else(make_admin_site):
    site = await make_admin_site(api_keys=("user",))
    status, _ = await ask(site, "/generate", {"inputs": "a"})
    assert status == 401


async def test_key_is_asked_for_before_the_body_is_read(make_admin_site):
    site = await make_admin_site()
    response = await site.client().post(LOAD, data=b"{", headers={})
    assert response.status_code == 401


# --- load ---


@pytest.mark.parametrize("key", ["admin", "chief"])
async def test_load_answers_the_model_that_can_be_asked_for(make_admin_site, key):
    site = await make_admin_site()
    status, body = await ask(
        site, LOAD, {**PIRATE, "scale": 0.5}, {"authorization": f"Bearer {key}"}
    )
    assert status == 200
    assert (body["id"], body["root"], body["parent"]) == ("pirate", "pirate.gguf", "test/model")
    listed = await (await site.client().get("/v1/models")).get_json()
    assert listed["data"][1] == body
    status, answer = await ask(
        site, "/v1/completions", {"prompt": "a", "model": "pirate", "max_tokens": 5}
    )
    assert (status, answer["model"]) == (200, "pirate")
    ((_, scale),) = site.engine.adapters.values()
    assert scale == 0.5


async def test_load_ignores_further_fields_of_vllm(make_admin_site):
    site = await make_admin_site()
    payload = {**PIRATE, "load_inplace": None, "scale": None, "base_model_name": "x"}
    status, _ = await ask(site, LOAD, payload)
    assert status == 200


@pytest.mark.parametrize(
    ("fields", "status", "param", "told"),
    [
        ({"lora_path": "none.gguf"}, 422, "lora_path", "No such file or directory"),
        ({"lora_path": "/etc/passwd"}, 403, None, "must be in a folder"),
        ({"lora_path": "owner/repo"}, 422, "lora_path", "nothing is downloaded"),
        ({"lora_path": 5}, 422, "lora_path", "expected a string"),
        ({"lora_path": "a" * 5000}, 422, "lora_path", "File name too long"),
        ({"lora_name": "a\u202eb"}, 422, "lora_name", "characters that can be seen"),
        ({"lora_name": "a b"}, 422, "lora_name", "`lora_name` must have 1 to 200 characters"),
        ({"lora_name": "test/model"}, 409, "lora_name", "the name of the model itself"),
        ({"lora_name": "loaded"}, 409, "lora_name", "`load_inplace` loads it again"),
        ({"scale": "1"}, 422, "scale", "expected a number"),
        ({"scale": 1e39}, 422, "scale", "scale"),
    ],
)
async def test_load_that_cannot_be_is_told(make_admin_site, fields, status, param, told):
    site = await make_admin_site(adapters=("loaded",))
    found, body = await ask(site, LOAD, {**PIRATE, **fields})
    assert found == status
    assert body["error"]["param"] == param
    assert told in body["error"]["message"]
    assert list(site.services.adapters.ids) == ["loaded"]


async def test_load_of_another_model_s_adapter_has_llama_cpp_s_words(make_admin_site):
    error = AdapterError("tensor 'a' has incorrect shape")
    site = await make_admin_site(FakeEngine(adapter_error=error))
    status, body = await ask(site, LOAD, PIRATE)
    assert (status, body["error_type"]) == (422, "adapter_error")
    assert body["error"]["message"] == "Adapter error: tensor 'a' has incorrect shape"


async def test_load_on_a_dead_engine_is_503(make_admin_site):
    site = await make_admin_site(FakeEngine(adapter_error=EngineDead("dead")))
    status, _ = await ask(site, LOAD, PIRATE)
    assert status == 503


async def test_load_in_place_takes_the_name(make_admin_site):
    site = await make_admin_site(adapters=("pirate",))
    before = site.services.adapters.ids["pirate"]
    status, _ = await ask(site, LOAD, {**PIRATE, "load_inplace": True})
    assert status == 200
    assert site.services.adapters.ids["pirate"] != before


@pytest.mark.parametrize(("path", "payload"), [(LOAD, PIRATE), (UNLOAD, {"lora_name": "loaded"})])
async def test_server_that_drains_changes_nothing(make_admin_site, path, payload):
    site = await make_admin_site(adapters=("loaded",))
    site.admission.start_draining()
    status, body = await ask(site, path, payload)
    assert (status, body["error_type"]) == (503, "unavailable")
    assert list(site.services.adapters.ids) == ["loaded"]


# --- unload ---


async def test_unload_answers_when_the_last_request_has_ended(make_admin_site, nursery):
    gate = trio.Event()
    site = await make_admin_site(FakeEngine(generated("a"), gate=gate), adapters=("pirate",))
    answers = []

    async def generate():
        payload = {"inputs": "a", "parameters": {"adapter_id": "pirate", "max_new_tokens": 3}}
        response = await site.client().post("/generate", json=payload)
        answers.append(response.status_code)

    async def unload():
        answers.append(await ask(site, UNLOAD, {"lora_name": "pirate"}))

    nursery.start_soon(generate)
    await site.engine.opened.wait()
    async with trio.open_nursery() as unloading:
        unloading.start_soon(unload)
        await trio.testing.wait_all_tasks_blocked()
        assert (answers, dict(site.services.adapters.ids)) == ([], {})
        status, body = await ask(site, UNLOAD, {"lora_name": "pirate"})
        assert (status, body["error"]["param"]) == (404, "lora_name")
        gate.set()
    deleted = {"id": "pirate", "object": "model", "deleted": True}
    assert 200 in answers
    assert (200, deleted) in answers
    assert site.engine.adapters == {}


async def test_unload_goes_on_where_the_client_does_not_wait(make_admin_site):
    gate = trio.Event()
    site = await make_admin_site(FakeEngine(generated("a"), gate=gate), adapters=("pirate",))
    user, admin = await site.connect(), await site.connect()
    payload = {"inputs": "a", "parameters": {"adapter_id": "pirate", "max_new_tokens": 3}}
    await user.send(post("/generate", payload))
    await site.engine.opened.wait()
    headers = ("Authorization: Bearer admin",)
    await admin.send(post(UNLOAD, {"lora_name": "pirate"}, headers=headers))
    with trio.fail_after(5):
        while site.services.adapters.ids:
            await trio.testing.wait_all_tasks_blocked()
    await admin.close()
    gate.set()
    with trio.fail_after(5):
        while site.engine.adapters:
            await trio.testing.wait_all_tasks_blocked()


async def test_admin_requests_are_no_requests_for_generations(make_admin_site):
    site = await make_admin_site()
    await ask(site, LOAD, PIRATE)
    await ask(site, UNLOAD, {"lora_name": "none"})
    assert site.metric("tgi_request_count") == 0
