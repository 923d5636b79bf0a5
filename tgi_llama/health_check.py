"""``tgi-llama health``: asks a server on this machine whether it is healthy, for containers, whose
images have neither curl nor wget."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Sequence

import click

from tgi_llama.errors import ConfigError

_HEALTHY, _UNHEALTHY = 0, 1


def run(arguments: Sequence[str], *, program: str) -> int:
    """Returns the exit status: 0 where ``/health`` answers 200, else 1 with one line that says
    what is wrong. Raises ConfigError for wrong arguments."""
    try:
        result: object = _command.main(list(arguments), prog_name=program, standalone_mode=False)
    except click.ClickException as error:
        raise ConfigError(error.format_message()) from error
    return result if isinstance(result, int) else _HEALTHY


@click.command(
    help="Ask a running server for /health. Ends with status 0 where it is healthy, else with 1."
)
@click.option("--hostname", default="127.0.0.1", show_default=True, help="Where it listens.")
@click.option(
    "--port",
    "-p",
    type=click.IntRange(1, 65535),
    envvar=["PORT", "AIP_HTTP_PORT"],
    default=3000,
    show_default=True,
    help="The port that it listens on. Also read from PORT and AIP_HTTP_PORT.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="How long to wait, in seconds.",
)
def _command(hostname: str, port: int, timeout: float) -> int:
    problem = _problem(f"http://{hostname}:{port}/health", timeout_s=timeout)
    if problem is None:
        return _HEALTHY
    click.echo(f"unhealthy: {problem}", err=True)
    return _UNHEALTHY


def _problem(url: str, *, timeout_s: float) -> str | None:
    """What is wrong with the server, in a line. None: nothing."""
    # Whatever proxy the environment names, it is not for this machine's own server.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout_s):
            return None
    except urllib.error.HTTPError as error:
        with error:
            return f"{url} answers {error.code}"
    except (OSError, http.client.HTTPException) as error:  # refused, too slow, no HTTP
        return f"{url}: {' '.join(str(error).split()) or type(error).__name__}"
