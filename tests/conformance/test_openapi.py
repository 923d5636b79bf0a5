"""The API document: about every route, valid, nothing of TGI's left out, and true (contract 1.1,
1.4, 4 and 10.6)."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs
import jsonschema
import pytest
from fakes.constraints import constraints
from fakes.engine import FakeEngine, fails_after
from openapi_spec_validator import OpenAPIV31SpecValidator

from tgi_llama.errors import GenerationError
from tgi_llama.server.api_operations import OPERATIONS, VertexRequest
from tgi_llama.server.app import route_table
from tgi_llama.wire import converter, examples
from tgi_llama.wire.sagemaker import read_invocation
from tgi_llama.wire.vertex import VertexBody

TGI_DOCUMENT = Path(__file__).parents[3] / "shared" / "reference" / "tgi-openapi.json"
POST_STATUSES = {"400", "401", "405", "408", "413", "415", "422", "500", "503"}
GENERATING = ["/", "/generate", "/generate_stream", "/v1/chat/completions", "/v1/completions"]
GENERATING += ["/vertex", "/invocations", "/v2/models/{name}/versions/{version}/infer"]


async def document_of(site):
    response = await site.client().get("/api-doc/openapi.json")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    return json.loads(await response.get_data())


@pytest.fixture
async def document(make_site):
    return await document_of(await make_site())


def operations(document) -> Iterator[tuple[str, str, dict]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method, path, operation


def resolved(document, value):
    """The value itself where it is a reference to it."""
    while "$ref" in value:
        target = document
        for step in value["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        value = target
    return value


# --- the document itself ---


async def test_every_route_is_described_and_nothing_else(make_site):
    site = await make_site()
    names = [route.name for route in route_table(site.services)]
    assert sorted(names) == sorted(OPERATIONS)
    document = await document_of(site)
    assert sorted(o["operationId"] for _, _, o in operations(document)) == sorted(names)


async def test_it_is_valid_openapi_3_1(document):
    assert document["openapi"] == "3.1.0"
    OpenAPIV31SpecValidator(document).validate()


async def test_it_names_the_server_s_version(document):
    assert document["info"]["version"] == "1.2.3"


async def test_key_is_asked_for_where_a_route_is_guarded(make_site):
    for keys, security in (((), [{}, {"key": []}]), (("secret",), [{"key": []}])):
        site = await make_site(api_keys=keys)
        guarded = {
            (route.method.lower(), route.name)
            for route in route_table(site.services)
            if route.needs_key
        }
        admin = {route.name for route in route_table(site.services) if route.is_admin}
        document = json.loads(await (await site.client().get("/api-doc/openapi.json")).get_data())
        for method, _, operation in operations(document):
            is_guarded = (method, operation["operationId"]) in guarded
            is_admin = operation["operationId"] in admin
            expected = [{"admin": []}] if is_admin else security if is_guarded else None
            assert operation.get("security") == expected
            assert ("401" in operation["responses"]) is (is_guarded or is_admin)
            assert ("403" in operation["responses"]) is is_admin


async def test_errors_of_every_route_are_described(document):
    for method, path, operation in operations(document):
        statuses = set(operation["responses"])
        assert statuses >= (POST_STATUSES if method == "post" else {"405", "500"})
        assert ("404" in statuses) is ("{" in path or path == "/v1/unload_lora_adapter")
        if method == "post":
            assert (statuses >= {"424", "429"}) is (path in GENERATING)
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                check_error(document, response, is_openai=path.startswith("/v1/"))


def check_error(document, response, *, is_openai):
    response = resolved(document, response)
    media = response["content"]["application/json"]
    name = "OpenAiErrorBody" if is_openai else "ErrorBody"
    assert media["schema"] == {"$ref": f"#/components/schemas/{name}"}
    assert media["examples"]
    for example in media["examples"].values():
        validate(document, media["schema"], example["value"])


async def test_headers_of_errors_are_described(document):
    responses = document["components"]["responses"]
    assert "www-authenticate" in responses["Native401"]["headers"]
    assert "allow" in responses["Native405"]["headers"]
    assert "retry-after" in responses["OpenAi429"]["headers"]


async def test_defaults_are_those_of_the_server(document):
    parameters = document["components"]["schemas"]["GenerateParameters"]["properties"]
    assert parameters["details"]["default"] is False
    assert "default" not in parameters["max_new_tokens"]
    request = document["components"]["schemas"]["GenerateRequest"]
    assert request["properties"]["parameters"]["default"] == {"do_sample": True}
    assert request["required"] == ["inputs"]


def test_vertex_is_described_with_the_fields_that_are_read():
    names = [field.name for field in attrs.fields(VertexRequest)]
    assert names == [field.name for field in attrs.fields(VertexBody)]


# --- examples ---


def validate(document, schema, value):
    jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(
        value
    )


async def test_every_example_fits_its_schema(document):
    n_examples = 0
    for _, _, operation in operations(document):
        bodies = [operation["requestBody"]] if "requestBody" in operation else []
        bodies += [resolved(document, response) for response in operation["responses"].values()]
        for body in bodies:
            for media in body.get("content", {}).values():
                for example in media.get("examples", {}).values():
                    validate(document, media["schema"], example["value"])
                    n_examples += 1
    assert n_examples > 30


@pytest.mark.parametrize(("name", "operation"), OPERATIONS.items(), ids=list(OPERATIONS))
def test_every_example_of_a_request_is_read(name, operation):
    assert (operation.request is None) is (not operation.request_examples)
    for example in operation.request_examples.values():
        body = json.dumps(example).encode()
        if name == "sagemaker_compatibility":
            read_invocation(json.loads(body))
        elif name == "vertex_compatibility":
            converter.parse(VertexBody, body).read_instances()
        else:
            converter.parse(operation.request, body)


# --- against TGI's own document ---

NOT_OURS = {
    "post /chat_tokenize 404",  # never happens, as it never does in TGI (10.6)
    "post /tokenize 404",
    "get /v1/models 404",
}
"""Statuses of TGI's document that neither server answers."""

LEFT_OUT = {
    # TGI's document uses its types of requests here; these are absent or null in every answer.
    "choices[].message.tool_call_id",
    "choices[].delta.tool_call_id",
    "choices[].message.tool_calls[].function.description",
}

NESTED = {
    # TGI's document forgets the list in which models stand.
    "/v1/models": "data[].",
}


@pytest.fixture
def tgi_document():
    if not TGI_DOCUMENT.exists():
        pytest.skip("TGI's document is not here")
    return json.loads(TGI_DOCUMENT.read_text())


def properties(document, schema, path="", seen=()) -> Iterator[str]:
    """Paths of all fields, ``messages[].content`` for example, over all alternatives."""
    if "$ref" in schema:
        if schema["$ref"] in seen:
            return
        seen = (*seen, schema["$ref"])
        schema = resolved(document, schema)
    for key in ("anyOf", "oneOf", "allOf"):
        for member in schema.get(key, ()):
            yield from properties(document, member, path, seen)
    if "items" in schema:
        yield from properties(document, schema["items"], f"{path}[]", seen)
    if "contentSchema" in schema:
        yield from properties(document, schema["contentSchema"], path.removesuffix(".data"), seen)
    for name, member in schema.get("properties", {}).items():
        yield f"{path}.{name}"
        yield from properties(document, member, f"{path}.{name}", seen)


def fields(document, content: Mapping[str, dict]) -> set[str]:
    found = set()
    for media in content.values():
        paths = properties(document, media.get("schema", {}))
        # An answer in an array has the fields of its elements.
        found |= {path.removeprefix("[]").removeprefix(".") for path in paths}
    return found


async def test_everything_in_tgi_s_document_is_here(document, tgi_document):
    ours = {(method, path): operation for method, path, operation in operations(document)}
    missing = []
    for method, path, theirs in operations(tgi_document):
        here = ours[method, path]
        assert here["operationId"] == theirs["operationId"]
        if "requestBody" in theirs:
            wanted = fields(tgi_document, theirs["requestBody"]["content"])
            missing += wanted - fields(document, here["requestBody"]["content"])
        for status, response in theirs["responses"].items():
            if f"{method} {path} {status}" in NOT_OURS:
                continue
            found = resolved(document, here["responses"][status])
            if status == "200":
                prefix = NESTED.get(path, "")
                wanted = {prefix + f for f in fields(tgi_document, response.get("content", {}))}
                missing += wanted - fields(document, found.get("content", {})) - LEFT_OUT
                assert set(response.get("content", {})) <= set(found.get("content", {}))
            else:
                assert "error_type" in fields(document, found["content"])
    assert missing == []


# --- against the server ---


def closed(value):
    """The schemas, with fields that they do not name forbidden."""
    if isinstance(value, list):
        return [closed(member) for member in value]
    if not isinstance(value, dict):
        return value
    result = {key: closed(member) for key, member in value.items()}
    if isinstance(value.get("properties"), dict) and value.get("type") == "object":
        result.setdefault("additionalProperties", False)
    return result


OTHER_HEADERS = {"content-type", "content-length", "cache-control"}
OTHER_HEADERS |= {"content-security-policy", "x-content-type-options"}  # of the page


def check_response(document, operation, response, body: bytes):
    described = resolved(document, operation["responses"][str(response.status_code)])
    names = {name.lower() for name, _ in response.headers.items()}
    named = set(described["headers"])
    assert names - named <= OTHER_HEADERS
    content = described.get("content")
    if content is None:
        assert body == b""
        return
    media_type, _, _ = response.headers["content-type"].partition(";")
    media = content[media_type]
    if media_type == "application/json":
        validate(closed(document), closed(media["schema"]), json.loads(body))
    elif media_type == "text/event-stream":
        events = [block for block in body.decode().split("\n\n") if block.startswith("data: ")]
        assert events
        for event in events:
            data = event.removeprefix("data: ")
            check_event(document, media["schema"], data)


def check_event(document, schema, data: str):
    validate(document, schema, {"data": data})
    alternatives = schema["properties"]["data"].get("anyOf", [schema["properties"]["data"]])
    if data == "[DONE]":
        assert {"const": "[DONE]"} in alternatives
        return
    (payload,) = (one for one in alternatives if "contentSchema" in one)
    validate(closed(document), closed(payload["contentSchema"]), json.loads(data))


def path_of(path: str) -> str:
    return path.format(model_id="tgi", name="m", version="1")


BODIES = [
    (path, name, body)
    for path, bodies in {
        "/": examples.COMPAT_GENERATE,
        "/generate": examples.GENERATE,
        "/generate_stream": examples.GENERATE,
        "/tokenize": examples.TOKENIZE,
        "/chat_tokenize": examples.CHAT_TOKENIZE,
        "/v1/chat/completions": examples.CHAT,
        "/v1/completions": examples.COMPLETION,
        "/invocations": examples.SAGEMAKER,
        "/vertex": examples.VERTEX,
        "/v2/models/{name}/versions/{version}/infer": examples.KSERVE,
    }.items()
    for name, body in bodies.items()
]


@pytest.mark.parametrize(("path", "name", "body"), BODIES, ids=[f"{p}-{n}" for p, n, _ in BODIES])
async def test_answer_is_as_described(make_site, path, name, body):  # noqa: ARG001 the test's name
    site = await make_site(constraints=constraints())
    document = await document_of(site)
    response = await site.client().post(path_of(path), json=body)
    assert response.status_code == 200
    check_response(document, document["paths"][path]["post"], response, await response.get_data())


async def test_x_headers_that_are_described_are_sent(make_site):
    site = await make_site(constraints=constraints())
    document = await document_of(site)
    for path in GENERATING:
        operation = document["paths"][path]["post"]
        described = operation["responses"]["200"]["headers"]
        sent: set[str] = set()
        for _, _, body in (entry for entry in BODIES if entry[0] == path):
            response = await site.client().post(path_of(path), json=body)
            sent |= {name.lower() for name, _ in response.headers.items()}
        sent.add("x-grammar-warnings")  # only where a grammar is not followed in full
        if path == "/invocations":  # no example of it streams
            sent.add("x-accel-buffering")
        assert {name for name in described if name.startswith("x-")} <= sent, path


async def test_get_routes_answer_as_described(make_site):
    site = await make_site()
    document = await document_of(site)
    n_routes = 0
    for method, path, operation in operations(document):
        if method == "get" and path != "/docs/{name}":
            response = await site.client().get(path_of(path))
            check_response(document, operation, response, await response.get_data())
            n_routes += 1
    assert n_routes > 10


@pytest.mark.parametrize("path", ["/health", "/ping", "/"])
async def test_unhealthy_is_as_described(make_site, path):
    site = await make_site(is_healthy=False)
    document = await document_of(site)
    response = await site.client().get(path)
    assert response.status_code == 503
    check_response(document, document["paths"][path]["get"], response, await response.get_data())


@pytest.mark.parametrize("path", GENERATING)
@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"x" * 1001, "application/json", 413),
        (b"{}", "text/plain", 415),
        (b"{}", "application/json", 422),
    ],
)
async def test_refusal_is_as_described(make_site, path, body, content_type, status):
    site = await make_site(payload_limit_bytes=1000)
    document = await document_of(site)
    headers = {"content-type": content_type}
    response = await site.client().post(path_of(path), data=body, headers=headers)
    assert response.status_code == status
    check_response(document, document["paths"][path]["post"], response, await response.get_data())


@pytest.mark.parametrize("path", GENERATING)
@pytest.mark.parametrize(
    ("engine", "settings", "status"),
    [
        (None, {"max_concurrent_requests": 0}, 429),
        (None, {"api_keys": ("secret",)}, 401),
        (FakeEngine(fails_after(error=GenerationError("no memory"))), {}, 424),
    ],
    ids=["overloaded", "no key", "failed"],
)
async def test_failure_is_as_described(make_site, path, engine, settings, status):
    site = await make_site(engine, **settings)
    document = await document_of(site)
    body = next(body for found, _, body in BODIES if found == path)
    response = await site.client().post(path_of(path), json=body)
    if response.status_code == 200:  # a stream that ends with an error event
        assert path == "/generate_stream"
    else:
        assert response.status_code == status
    operation = document["paths"][path]["post"]
    check_response(document, operation, response, await response.get_data())


@pytest.mark.parametrize(
    ("action", "body", "key", "status"),
    [
        ("load", {"lora_name": "pirate", "lora_path": "owner/pirate"}, "admin", 422),
        ("load", {"lora_name": "loaded", "lora_path": "owner/pirate"}, "admin", 409),
        ("load", {"lora_name": "pirate", "lora_path": "/etc/passwd"}, "admin", 403),
        ("load", {"lora_name": "pirate"}, "admin", 422),
        ("load", {}, "user", 403),
        ("load", {}, "wrong", 401),
        ("unload", {"lora_name": "loaded"}, "admin", 200),
        ("unload", {"lora_name": "pirate"}, "admin", 404),
    ],
)
async def test_admin_route_answers_as_described(make_site, action, body, key, status):
    site = await make_site(adapters=("loaded",), admin_keys=("admin",), api_keys=("user",))
    document = await document_of(site)
    path = f"/v1/{action}_lora_adapter"
    headers = {"authorization": f"Bearer {key}"}
    response = await site.client().post(path, json=body, headers=headers)
    assert response.status_code == status
    check_response(document, document["paths"][path]["post"], response, await response.get_data())


async def test_wrong_method_and_unknown_name_are_as_described(make_site):
    site = await make_site()
    document = await document_of(site)
    for path, status in (("/generate", 405), ("/v1/models/{model_id}", 404)):
        (operation,) = document["paths"][path].values()
        response = await site.client().get(path.format(model_id="unknown"))
        assert response.status_code == status
        check_response(document, operation, response, await response.get_data())
