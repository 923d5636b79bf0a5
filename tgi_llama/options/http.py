"""Where the server listens, and whom it answers."""

from pathlib import Path

import attrs

from .files import keys_of
from .option import Group, described

_PATH = r"/[^\s?#<>%]*"


@attrs.frozen(kw_only=True, slots=False)  # a class can have one base with slots
class HttpOptions:
    """Part of ``config.Config``."""

    hostname: str = described(
        "0.0.0.0",
        group=Group.HTTP,
        unit="address",
        pattern=r"\S+",
        expected="an address to listen on",
        has_variable=False,  # containers and shells set HOSTNAME to something else
        help="Address to listen on. Not read from the environment.",
    )
    port: int = described(
        3000,
        group=Group.HTTP,
        unit="port",
        minimum=0,
        maximum=65535,
        aliases=("-p",),
        help="Port to listen on; 0 takes a free one.",
    )
    prometheus_port: int | None = described(
        None,
        group=Group.HTTP,
        unit="port",
        minimum=0,
        maximum=65535,
        help="Serve /metrics on this port too; it is always served on --port.",
    )
    api_key_file: Path | None = described(  # noqa: RUF009  # an attrs field
        None,
        group=Group.HTTP,
        unit="file",
        help="Accept the keys in this file too, one a line.",
    )
    api_key: tuple[str, ...] = described(
        (),
        group=Group.HTTP,
        unit="key",
        secret=True,
        help="Ask clients for this bearer token. Repeat it to accept several. A key on the"
        " command line can be seen by others on the machine; a file or API_KEY cannot.",
        resolve=lambda given, config: keys_of(given, config.api_key_file, flag="--api-key"),
    )
    admin_api_key_file: Path | None = described(  # noqa: RUF009  # an attrs field
        None,
        group=Group.HTTP,
        unit="file",
        help="Accept the keys in this file too, one a line, as --admin-api-key.",
    )
    admin_api_key: tuple[str, ...] = described(
        (),
        group=Group.HTTP,
        unit="key",
        secret=True,
        help="The bearer token that opens the routes which change what is served, and no others:"
        " today those that load and unload LoRA adapters. Without one they are closed. Repeat it"
        " to accept several.",
        resolve=lambda given, config: keys_of(
            given, config.admin_api_key_file, flag="--admin-api-key"
        ),
    )
    cors_allow_origin: tuple[str, ...] = described(
        (),
        group=Group.HTTP,
        unit="origin",
        default_text="any",
        help="Let pages of this origin use the server from a browser. Repeat it for several.",
    )
    graceful_termination_timeout: float = described(
        90.0,
        group=Group.HTTP,
        unit="seconds",
        minimum=0,
        aliases=("-g",),
        help="How long running requests may go on after SIGTERM or SIGINT.",
    )
    aip_predict_route: str | None = described(
        None,
        group=Group.HTTP,
        unit="path",
        pattern=_PATH,
        expected="a path that begins with / and is no pattern",
        help="Answer Vertex AI's predictions at this path too, beside /vertex.",
    )
    aip_health_route: str | None = described(
        None,
        group=Group.HTTP,
        unit="path",
        pattern=_PATH,
        expected="a path that begins with / and is no pattern",
        help="Answer Vertex AI's health checks at this path too, beside /health.",
    )
