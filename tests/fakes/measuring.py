"""Runs workloads on scripted servers, in this process."""

import attrs
from fakes.scripted_server import ScriptedServer

from tgi_llama.bench.http_client import Endpoint
from tgi_llama.bench.load import Closed, Load
from tgi_llama.bench.plan import Measurement, Plan, Point
from tgi_llama.bench.server import find_server
from tgi_llama.bench.workloads import WORKLOADS


async def measure(
    *servers: ScriptedServer,
    workload: str = "own-prompts",
    load: Load | None = None,
    n_rounds: int = 1,
    n_warm_up: int = 0,
    timeout_s: float = 10,
    api: str = "auto",
    seed: str = "seed",
    **sizes: object,
) -> Measurement:
    """Runs a workload on one server, or on two, with sizes other than its own."""
    chosen = WORKLOADS[workload]
    shape = attrs.evolve(chosen.shape, **sizes)
    found = [
        await find_server(name, Endpoint.parse(server.url, server.api_key), api=api)
        for name, server in zip("AB", servers, strict=False)
    ]
    measurement = Measurement(
        Plan(
            servers=found,
            workload=chosen,
            points=[Point(load=load or Closed(shape.n_clients), shape=shape)],
            n_rounds=n_rounds,
            n_warm_up=n_warm_up,
            timeout_s=timeout_s,
            seed=seed,
        )
    )
    await measurement.run()
    return measurement
