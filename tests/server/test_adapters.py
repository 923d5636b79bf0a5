"""LoRA adapters chosen by requests, on every route, and listed (``docs/lora.md``)."""

import json
import logging

import pytest
import trio
from fakes.adapters import EMPTY_GGUF, fetch_nothing

from tgi_llama.models.adapters import AdapterSources

ADAPTERS = ("pirate", "owner/sql")
MESSAGES = [{"role": "user", "content": "hi"}]
CHAT = {"messages": MESSAGES, "max_tokens": 5}
COMPLETION = {"prompt": "hi", "max_tokens": 5}


def native(**parameters):
    return {"inputs": "hi", "parameters": {"max_new_tokens": 5, **parameters}}


def infer(**parameters):
    data = {"name": "in", "shape": [1, 2], "datatype": "BYTES", "data": list(b"hi")}
    return {"id": "1", "inputs": [data], "outputs": [{"name": "out"}], "parameters": parameters}


def infer_path(model):
    return f"/v2/models/{model}/versions/1/infer"


CHOOSING = [
    ("/", native(adapter_id="pirate")),
    ("/generate", native(adapter_id="pirate")),
    ("/generate_stream", native(adapter_id="pirate")),
    ("/v1/chat/completions", {**CHAT, "adapter_id": "pirate"}),
    ("/v1/chat/completions", {**CHAT, "model": "pirate"}),
    ("/v1/chat/completions", {**CHAT, "model": "gpt-4", "adapter_id": "pirate"}),
    ("/v1/chat/completions", {**CHAT, "model": "pirate", "stream": True}),
    ("/v1/completions", {**COMPLETION, "adapter_id": "pirate"}),
    ("/v1/completions", {**COMPLETION, "model": "pirate"}),
    ("/v1/completions", {**COMPLETION, "model": "pirate", "stream": True}),
    ("/invocations", native(adapter_id="pirate")),
    ("/invocations", {**CHAT, "model": "pirate"}),
    ("/vertex", {"instances": [native(adapter_id="pirate")]}),
    ("/vertex", {"instances": [{**CHAT, "model": "pirate"}]}),
    (infer_path("any"), infer(adapter_id="pirate")),
    (infer_path("pirate"), infer()),
    (infer_path("pirate"), infer(adapter_id="pirate")),
]
PLAIN = [
    ("/generate", native()),
    ("/generate", native(adapter_id=None)),
    ("/v1/chat/completions", {**CHAT, "model": "gpt-4"}),
    ("/v1/chat/completions", {**CHAT, "model": "tgi", "adapter_id": None}),
    ("/v1/completions", {**COMPLETION, "model": "test/model"}),
    ("/vertex", {"instances": [native()]}),
    (infer_path("any"), infer()),
]


@pytest.mark.parametrize(("path", "payload"), CHOOSING)
async def test_request_is_computed_with_the_adapter_it_asks_for(make_site, path, payload):
    site = await make_site(adapters=ADAPTERS)
    response = await site.client().post(path, json=payload)
    assert response.status_code == 200
    await response.get_data()
    (request,) = site.engine.requests
    assert request.adapter == site.services.adapters.ids["pirate"]
    assert site.metric('tgi_llama_adapter_generations{adapter="pirate"}') == 1


@pytest.mark.parametrize(("path", "payload"), PLAIN)
async def test_request_that_asks_for_none_is_computed_with_the_model_alone(
    make_site, path, payload
):
    site = await make_site(adapters=ADAPTERS)
    assert (await site.client().post(path, json=payload)).status_code == 200
    (request,) = site.engine.requests
    assert request.adapter is None
    assert site.metric('tgi_llama_adapter_generations{adapter="pirate"}') == 0


@pytest.mark.parametrize(
    ("path", "payload", "field"),
    [
        ("/generate", native(adapter_id="x"), None),
        ("/v1/chat/completions", {**CHAT, "adapter_id": "x"}, "adapter_id"),
        ("/v1/completions", {**COMPLETION, "adapter_id": "x", "model": "pirate"}, "adapter_id"),
        ("/vertex", {"instances": [native(adapter_id="x")]}, None),
        (infer_path("pirate"), infer(adapter_id="x"), None),
    ],
)
async def test_adapter_that_there_is_not_is_422(make_site, path, payload, field):
    site = await make_site(adapters=ADAPTERS)
    response = await site.client().post(path, json=payload)
    assert response.status_code == 422
    body = await response.get_json()
    error = body["error"] if field is None else body["error"]["message"]
    assert error.endswith("`adapter_id` must be one of owner/sql, pirate. Given: 'x'")
    if field is not None:
        assert body["error"]["param"] == field
    assert site.engine.requests == []


@pytest.mark.parametrize(
    ("path", "payload"),
    [
        ("/v1/chat/completions", {**CHAT, "adapter_id": "owner/sql", "model": "pirate"}),
        (infer_path("pirate"), infer(adapter_id="owner/sql")),
    ],
)
async def test_two_different_adapters_are_422(make_site, path, payload):
    site = await make_site(adapters=ADAPTERS)
    response = await site.client().post(path, json=payload)
    assert response.status_code == 422
    assert (
        "name different adapters: 'pirate' and 'owner/sql'" in (await response.get_data()).decode()
    )


@pytest.mark.parametrize(
    ("fields", "model"),
    [
        ({"model": "pirate"}, "pirate"),
        ({"adapter_id": "pirate"}, "pirate"),
        ({"model": "tgi", "adapter_id": "pirate"}, "pirate"),
        ({"model": "gpt-4", "adapter_id": "pirate"}, "pirate"),
        ({"model": "gpt-4"}, "gpt-4"),
        ({"model": "tgi"}, "test/model"),
    ],
)
async def test_answer_names_the_adapter(make_site, fields, model):
    site = await make_site(adapters=ADAPTERS)
    response = await site.client().post("/v1/chat/completions", json={**CHAT, **fields})
    assert (await response.get_json())["model"] == model
    response = await site.client().post("/v1/completions", json={**COMPLETION, **fields})
    assert (await response.get_json())["model"] == model
    streamed = await site.client().post(
        "/v1/chat/completions", json={**CHAT, **fields, "stream": True}
    )
    first = (await streamed.get_data()).decode().split("\n\n")[0]
    assert json.loads(first.removeprefix("data: "))["model"] == model


async def test_all_generations_of_a_call_have_the_adapter(make_site):
    site = await make_site(adapters=ADAPTERS)
    payload = {**COMPLETION, "prompt": ["a", "b"], "n": 2, "model": "pirate"}
    assert (await site.client().post("/v1/completions", json=payload)).status_code == 200
    adapters = {request.adapter for request in site.engine.requests}
    assert adapters == {site.services.adapters.ids["pirate"]}
    assert len(site.engine.requests) == 4
    assert site.metric('tgi_llama_adapter_generations{adapter="pirate"}') == 4


async def test_inputs_of_a_list_have_adapters_of_their_own(make_site):
    site = await make_site(adapters=ADAPTERS)
    instances = [native(adapter_id=name) for name in ADAPTERS] + [native()]
    assert (await site.client().post("/vertex", json={"instances": instances})).status_code == 200
    ids = site.services.adapters.ids
    found = [request.adapter for request in site.engine.requests]
    assert found == [ids["pirate"], ids["owner/sql"], None]


async def test_tokenize_reads_the_field_and_leaves_it_without_effect(make_site):
    site = await make_site()
    response = await site.client().post("/tokenize", json=native(adapter_id="x"))
    assert response.status_code == 200
    payload = {**CHAT, "adapter_id": "x"}
    assert (await site.client().post("/chat_tokenize", json=payload)).status_code == 200


# --- while adapters change ---


async def answered_with_a_change(site, change, *arguments):
    """The answer to a request whose adapter changes after it was chosen and before the request is
    submitted."""

    def on_encode():
        trio.from_thread.run(change, *arguments)

    site.tokenizer.on_encode = on_encode
    response = await site.client().post("/generate", json=native(adapter_id="pirate"))
    return response.status_code, await response.get_json()


async def test_adapter_unloaded_during_validation_is_422(make_site):
    site = await make_site(adapters=ADAPTERS)
    status, body = await answered_with_a_change(site, site.services.adapters.unload, "pirate")
    assert status == 422
    assert body["error"].endswith("`adapter_id` must be one of owner/sql. Given: 'pirate'")
    assert site.admission.n_running == 0


async def test_adapter_loaded_anew_during_validation_is_the_new_one(make_site, tmp_path):
    (tmp_path / "new.gguf").write_bytes(EMPTY_GGUF)
    sources = AdapterSources(folders=(str(tmp_path),), fetch=fetch_nothing)
    site = await make_site(adapters=ADAPTERS, sources=sources)
    before = site.services.adapters.ids["pirate"]

    async def reload():
        await site.services.adapters.load("pirate", "new.gguf", scale=1.0, is_reload=True)

    status, _ = await answered_with_a_change(site, reload)
    assert status == 200
    (request,) = site.engine.requests
    assert request.adapter == site.services.adapters.ids["pirate"] != before


# --- what there is ---


async def test_models_lists_the_model_and_then_its_adapters(make_site):
    site = await make_site(adapters=ADAPTERS)
    listed = (await (await site.client().get("/v1/models")).get_json())["data"]
    assert listed[0] == {
        "id": "test/model",
        "object": "model",
        "created": 0,
        "owned_by": "test/model",
    }
    created = site.services.adapters.get("pirate").loaded_at
    assert list(listed[1].items()) == [
        ("id", "pirate"),
        ("object", "model"),
        ("created", created),
        ("owned_by", "test/model"),
        ("root", "pirate.gguf"),
        ("parent", "test/model"),
    ]
    assert listed[2]["id"] == "owner/sql"


@pytest.mark.parametrize("name", ADAPTERS)
async def test_model_of_an_adapter_s_name_is_the_adapter(make_site, name):
    site = await make_site(adapters=ADAPTERS)
    response = await site.client().get(f"/v1/models/{name}")
    assert response.status_code == 200
    body = await response.get_json()
    assert (body["id"], body["parent"]) == (name, "test/model")


async def test_info_lists_adapters_in_its_last_key(make_site):
    site = await make_site(adapters=("pirate",))
    info = await (await site.client().get("/info")).get_json()
    assert list(info)[-1] == "lora_adapters"
    assert info["lora_adapters"] == [{"name": "pirate", "scale": 1.0, "n_bytes": 1000, "rank": 8}]
    info = await (await (await make_site()).client().get("/info")).get_json()
    assert info["lora_adapters"] == []


async def test_metrics_have_a_series_for_each_adapter_there_is(make_site):
    site = await make_site(adapters=ADAPTERS)
    await site.client().post("/generate", json=native(adapter_id="pirate"))
    assert site.metric("tgi_llama_adapters") == 2
    await site.services.adapters.unload("pirate")
    page = site.services.metrics.render().decode()
    assert site.metric("tgi_llama_adapters") == 1
    assert 'adapter="pirate"' not in page
    assert 'adapter="owner/sql"' in page


async def test_log_line_names_the_adapter_at_its_end(make_site, caplog):
    caplog.set_level(logging.INFO)
    site = await make_site(adapters=ADAPTERS)
    await site.client().post("/generate", json=native(adapter_id="pirate"))
    await site.client().post("/generate", json=native())
    with_adapter, without = (r for r in caplog.records if r.message == "Success")
    assert with_adapter.adapter == "pirate"
    assert not hasattr(without, "adapter")
