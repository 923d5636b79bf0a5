"""``/docs/``: the API document as a page that loads nothing from anywhere but this server."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs
import trio
from quart import Response
from werkzeug.exceptions import NotFound

from .routes import Route

_PAGE: Final = b"""<!DOCTYPE html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>tgi_llama: HTTP API</title>
  <link rel="stylesheet" href="swagger-ui.css">
  <link rel="icon" type="image/png" href="favicon-32x32.png">
</head>
<body>
  <div id="page"></div>
  <script src="swagger-ui-bundle.js"></script>
  <script src="start.js"></script>
</body>
</html>
"""

# Without `validatorUrl: null` the page would send the document's address to a service on the
# internet. The address is relative, so that the page also works behind a path of a proxy.
_START: Final = b"""SwaggerUIBundle({
  url: "../api-doc/openapi.json",
  dom_id: "#page",
  deepLinking: true,
  validatorUrl: null,
});
"""

_FILES: Final[Mapping[str, str]] = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "favicon-32x32.png": "image/png",
    "LICENSE": "text/plain; charset=utf-8",
}
"""The files of Swagger UI that the page needs, with their types."""

_HEADERS: Final[Mapping[str, str]] = {
    # Browsers then refuse to load anything else. Swagger UI writes styles and small images itself.
    "content-security-policy": (
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "x-content-type-options": "nosniff",
    "cache-control": "max-age=3600",
}


@attrs.frozen
class DocsPage:
    """The page and its files, which are read when they are asked for."""

    _folder: Path

    @classmethod
    def installed(cls) -> "DocsPage":
        """With the files of Swagger UI that are installed."""
        # Found, not imported: the package's own code is for Flask.
        spec = importlib.util.find_spec("flask_swagger_ui")
        assert spec is not None, "flask-swagger-ui is a dependency"
        assert spec.origin is not None
        return cls(Path(spec.origin).parent / "dist")

    def table(self) -> tuple[Route, ...]:
        return (
            Route("GET", "/docs", "docs_redirect", self.redirect),
            Route("GET", "/docs/", "docs", self.page),
            Route("GET", "/docs/<name>", "docs_file", self.file),
        )

    async def redirect(self) -> Response:
        response = Response(b"", 303, {"location": "/docs/"})
        del response.headers["content-type"]
        return response

    async def page(self) -> Response:
        return _response(_PAGE, "text/html; charset=utf-8")

    async def file(self, name: str) -> Response:
        if name == "index.html":
            return await self.page()
        if name == "start.js":
            return _response(_START, "text/javascript; charset=utf-8")
        if name not in _FILES:
            raise NotFound
        content = await trio.Path(self._folder / name).read_bytes()
        return _response(content, _FILES[name])


def _response(content: bytes, content_type: str) -> Response:
    return Response(content, headers=dict(_HEADERS), content_type=content_type)
