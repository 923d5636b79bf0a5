"""The command ``tgi-llama bench``: from its arguments to a plan, and from results to the screen."""

import secrets
from collections.abc import Sequence
from pathlib import Path

import attrs
import click
import trio

from tgi_llama.errors import BenchError
from tgi_llama.sub_command import CONTEXT, call

from . import screen
from .dialects import DIALECTS
from .http_client import Endpoint
from .load import Arrival
from .options import SIZES, JsonObject, NumberList, points, sizes_text
from .plan import Measurement, Plan, Point
from .plotting import check_plot, plot
from .report import report
from .results import write_results
from .session import ServerOptions, find_servers, run_session
from .workloads import WORKLOADS, Workload

_STATUS_INTERRUPTED = 130
_COUNT = click.IntRange(min=1)


@attrs.frozen(kw_only=True)
class Order:
    """What the command line asks for."""

    endpoints: Sequence[Endpoint]
    server: ServerOptions
    workload: Workload
    points: Sequence[Point]
    n_rounds: int
    n_warm_up: int
    timeout_s: float
    seed: str
    json: Path | None
    with_samples: bool
    picture: Path | None
    is_plain: bool

    async def plan(self) -> Plan:
        """With the servers found. Raises BenchError."""
        return Plan(
            servers=await find_servers(self.endpoints, self.server),
            workload=self.workload,
            points=self.points,
            n_rounds=self.n_rounds,
            n_warm_up=self.n_warm_up,
            timeout_s=self.timeout_s,
            seed=self.seed,
        )


def run(arguments: Sequence[str], *, program: str) -> int:
    """Measures and prints; the exit status. Raises ConfigError and BenchError, in groups too."""
    order = parse(arguments, program=program)
    return execute(order) if order is not None else 0


def parse(arguments: Sequence[str], *, program: str) -> Order | None:
    """None where the arguments only asked for help, which is printed. Raises ConfigError."""
    order = call(_command, arguments, program)
    return order if isinstance(order, Order) else None


def execute(order: Order) -> int:
    """Measures, prints the report, writes the files. Raises ConfigError and BenchError, the latter
    also in groups."""
    is_live = screen.is_live_possible() and not order.is_plain
    show = screen.live_table if is_live else screen.lines
    measurement, is_interrupted = trio.run(run_session, order.plan, show)
    if measurement is not None and measurement.current is not None:
        _print(order, measurement)
        if order.json is not None:
            write_results(measurement, order.json, with_samples=order.with_samples)
        for file in plot(measurement, order.picture) if order.picture is not None else ():
            click.echo(f"wrote {file}", err=True)
    if is_interrupted:
        click.echo("interrupted: the figures are of what ran until then", err=True)
        return _STATUS_INTERRUPTED
    if measurement is not None:
        _check_success(measurement)
    return 0


def _print(order: Order, measurement: Measurement) -> None:
    click.echo(f"{order.workload.name}: {order.workload.summary}; seed {order.seed}")
    for line in report(measurement):
        click.echo(line)


def _check_success(measurement: Measurement) -> None:
    """Raises BenchError where a server has answered nothing at all."""
    plan = measurement.plan
    for server in plan.servers:
        summaries = [measurement.summary(index, server) for index in range(len(plan.points))]
        if not any(summary and summary.n_finished for summary in summaries):
            raise BenchError(f"{server.endpoint.url} answered no request without an error")


def _workload_list() -> str:
    texts = (
        f"{workload.name}: {workload.summary}. {sizes_text(workload)}"
        for workload in WORKLOADS.values()
    )
    return "\b\nWorkloads and their defaults:\n\n" + "\n\n".join(texts)


@click.command(
    context_settings=CONTEXT,
    epilog=_workload_list(),
)
@click.argument("url")
@click.option("--compare", metavar="URL", help="Measure this server (B) in turn with the first.")
@click.option(
    "--workload",
    type=click.Choice(list(WORKLOADS)),
    default="own-prompts",
    show_default=True,
    help="What is sent; see below.",
)
@click.option(
    "--clients",
    type=NumberList(int, "numbers of clients such as 8 or 1,2,4,8"),
    metavar="N[,N...]",
    help="Clients at a time, each waiting for its answer; several numbers are a sweep.",
)
@click.option(
    "--rate",
    type=NumberList(float, "requests a second such as 2 or 0.5,1,2"),
    metavar="R[,R...]",
    help="Instead: requests that arrive every second, whatever still runs.",
)
@click.option(
    "--arrival",
    type=click.Choice(["fixed", "poisson"]),
    default="poisson",
    show_default=True,
    help="How they arrive.",
)
@click.option("--requests", type=_COUNT, help="Requests of a round. [default: two per client]")
@click.option("--duration", type=click.FloatRange(min=0.1), metavar="SECONDS",
              help="Instead: for how long requests start.")  # fmt: skip
@click.option("--rounds", type=_COUNT, default=1, show_default=True, help="Rounds of each load.")
@click.option("--warm-up", type=click.IntRange(min=0), default=1, show_default=True,
              help="Requests to each server before anything counts.")  # fmt: skip
@click.option("--words", type=_COUNT, help="Words of a prompt, without what it shares.")
@click.option("--tokens", type=_COUNT, help="Tokens to generate.")
@click.option("--prefix-words", type=click.IntRange(min=0), help="Words that all prompts share.")
@click.option("--turns", type=_COUNT, help="Questions in a chat.")
@click.option("--long-prompts", type=_COUNT, help="Long prompts that arrive.")
@click.option("--long-words", type=_COUNT, help="Words of a long prompt.")
@click.option("--long-tokens", type=_COUNT, help="Tokens to generate for a long prompt.")
@click.option("--undisturbed", type=_COUNT, help="Tokens of a steady stream before that.")
@click.option(
    "--api",
    type=click.Choice(["auto", *DIALECTS]),
    default="auto",
    show_default=True,
    help="The API to measure: OpenAI's /v1/completions or TGI's /generate_stream. Chats are"
    " OpenAI's always.",
)
@click.option("--model", help="The model's name in requests. [default: the server's first]")
@click.option("--api-key", envvar="BENCH_API_KEY", show_envvar=True, help="Sent as bearer token.")
@click.option("--ignore-eos/--heed-eos", default=True, show_default=True,
              help="Go on after the end-of-generation token, where the server can.")  # fmt: skip
@click.option("--body", type=JsonObject(), default="{}", metavar="JSON",
              help="More fields for the requests, as a JSON object.")  # fmt: skip
@click.option("--seed", help="Makes the prompts. [default: another one every time]")
@click.option("--timeout", type=click.FloatRange(min=0.1), default=600, show_default=True,
              metavar="SECONDS", help="For one request.")  # fmt: skip
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path),
              help="Write the results there.")  # fmt: skip
@click.option("--samples/--no-samples", default=True, show_default=True,
              help="With every request and its events in the JSON file, or without.")  # fmt: skip
@click.option("--plot", "picture", type=click.Path(dir_okay=False, path_type=Path),
              help="Draw pictures: NAME.png or NAME.svg makes NAME-timeline, NAME-load for a sweep,"
              " NAME-ratios for two servers. Needs matplotlib.")  # fmt: skip
@click.option("--plain", is_flag=True, help="Lines instead of a live table.")
def _command(
    url: str,
    *,
    compare: str | None,
    workload: str,
    clients: Sequence[float] | None,
    rate: Sequence[float] | None,
    arrival: Arrival,
    rounds: int,
    warm_up: int,
    api: str,
    model: str | None,
    api_key: str | None,
    ignore_eos: bool,
    body: dict[str, object],
    seed: str | None,
    timeout: float,
    json_file: Path | None,
    samples: bool,
    picture: Path | None,
    plain: bool,
    **sizes: object,
) -> Order:
    """Measure a text-generation server, TGI's or OpenAI's API, by its URL.

    Sends streamed requests with random prompts and reports the time to the first token, the time
    between tokens, the time to the end, and tokens a second.
    """
    chosen = WORKLOADS[workload]
    if picture is not None:
        check_plot(picture)
    return Order(
        endpoints=[Endpoint.parse(one, api_key) for one in (url, compare) if one is not None],
        server=ServerOptions(api=api, model=model, ignore_eos=ignore_eos, fields=body),
        workload=chosen,
        points=points(
            chosen,
            clients=clients,
            rates=rate,
            arrival=arrival,
            given={option: sizes[option] for option in SIZES},
        ),
        n_rounds=rounds,
        n_warm_up=warm_up,
        timeout_s=timeout,
        seed=secrets.token_hex(4) if seed is None else seed,
        json=json_file,
        with_samples=samples,
        picture=picture,
        is_plain=plain,
    )
