"""Vertex AI's own paths (``AIP_PREDICT_ROUTE``, ``AIP_HEALTH_ROUTE``), contract 1.1."""

import pytest

from tgi_llama.config import Config
from tgi_llama.errors import ConfigError
from tgi_llama.service import find_model

PREDICT = "/v1/endpoints/1/deployedModels/2:predict"
BODY = {"instances": [{"inputs": "hi"}]}


async def test_predictions_at_the_chosen_path_are_those_of_vertex(make_site):
    site = await make_site(aip_predict_route=PREDICT)
    client = site.client()
    chosen = await client.post(PREDICT, json=BODY)
    usual = await client.post("/vertex", json=BODY)
    assert chosen.status_code == usual.status_code == 200
    assert await chosen.get_json() == await usual.get_json()
    assert site.metric("tgi_request_count") == 2


async def test_predictions_at_the_chosen_path_need_the_key_too(make_site):
    client = (await make_site(aip_predict_route=PREDICT, api_keys=("k",))).client()
    assert (await client.post(PREDICT, json=BODY)).status_code == 401
    headers = {"Authorization": "Bearer k"}
    assert (await client.post(PREDICT, json=BODY, headers=headers)).status_code == 200


@pytest.mark.parametrize(("is_healthy", "status"), [(True, 200), (False, 503)])
async def test_health_at_the_chosen_path_is_health(make_site, is_healthy, status):
    site = await make_site(aip_health_route="/alive", is_healthy=is_healthy, api_keys=("k",))
    assert (await site.client().get("/alive")).status_code == status


async def test_without_a_choice_there_are_no_further_paths(make_site):
    assert (await (await make_site()).client().post(PREDICT, json=BODY)).status_code == 404


async def test_the_path_that_it_has_anyway_may_be_chosen(make_site):
    client = (await make_site(aip_predict_route="/vertex", aip_health_route="/ping")).client()
    assert (await client.post("/vertex", json=BODY)).status_code == 200
    assert (await client.get("/ping")).status_code == 200


async def test_one_path_may_be_chosen_for_both(make_site):
    client = (await make_site(aip_predict_route="/x", aip_health_route="/x")).client()
    assert (await client.post("/x", json=BODY)).status_code == 200
    assert (await client.get("/x")).status_code == 200


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"aip_predict_route": "/generate"}, "--aip-predict-route: '/generate'"),
        ({"aip_health_route": "/metrics"}, "--aip-health-route: '/metrics'"),
    ],
)
async def test_the_path_of_another_route_is_refused(make_site, settings, message):
    with pytest.raises(ConfigError, match=f"^{message} is the path of another route"):
        await make_site(**settings)


@pytest.mark.parametrize(
    "option",
    [
        {"aip_predict_route": "/generate"},
        {"aip_health_route": "/docs"},
        {"tool_format": "gorilla"},
    ],
)
async def test_what_is_wrong_with_any_model_is_told_before_one_is_looked_for(option, tmp_path):
    (name,) = option
    config = Config(model_gguf=str(tmp_path / "that-is-not-there.gguf"), **option)
    with pytest.raises(ConfigError, match=f"^--{name.replace('_', '-')}: "):
        await find_model(config)
