"""What is to be measured, and the order in which it is."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence

import attrs

from tgi_llama.errors import BenchError

from .dialects import Job
from .load import Load, Round, Shape
from .server import Server
from .summary import Summary, summarise
from .words import PromptSource
from .workloads import Workload


@attrs.frozen(kw_only=True)
class Point:
    """One load of a sweep."""

    load: Load
    shape: Shape


@attrs.frozen(kw_only=True)
class Plan:
    servers: Sequence[Server]
    """One, or two that are compared."""
    workload: Workload
    points: Sequence[Point]
    n_rounds: int
    n_warm_up: int
    """Requests to each server before anything counts."""
    timeout_s: float
    seed: str

    def rounds(self) -> Iterator["PlannedRound"]:
        """In the order in which they run: A B, B A, ... at each point, because the speed of a
        machine changes within minutes."""
        for (index, point), number in itertools.product(
            enumerate(self.points), range(self.n_rounds)
        ):
            for server in self.servers if number % 2 == 0 else reversed(self.servers):
                # Both servers get the same prompts.
                seed = f"{self.seed} {index} {number}"
                yield PlannedRound(index, point, number, server, seed)


@attrs.frozen
class PlannedRound:
    point_index: int
    point: Point
    number: int
    server: Server
    seed: str


@attrs.define(eq=False)
class Measurement:
    """A plan and what has come of it so far."""

    plan: Plan
    note_round: Callable[[Round], None] = lambda _round: None
    """Called after each round."""
    started_at: float = attrs.field(factory=time.time)
    _rounds: list[tuple[int, Round]] = attrs.field(factory=list)
    """With the index of the point."""

    async def run(self) -> None:
        """Runs all rounds. Cancelled, it keeps what it has. Raises BenchError where a server does
        not even do the warm-up."""
        for server in self.plan.servers:
            await self._warm_up(server)
        for planned in self.plan.rounds():
            one = self._round(planned)
            self._rounds.append((planned.point_index, one))
            try:
                await self.plan.workload.run(one)
                one.is_complete = True
            finally:
                one.ended = time.perf_counter()
            self.note_round(one)

    @property
    def current(self) -> Round | None:
        return self._rounds[-1][1] if self._rounds else None

    @property
    def is_complete(self) -> bool:
        """All rounds have run to their end."""
        n_complete = sum(one.is_complete for _, one in self._rounds)
        return n_complete == self.n_rounds_planned

    @property
    def n_rounds_begun(self) -> int:
        return len(self._rounds)

    @property
    def n_rounds_planned(self) -> int:
        return len(self.plan.points) * self.plan.n_rounds * len(self.plan.servers)

    def rounds_of(self, point_index: int, server: Server) -> Sequence[Round]:
        """In order; an interrupted one counts where it is the only one."""
        found = [
            one for index, one in self._rounds if index == point_index and one.server is server
        ]
        return [one for one in found if one.is_complete] or [one for one in found if one.samples]

    def pairs_of(self, point_index: int) -> Sequence[tuple[Round, Round]]:
        """The rounds of both servers that ran next to each other, where there are both."""
        first, second = (
            {one.number: one for one in self.rounds_of(point_index, server) if one.is_complete}
            for server in self.plan.servers
        )
        return [(first[number], second[number]) for number in sorted(first.keys() & second.keys())]

    def summary(self, point_index: int, server: Server) -> Summary | None:
        """None where nothing has been measured."""
        rounds = self.rounds_of(point_index, server)
        return summarise(rounds, self.plan.workload.rows) if rounds else None

    async def _warm_up(self, server: Server) -> None:
        shape = attrs.evolve(self.plan.points[0].shape, n_words=16)
        prompts = PromptSource(f"{self.plan.seed} {server.name} warm-up")
        one = self._make(server, self.plan.points[0].load, shape, prompts, number=-1)
        for _ in range(self.plan.n_warm_up):
            text = prompts.words(16)
            sample = await one.send(Job(group="warm-up", prompt=text, n_tokens=8))
            if sample.failure is not None:
                kind, message = sample.failure.kind, sample.failure.message
                raise BenchError(f"{server.endpoint.url} failed a first request: {kind}: {message}")

    def _round(self, planned: PlannedRound) -> Round:
        point = planned.point
        return self._make(
            planned.server, point.load, point.shape, PromptSource(planned.seed), planned.number
        )

    def _make(
        self, server: Server, load: Load, shape: Shape, prompts: PromptSource, number: int
    ) -> Round:
        return Round(
            server=server,
            load=load,
            shape=shape,
            prompts=prompts,
            timeout_s=self.plan.timeout_s,
            number=number,
        )
