"""What streams with and without adapters have of one machine. Its clock is the test's: decodes take
what they took on two cores with the 0.5 B shape (docs/performance.md)."""

import itertools

import attrs
import pytest
from fakes.cache_play import own, wants
from fakes.playbook import Playbook
from fakes.runner import FakeRunner, noisy

from tgi_llama.engine.model_runner import Batch
from tgi_llama.generation import RequestId

_STEP_S = 0.009
_STREAM_S = 0.0045
_PROMPT_TOKEN_S = 0.0034
_MORE_WITH_ADAPTER = 1.15
_SWITCH_S = 0.0023

_TARGET_S = 0.4
"""What a step with prompts may take beside that many streams."""


@attrs.define(eq=False)
class TimedRunner(FakeRunner):
    """Its decodes move a clock."""

    now: float = 0.0

    def decode(self, batch: Batch) -> None:
        is_other = batch.adapter != self._adapter
        super().decode(batch)
        n_tokens = [run.n_tokens for run in batch.runs]
        n_prompt = sum(n for n in n_tokens if n > 1)
        seconds = _STEP_S + _STREAM_S * n_tokens.count(1) + _PROMPT_TOKEN_S * n_prompt
        self.switch_s = _SWITCH_S if is_other else self.switch_s
        self.now += seconds * (1.0 if batch.adapter is None else _MORE_WITH_ADAPTER)
        self.now += _SWITCH_S if is_other else 0.0


@attrs.define(eq=False)
class Race:
    """Streams that run, and when each of their tokens came."""

    play: Playbook
    runner: TimedRunner
    came: dict[RequestId, list[float]] = attrs.field(factory=dict)

    def load(self, *adapters: int) -> None:
        self.play.load(*adapters)
        self.play.step()

    def streams(self, n: int, adapter: int | None = None) -> list[RequestId]:
        """They decode when this returns."""
        ids = [self.prompt(4, adapter, n_new=200) for _ in range(n)]
        while not all(self.play.tokens(each) for each in ids):
            self.play.step()
        return ids

    def prompt(self, n_tokens: int, adapter: int | None = None, *, n_new: int = 2) -> RequestId:
        number = len(self.came)
        prompt = own(number % 60, n_tokens)
        request_id = self.play.submit(wants(prompt, n_new, seed=number, adapter=adapter))
        self.came[request_id] = []
        return request_id

    def step(self) -> None:
        self.play.step()
        for request_id, moments in self.came.items():
            n_new = len(self.play.tokens(request_id)) - len(moments)
            moments += [self.runner.now] * n_new

    def run(self, seconds: float) -> None:
        """From here on."""
        start = self.runner.now
        for request_id in self.came:
            self.came[request_id] = [start] * len(self.play.tokens(request_id))
        while self.runner.now < start + seconds:
            self.step()

    def pace(self, ids: list[RequestId], since: float) -> float:
        """Tokens a second of each."""
        n = sum(moment > since for each in ids for moment in self.came[each])
        return n / len(ids) / (self.runner.now - since)

    def longest_pause(self, ids: list[RequestId]) -> float:
        return max(
            after - before for each in ids for before, after in itertools.pairwise(self.came[each])
        )


@pytest.fixture
def race(monkeypatch: pytest.MonkeyPatch) -> Race:
    runner = TimedRunner(n_slots=24, max_batch_tokens=512, script=noisy)
    monkeypatch.setattr("tgi_llama.engine.decode_loop.perf_counter", lambda: runner.now)
    monkeypatch.setattr("tgi_llama.engine.placement.perf_counter", lambda: runner.now)
    play = Playbook(runner=runner, cells_per_sequence=2048, max_prefill_tokens=512, budget=None)
    return Race(play, runner)


def test_one_stream_with_an_adapter_beside_fifteen_has_their_pace(race: Race) -> None:
    """13.1 tokens a second alone; 10.4 and 10.1 together."""
    race.load(1)
    base, guest = race.streams(15), race.streams(1, 1)
    start = race.runner.now
    race.run(4.0)
    assert race.pace(base, start) > 9.8
    assert race.pace(guest, start) == pytest.approx(race.pace(base, start), rel=0.1)
    assert race.longest_pause(base + guest) < 0.11


def test_long_prompt_with_an_adapter_holds_streams_up_no_longer_than_one_without(
    race: Race,
) -> None:
    """It takes 6.6 s instead of 4.4, and they have 4.4 tokens a second meanwhile instead of 2.9."""
    race.load(1)
    base = race.streams(15)
    taken: dict[int | None, float] = {}
    for adapter in (None, 1):
        prompt = race.prompt(1000, adapter)
        race.run(0.0)
        start = race.runner.now
        while not race.came[prompt]:
            race.step()
        taken[adapter] = race.runner.now - start
        assert race.longest_pause(base) < _TARGET_S + 0.01
        assert race.pace(base, start) > 2.8
    assert taken[1] < 1.6 * taken[None]


def test_prompts_with_many_adapters_hold_streams_up_no_longer_than_a_cycle(race: Race) -> None:
    """Eight long prompts, each with an adapter of its own: 0.77 s, and 1.18 if each had a whole
    step."""
    adapters = range(1, 9)
    race.load(*adapters)
    base = race.streams(15)
    first = race.prompt(300, 1)  # what prompts cost with an adapter is not known before
    while not race.came[first]:
        race.step()
    start = race.runner.now
    prompts = [race.prompt(500, adapter) for adapter in adapters]
    race.run(0.0)
    while not all(race.came[each] for each in prompts):
        race.step()
    assert race.longest_pause(base) < 4 * 0.22
    assert race.pace(base, start) > 1.3
    assert race.runner.now - start < 23.0


def test_steps_with_adapters_are_learned_apart(race: Race) -> None:
    """Else those without would be thought to take longer while some have one."""
    race.load(1)
    race.streams(3)
    race.streams(3, 1)
    race.run(4.0)
    scheduler = race.play.scheduler
    seconds = _STEP_S + 3 * _STREAM_S
    assert scheduler.budget.step_s(3) == pytest.approx(seconds)
    assert scheduler.adapters_budget.step_s(3) == pytest.approx(_MORE_WITH_ADAPTER * seconds)
