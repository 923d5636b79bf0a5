"""The API document as a whole: how routes become paths. What it says is in tests/conformance."""

import json

from quart import Response

from tgi_llama.server.api_document import document, with_api_document
from tgi_llama.server.routes import Route


async def nothing() -> Response:
    raise AssertionError


def paths(*routes: Route):
    return json.loads(document(routes, version="1", needs_key=False))["paths"]


def test_variable_parts_of_a_path_become_parameters() -> None:
    route = Route("GET", "/v1/models/<path:model_id>", "openai_get_model", nothing)
    written = paths(route)["/v1/models/{model_id}"]["get"]
    (parameter,) = written["parameters"]
    assert (parameter["name"], parameter["in"]) == ("model_id", "path")


def test_two_methods_of_a_path_stand_together() -> None:
    routes = (
        Route("GET", "/", "root_health", nothing),
        Route("POST", "/", "compat_generate", nothing),
    )
    assert list(paths(*routes)["/"]) == ["get", "post"]


def test_route_that_nobody_described_is_left_out() -> None:
    assert paths(Route("GET", "/new", "new", nothing)) == {}


async def test_document_has_its_own_route_and_is_written_once() -> None:
    *_, route = with_api_document((), version="1", needs_key=False)
    assert (route.method, route.path) == ("GET", "/api-doc/openapi.json")
    first, second = await route.view(), await route.view()
    content = await first.get_data()
    assert content is await second.get_data()
    assert list(json.loads(content)["paths"]) == ["/api-doc/openapi.json"]
