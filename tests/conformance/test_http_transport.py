"""Errors before a route, API keys, CORS, and the routes that generate nothing (contract 1 and 3.6
to 3.7, with the changes of decisions)."""

import json

import pytest
from fakes.engine import FakeEngine
from fakes.raw_client import get, post

from tgi_llama.errors import ToolError

ASK = {"inputs": "hi"}
CHAT = {"messages": [{"role": "user", "content": "hi"}]}
CLOSE = ("Connection: close",)
POST_ROUTES = ["/", "/generate", "/generate_stream", "/v1/chat/completions", "/v1/completions"]
VARY = "origin, access-control-request-method, access-control-request-headers"


async def error_of(response):
    body = await response.get_json()
    assert response.headers["content-type"] == "application/json"
    return body["error"] if isinstance(body["error"], str) else body["error"]["message"]


@pytest.mark.parametrize("path", [*POST_ROUTES, "/tokenize"])
@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{}", None, 415),
        (b"{}", "text/plain", 415),
        (b"{", "application/json", 400),
        (b"", "application/json", 400),
        (b"{}", "application/json", 422),
        (b"{}", "application/vnd.api+json; charset=utf-8", 422),
        (b"x" * 1001, "application/json", 413),
    ],
)
async def test_body_that_is_not_the_route_s_json_is_refused_in_json(
    make_site, path, body, content_type, status
):
    site = await make_site(payload_limit_bytes=1000)
    headers = {"content-type": content_type} if content_type else {}
    response = await site.client().post(path, data=body, headers=headers)
    assert response.status_code == status
    assert await error_of(response)
    assert (await response.get_json())["error_type"] == "validation"
    if path != "/tokenize":
        assert site.metric("tgi_request_count") == 1
        assert site.metric('tgi_request_failure{err="parse"}') == 1


async def test_wrong_shape_names_the_field(make_site):
    response = await (await make_site()).client().post("/generate", json={"inputs": 1})
    assert await error_of(response) == (
        "Failed to deserialize the JSON body into the target type: inputs: expected a string, got 1"
    )


async def test_malformed_json_keeps_tgis_text(make_site):
    response = await (
        (await make_site())
        .client()
        .post("/generate", data=b"{", headers={"content-type": "application/json"})
    )
    assert (await error_of(response)).startswith("Failed to parse the request body as JSON: ")


HANDSHAKE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
)


async def test_websocket_is_refused_with_4xx(make_site):
    client = await (await make_site()).connect()
    response = await client.request(get("/", headers=HANDSHAKE))
    assert response.status == 403
    assert await client.read_to_eof() == b""


@pytest.mark.parametrize("missing", ["Sec-WebSocket-Key", "Sec-WebSocket-Version"])
async def test_websocket_with_a_bad_handshake_is_refused_and_closed(make_site, missing):
    client = await (await make_site()).connect()
    handshake = tuple(line for line in HANDSHAKE if not line.startswith(missing))
    response = await client.request(get("/", headers=handshake))
    assert response.status == 400
    assert await client.read_to_eof() == b""


async def test_websocket_data_before_the_handshake_is_answered_closes(make_site):
    client = await (await make_site()).connect()
    response = await client.request(get("/", headers=HANDSHAKE) + b"\x81\x00")
    assert 400 <= response.status < 500
    assert await client.read_to_eof() == b""


@pytest.mark.parametrize("path", ["/no-such-route", "/generate/", "/v1/nothing"])
async def test_unknown_path_is_404_json(make_site, path):
    client = await (await make_site()).connect()
    response = await client.request(get(path))
    assert response.status == 404
    assert response.json["error_type"] == "validation"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/generate", "POST"),
        ("POST", "/info", "GET, HEAD"),
        ("PUT", "/", "GET, HEAD, POST"),
    ],
)
async def test_wrong_method_is_405_with_allow(make_site, method, path, allowed):
    response = await (await make_site()).client().open(path, method=method)
    assert response.status_code == 405
    assert response.headers["allow"] == allowed
    assert await error_of(response)


async def test_overloaded_says_when_to_retry(make_site):
    site = await make_site(max_concurrent_requests=0)
    response = await site.client().post("/generate", json=ASK)
    assert response.status_code == 429
    assert response.headers["retry-after"] == "1"
    assert site.metric('tgi_request_failure{err="overloaded"}') == 1


async def test_failure_nobody_foresaw_is_500_json_and_logged(make_site, caplog):
    site = await make_site(FakeEngine(lambda _: 1 / 0))
    response = await site.client().post("/generate", json=ASK)
    assert response.status_code == 500
    assert await response.get_json() == {
        "error": "The server failed; its log says why",
        "error_type": "internal_error",
    }
    assert "ZeroDivisionError" in caplog.text
    assert site.admission.n_running == 0
    assert site.metric('tgi_request_failure{err="internal"}') == 1


async def test_tool_error_is_422_and_counted_as_one(make_site):
    def refuse(_request):
        raise ToolError("Tool with name x not found")

    site = await make_site(FakeEngine(refuse))
    response = await site.client().post("/v1/chat/completions", json=CHAT)
    assert response.status_code == 422
    assert await error_of(response) == "Tool error: Tool with name x not found"
    assert (await response.get_json())["error_type"] == "tool_error"
    assert site.metric('tgi_request_failure{err="tool"}') == 1


# --- API keys ---

OTHER_SPELLINGS = [
    ("GET", "/v1/models"),
    ("HEAD", "/v1/models"),
    ("GET", "/generate"),
    ("PUT", "/"),
    ("POST", "//generate"),
]
GUARDED = [("POST", path) for path in [*POST_ROUTES, "/tokenize"]]


@pytest.mark.parametrize(("method", "path"), [*GUARDED, *OTHER_SPELLINGS])
@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Bearer wrong", "Bearer SECRET", "Basic secret", "secret", "é"],
)
async def test_guarded_route_without_the_key_is_401(make_site, method, path, authorization):
    site = await make_site(api_keys=("secret", "other"))
    headers = {} if authorization is None else {"authorization": authorization}
    response = await site.client().open(path, method=method, headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert method == "HEAD" or (await response.get_json())["error_type"] == "authentication"


@pytest.mark.parametrize("authorization", ["Bearer secret", "bearer secret", "Bearer other"])
async def test_guarded_route_with_a_key_is_served(make_site, authorization):
    site = await make_site(api_keys=("secret", "other"))
    headers = {"authorization": authorization}
    response = await site.client().post("/generate", json=ASK, headers=headers)
    assert response.status_code == 200
    assert (await site.client().get("/v1/models", headers=headers)).status_code == 200


@pytest.mark.parametrize("path", ["/", "/health", "/ping", "/info", "/metrics"])
async def test_open_route_needs_no_key(make_site, path):
    site = await make_site(api_keys=("secret",))
    assert (await site.client().get(path)).status_code == 200


async def test_wrong_key_is_counted_once(make_site):
    site = await make_site(api_keys=("secret",))
    await site.client().post("/generate", json=ASK)
    assert site.metric("tgi_request_count") == 1
    assert site.metric('tgi_request_failure{err="auth"}') == 1


# --- CORS ---


@pytest.mark.parametrize("path", ["/generate", "/info", "/no-such-route", "*"])
async def test_options_is_answered_on_any_path(make_site, path):
    client = await (await make_site(api_keys=("secret",))).connect()
    response = await client.request(f"OPTIONS {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
    assert (response.status, response.body) == (200, b"")
    assert response.headers["access-control-allow-methods"] == "get,post"
    assert response.headers["access-control-allow-headers"] == "content-type,authorization"
    assert response.headers["access-control-allow-origin"] == "*"
    assert response.headers["vary"] == VARY


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://a", "content-type,authorization,x-stainless-os,x-my_own.header"),
        ("http://c", "content-type,authorization"),
    ],
)
async def test_preflight_allows_headers_that_clients_make_up(make_site, origin, allowed):
    client = await (await make_site(cors_allow_origins=("http://a",))).connect()
    response = await client.request(
        f"OPTIONS /v1/models HTTP/1.1\r\nHost: test\r\nOrigin: {origin}\r\n"
        "Access-Control-Request-Method: POST\r\n"
        "Access-Control-Request-Headers: authorization, X-Stainless-OS,x-my_own.header,"
        'cookie,x-,x-a b,x-"q"\r\n\r\n'.encode()
    )
    assert response.status == 200
    assert response.headers["access-control-allow-headers"] == allowed


@pytest.mark.parametrize(
    ("path", "headers"), [("/generate", ()), ("/generate", CLOSE), ("/generate_stream", ())]
)
async def test_headers_of_ours_may_be_read_by_pages(make_site, path, headers):
    client = await (await make_site()).connect()
    response = await client.request(post(path, ASK, headers=headers))
    exposed = response.headers["access-control-expose-headers"].split(",")
    own = {name for name in response.headers if name.startswith("x-")}
    assert own
    assert own <= set(exposed)


async def test_retry_after_may_be_read_by_pages(make_site):
    client = await (await make_site(max_concurrent_requests=0)).connect()
    response = await client.request(post("/generate", ASK))
    assert response.headers["retry-after"]
    assert "retry-after" in response.headers["access-control-expose-headers"].split(",")


@pytest.mark.parametrize("path", ["/info", "/no-such-route"])
async def test_any_origin_is_allowed_by_default(make_site, path):
    client = await (await make_site()).connect()
    response = await client.request(get(path))
    assert response.headers["access-control-allow-origin"] == "*"
    assert response.headers["vary"] == VARY


@pytest.mark.parametrize(
    ("origin", "allowed"), [("http://a", "http://a"), ("http://c", None), (None, None)]
)
async def test_listed_origins_are_echoed(make_site, origin, allowed):
    client = await (await make_site(cors_allow_origins=("http://a", "http://b"))).connect()
    headers = (f"Origin: {origin}",) if origin else ()
    response = await client.request(post("/generate_stream", ASK, headers=headers))
    assert response.headers.get("access-control-allow-origin") == allowed
    assert ("access-control-expose-headers" in response.headers) == (allowed is not None)
    assert response.headers["vary"] == VARY


# --- routes that generate nothing ---


@pytest.mark.parametrize("path", ["/", "/health", "/ping"])
async def test_health_is_200_and_empty_or_503(make_site, path):
    client = await (await make_site()).connect()
    response = await client.request(get(path))
    assert (response.status, response.body) == (200, b"")
    assert "content-type" not in response.headers
    response = await (await make_site(is_healthy=False)).client().get(path)
    assert response.status_code == 503
    assert await response.get_data() == b'{"error":"unhealthy","error_type":"healthcheck"}'


async def test_tokenize_gives_byte_offsets(make_site):
    site = await make_site(max_concurrent_requests=0)  # it needs no permit
    response = await site.client().post("/tokenize", json={"inputs": "é!"})
    assert (await response.get_data()).decode() == (
        '[{"id":1,"text":"","start":0,"stop":0},'
        '{"id":233,"text":"é","start":0,"stop":2},'
        '{"id":33,"text":"!","start":2,"stop":3}]'
    )


async def test_tokenize_of_nothing_is_allowed(make_site):
    response = await (await make_site()).client().post("/tokenize", json={"inputs": ""})
    assert await response.get_json() == [{"id": 1, "text": "", "start": 0, "stop": 0}]


async def test_info_has_tgi_s_keys_first_and_in_order(make_site):
    response = await (await make_site(max_concurrent_requests=8)).client().get("/info")
    info = json.loads(await response.get_data())
    assert list(info)[:14] == [
        "model_id",
        "model_sha",
        "model_pipeline_tag",
        "max_concurrent_requests",
        "max_best_of",
        "max_stop_sequences",
        "max_input_tokens",
        "max_total_tokens",
        "validation_workers",
        "max_client_batch_size",
        "router",
        "version",
        "sha",
        "docker_label",
    ]
    assert info["model_id"] == "test/model"
    assert info["max_concurrent_requests"] == 8
    assert info["router"] == "tgi_llama"
    assert info["n_slots"] == 4
    assert info["type_k"] == "f16"


@pytest.mark.parametrize(
    ("label", "fingerprint"), [(None, "1.2.3-native"), ("gpu-7", "1.2.3-gpu-7")]
)
async def test_fingerprint_names_the_version_and_the_image(make_site, label, fingerprint):
    site = await make_site(docker_label=label)
    response = await site.client().post("/v1/chat/completions", json=CHAT)
    assert (await response.get_json())["system_fingerprint"] == fingerprint


async def test_metrics_is_prometheus_text(make_site):
    response = await (await make_site()).client().get("/metrics")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert b"# TYPE tgi_request_count counter\n" in await response.get_data()
