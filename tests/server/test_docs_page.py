"""``/docs/``: complete, open, and loading nothing from elsewhere."""

import re
from html.parser import HTMLParser

import pytest
from fakes.raw_client import get

TYPES = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8"}


class Loads(HTMLParser):
    """What a page loads by itself."""

    def __init__(self):
        super().__init__()
        self.urls = []
        self.n_inline_scripts = 0

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.urls += [url for name, url in given.items() if name in ("src", "href")]
        self.n_inline_scripts += tag == "script" and "src" not in given


async def text_of(client, path):
    response = await client.get(path)
    assert response.status_code == 200
    return (await response.get_data()).decode()


@pytest.fixture
async def client(make_site):
    return (await make_site(api_keys=("secret",))).client()


async def test_docs_leads_to_the_page(make_site):
    client = await (await make_site(api_keys=("secret",))).connect()
    response = await client.request(get("/docs"))
    assert (response.status, response.headers["location"], response.body) == (303, "/docs/", b"")


async def test_page_s_files_are_all_there_and_are_ours(client):
    page = Loads()
    page.feed(await text_of(client, "/docs/"))
    assert page.n_inline_scripts == 0
    assert "swagger-ui-bundle.js" in page.urls
    for url in page.urls:
        assert re.fullmatch(r"[\w.-]+", url), url
        response = await client.get(f"/docs/{url}")
        assert response.status_code == 200
        assert len(await response.get_data()) > 50
        wanted = TYPES.get(url.rpartition(".")[2], "image/png")
        assert response.headers["content-type"] == wanted


async def test_page_s_start_names_the_document_and_no_other_server(client):
    start = await text_of(client, "/docs/start.js")
    assert "validatorUrl: null" in start
    (url,) = re.findall(r'url: "\.\.(.*)"', start)
    assert (await client.get(url)).status_code == 200
    assert "//" not in start


async def test_styles_load_nothing(client):
    styles = await text_of(client, "/docs/swagger-ui.css")
    assert "@import" not in styles
    loaded = re.findall(r"url\(\s*[\"']?(.{5})", styles)
    assert loaded
    assert set(loaded) == {"data:"}


@pytest.mark.parametrize("path", ["/docs/", "/docs/index.html", "/docs/start.js", "/docs/LICENSE"])
async def test_browsers_are_told_to_load_nothing_from_elsewhere(client, path):
    policy = (await client.get(path)).headers["content-security-policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'self'"
    allowed = {source for sources in rules.values() for source in sources.split()}
    assert allowed == {"'self'", "'none'", "'unsafe-inline'", "data:"}
    assert "script-src" not in rules  # so scripts are ours, and in files


async def test_head_is_answered_without_a_body(make_site):
    client = await (await make_site()).connect()
    for path in ("/docs", "/docs/", "/docs/swagger-ui.css", "/api-doc/openapi.json"):
        await client.send(f"HEAD {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        _, status, headers = await client.read_head()
        assert status == (303 if path == "/docs" else 200)
        assert path == "/docs" or int(headers["content-length"]) > 0


@pytest.mark.parametrize(
    "name", ["none.js", "swagger-ui.js", "..%2Fflask_swagger_ui.py", "../x", ".", "a/b", "%00"]
)
async def test_other_names_are_404(make_site, name):
    client = await (await make_site()).connect()
    response = await client.request(get(f"/docs/{name}"))
    assert response.status == 404
    assert response.json["error_type"] == "validation"
