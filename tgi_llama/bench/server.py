"""The server that is measured: where it is, which API it speaks, which model it serves."""

from collections.abc import Mapping

import attrs
import orjson
import trio

from tgi_llama.errors import BenchError, MeasuredRequestFailed

from .dialects import DIALECTS, OPENAI, TGI, Asking, Dialect, error_text
from .http_client import Endpoint, open_response, reason_of

_PATIENCE_S = 30


@attrs.frozen
class Server:
    name: str
    """Its letter in a comparison, ``A`` or ``B``."""
    endpoint: Endpoint
    dialect: Dialect
    asking: Asking

    @property
    def label(self) -> str:
        return f"{self.name}: {self.endpoint.url}"


@attrs.frozen
class _Answer:
    status: int
    text: str

    def value(self) -> Mapping[str, object]:
        """The JSON object that it is; empty where it is something else."""
        try:
            value = orjson.loads(self.text)
        except orjson.JSONDecodeError:
            return {}
        return value if self.status == 200 and isinstance(value, dict) else {}


async def find_server(
    name: str,
    endpoint: Endpoint,
    *,
    api: str = "auto",
    model: str | None = None,
    ignore_eos: bool = True,
    fields: Mapping[str, object] | None = None,
) -> Server:
    """Asks the server what it is. Raises BenchError where it cannot be reached, speaks neither API,
    or wants a key."""
    try:
        endpoint = await endpoint.resolved()
    except OSError as error:
        raise BenchError(f"{endpoint.url} cannot be reached: {reason_of(error)}") from error
    models = await _get(endpoint, "/v1/models")
    if models.status in (401, 403):
        raise BenchError(
            f"{endpoint.url} answers {models.status}: {error_text(models.text)} (see --api-key)"
        )
    info = await _get(endpoint, "/info")
    served = _first_model(models.value())
    native = info.value().get("model_id")
    if api != "auto":
        dialect = DIALECTS[api]
    elif served is not None:
        dialect = OPENAI
    elif isinstance(native, str):
        dialect = TGI
    else:
        raise BenchError(
            f"{endpoint.url} speaks neither OpenAI's API nor TGI's: /v1/models answers"
            f" {models.status} and /info {info.status} (see --api)"
        )
    found = model or served or (native if isinstance(native, str) else None) or "tgi"
    asking = Asking(model=found, ignore_eos=ignore_eos, fields=fields or {})
    return Server(name, endpoint, dialect, asking)


async def _get(endpoint: Endpoint, path: str) -> _Answer:
    try:
        with trio.fail_after(_PATIENCE_S):
            async with open_response(endpoint, endpoint.request("GET", path)) as response:
                return _Answer(response.status, await response.read_text())
    except MeasuredRequestFailed as error:
        raise BenchError(f"{endpoint.url}{path} failed: {error}") from error
    except trio.TooSlowError:
        raise BenchError(f"{endpoint.url}{path} did not answer in {_PATIENCE_S} s") from None


def _first_model(answer: Mapping[str, object]) -> str | None:
    entries = answer.get("data")
    if not isinstance(entries, list):
        return None
    names = [entry.get("id") for entry in entries if isinstance(entry, dict)]
    return next((name for name in names if isinstance(name, str)), None)
