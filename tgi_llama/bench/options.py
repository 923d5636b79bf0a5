"""The values of the command line: types of options, and sizes over a workload's own."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import click
import orjson

from tgi_llama.errors import ConfigError

from .load import Arrival, Closed, Load, Open, Shape
from .plan import Point
from .workloads import Workload

SIZES = {
    "words": "n_words",
    "tokens": "n_tokens",
    "requests": "n_requests",
    "duration": "duration_s",
    "prefix_words": "n_prefix_words",
    "turns": "n_turns",
    "long_prompts": "n_long_prompts",
    "long_words": "n_long_words",
    "long_tokens": "n_long_tokens",
    "undisturbed": "n_undisturbed",
}
"""From an option's parameter to the field of ``Shape`` that it sets."""


class NumberList(click.ParamType[Sequence[float]]):
    """Positive numbers with commas between them: a sweep."""

    name = "numbers"

    def __init__(self, number: Callable[[str], float], expected: str) -> None:
        self._number = number
        self._expected = expected

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Sequence[float]:
        try:
            numbers = [self._number(part) for part in str(value).split(",")]
        except ValueError:
            numbers = []
        if not numbers or not all(0 < number < math.inf for number in numbers):
            self.fail(f"expected {self._expected}, got {value!r}.", param, ctx)
        return numbers


class JsonObject(click.ParamType[dict[str, object]]):
    """A JSON object."""

    name = "JSON object"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, object]:
        if isinstance(value, dict):
            return value
        try:
            parsed = orjson.loads(str(value))
        except orjson.JSONDecodeError:
            parsed = None
        if not isinstance(parsed, dict):
            self.fail(f"expected a JSON object, got {value!r}.", param, ctx)
        return parsed


def points(
    workload: Workload,
    *,
    clients: Sequence[float] | None,
    rates: Sequence[float] | None,
    arrival: Arrival,
    given: Mapping[str, object],
) -> Sequence[Point]:
    """The loads of a sweep, with the sizes that were given over the workload's. Raises ConfigError
    where the workload has no such size or no such load."""
    if clients is not None and rates is not None:
        raise ConfigError("--clients and --rate exclude each other")
    if rates is not None and not workload.can_be_open:
        raise ConfigError(f"--rate: the workload {workload.name} has a fixed number of clients")
    shape = _shape(workload, given)
    loads: list[Load] = [Open(rate, arrival) for rate in rates or ()]
    loads = loads or [Closed(int(number)) for number in clients or [shape.n_clients]]
    return [Point(load=load, shape=shape) for load in loads]


def _shape(workload: Workload, given: Mapping[str, object]) -> Shape:
    changes: dict[str, Any] = {}
    for option, value in given.items():
        if value is None:
            continue
        field = SIZES[option]
        if getattr(workload.shape, field) is None:
            flag = "--" + option.replace("_", "-")
            raise ConfigError(f"{flag}: the workload {workload.name} has no such size")
        changes[field] = value
    return attrs.evolve(workload.shape, **changes)


def sizes_text(workload: Workload) -> str:
    """The workload's sizes as one would write them on the command line."""
    sizes = {"clients": workload.shape.n_clients} | {
        option.replace("_", "-"): getattr(workload.shape, field) for option, field in SIZES.items()
    }
    return " ".join(f"--{option} {size}" for option, size in sizes.items() if size)
