"""``tgi-llama health``: asks a server on this machine whether it is healthy, for containers, whose
images have neither curl nor wget."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Sequence

import click

from tgi_llama.sub_command import CONTEXT, call

_HEALTHY, _UNHEALTHY = 0, 1


_EVERYWHERE = frozenset({"0.0.0.0", "::"})
_HOSTNAME, _PORT = "127.0.0.1", 3000


def run(
    arguments: Sequence[str], *, program: str, address: tuple[str | None, int | None] = (None, None)
) -> int:
    """Returns the exit status: 0 where ``/health`` answers 200, else 1 with one line that says
    what is wrong. Raises ConfigError for wrong arguments.

    ``address``: hostname and port to ask unless the arguments say so, as the server was told them.
    """
    hostname, port = address
    defaults = {
        "hostname": _HOSTNAME if hostname is None or hostname in _EVERYWHERE else hostname,
        "port": port or _PORT,  # 0 is any: nobody knows
    }
    status: int = call(_command, arguments, program, defaults)
    return status


@click.command(
    help="Ask a running server for /health. Ends with status 0 where it is healthy, else with 1."
    " In a container it finds the server's address in the options and variables that the server"
    " was started with.",
    context_settings=CONTEXT,
)
@click.option("--hostname", help="Where it listens. [default: the server's, else 127.0.0.1]")
@click.option(
    "--port",
    "-p",
    type=click.IntRange(1, 65535),
    help="The port that it listens on. [default: the server's, else 3000]",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="How long to wait, in seconds.",
)
def _command(hostname: str, port: int, timeout: float) -> int:
    host = f"[{hostname}]" if ":" in hostname else hostname
    problem = _problem(f"http://{host}:{port}/health", timeout_s=timeout)
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
