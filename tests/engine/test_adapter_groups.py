"""Whose turn it is, and for how long: steps whose durations the test says."""

import itertools
from collections import Counter

import attrs
import pytest
from fakes.scheduling import a_scheduler, a_sequence, compute, held

from tgi_llama.engine.adapter_groups import AdapterGroups, Group
from tgi_llama.engine.model_runner import SlotId
from tgi_llama.engine.scheduler import Scheduler
from tgi_llama.engine.sequence import Phase, Sequence
from tgi_llama.generation import AdapterId

A, B = AdapterId(1), AdapterId(2)


@attrs.define(eq=False)
class Machine:
    """Groups of sequences that decode, and what steps and changes take."""

    switch_s: float = 0.003
    longest_s: float = 0.22
    sizes: dict[AdapterId | None, int] = attrs.field(factory=dict)
    groups: AdapterGroups = attrs.field(init=False)
    running: list[Sequence] = attrs.field(factory=list)
    now: float = 0.0
    lost: float = 0.0
    current: AdapterId | None = None
    steps: "Counter[AdapterId | None]" = attrs.field(factory=Counter)
    served: dict[AdapterId | None, list[float]] = attrs.field(factory=dict)
    """When each group's steps ended."""

    def __attrs_post_init__(self) -> None:
        self.groups = AdapterGroups(lambda group: self.step_s(group), lambda: self.longest_s)
        for adapter, n in self.sizes.items():
            for _ in range(n):
                self.join(adapter)

    def step_s(self, group: Group) -> float:
        """12 ms for one sequence, 75 for fifteen: the 0.5 B shape on two cores."""
        return 0.0075 + 0.0045 * len(group.members)

    def join(self, adapter: AdapterId | None) -> Sequence:
        sequence = a_sequence(len(self.running), 1, adapter=adapter)
        sequence.phase = Phase.DECODE
        self.running.append(sequence)
        self.groups.join(sequence)
        return sequence

    def leave(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self.groups.leave(sequence)

    def step(self) -> AdapterId | None:
        group = self.groups.choose(again=False)
        assert group is not None
        assert self.groups.adapter == group.adapter
        switch_s = 0.0
        if group.adapter != self.current:
            self.current, switch_s = group.adapter, self.switch_s
            self.groups.changed(switch_s)
        seconds = self.step_s(group) + switch_s
        self.now += seconds
        self.lost += switch_s
        if len(self.groups) > 1:
            self.groups.spend(seconds, switch_s=switch_s)
        self.steps[group.adapter] += 1
        self.served.setdefault(group.adapter, []).append(self.now)
        self.groups.check_invariants(self.running)
        return group.adapter

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.step()

    def longest_pause(self) -> float:
        spans = (span for times in self.served.values() for span in itertools.pairwise(times))
        return max(after - before for before, after in spans)


def test_all_streams_get_tokens_at_one_pace() -> None:
    """One stream with an adapter beside fifteen without."""
    machine = Machine(sizes={None: 15, A: 1})
    machine.run(60.0)
    assert machine.steps[A] == pytest.approx(machine.steps[None], rel=0.35)
    assert sum(machine.served[A][-1:]) > 59


def test_equal_groups_have_equal_time() -> None:
    machine = Machine(sizes={None: 4, A: 4, B: 4})
    machine.run(60.0)
    assert max(machine.steps.values()) - min(machine.steps.values()) < 20


@pytest.mark.parametrize("switch_s", [0.0005, 0.003, 0.02, 0.05])
@pytest.mark.parametrize("n_groups", [2, 3, 5])
def test_changes_take_a_tenth_of_the_time_at_most(switch_s: float, n_groups: int) -> None:
    sizes: dict[AdapterId | None, int] = {AdapterId(number): 1 for number in range(n_groups)}
    machine = Machine(switch_s=switch_s, sizes=sizes, longest_s=10.0)
    machine.run(60.0)
    assert machine.lost / machine.now < 0.12


@pytest.mark.parametrize("switch_s", [0.0, 0.003, 0.05, 1.0])
@pytest.mark.parametrize("n_groups", [2, 4, 8])
def test_pause_is_no_longer_than_a_cycle(switch_s: float, n_groups: int) -> None:
    """Four times what a step may take, and then what a step and a change of each take."""
    sizes: dict[AdapterId | None, int] = {AdapterId(number): 2 for number in range(n_groups)}
    machine = Machine(switch_s=switch_s, sizes=sizes)
    machine.run(60.0)
    of_each = machine.step_s(
        Group(None, {sequence.request_id: sequence for sequence in machine.running[:2]})
    )
    least = n_groups * (1.5 * of_each + switch_s)
    cycle_s = min(10 * n_groups * switch_s, 4 * machine.longest_s)
    assert machine.longest_pause() <= cycle_s + least
    assert min(machine.steps.values()) > 0.8 * max(machine.steps.values())


def test_changes_that_cost_nothing_are_made_every_step() -> None:
    machine = Machine(switch_s=0.0, sizes={None: 2, A: 1})
    assert [machine.step() for _ in range(6)] == [None, A] * 3


def test_newcomer_has_the_next_turn_but_those_of_all_that_wait() -> None:
    machine = Machine(switch_s=0.0, sizes={None: 1, A: 1})
    assert [machine.step() for _ in range(3)] == [None, A, None]
    machine.join(B)
    assert [machine.step() for _ in range(4)] == [A, B, None, A]


def test_turn_ends_with_its_group() -> None:
    machine = Machine(switch_s=0.02, sizes={None: 1})
    guest = machine.join(A)
    while machine.step() != A:
        pass
    machine.leave(guest)
    assert machine.step() is None
    assert not machine.groups.is_new_turn, "nobody waits any more"


def test_group_that_returns_is_a_newcomer() -> None:
    machine = Machine(switch_s=0.0, sizes={None: 1, B: 1})
    guest = machine.join(A)
    assert [machine.step() for _ in range(3)] == [None, B, A]
    machine.leave(guest)
    assert machine.step() is None
    machine.join(A)
    assert [machine.step() for _ in range(3)] == [B, A, None]


def test_group_without_work_has_no_turn() -> None:
    machine = Machine(switch_s=0.0, sizes={None: 1, B: 1})
    waiting = machine.join(A)
    waiting.phase = Phase.WAITING
    assert [machine.step() for _ in range(4)] == [None, B, None, B]
    waiting.phase = Phase.PREFILL
    assert A in [machine.step() for _ in range(2)]


def test_step_that_was_not_carried_out_is_planned_for_the_same_group() -> None:
    machine = Machine(switch_s=0.0, sizes={None: 1, A: 1})
    machine.step()
    chosen = machine.groups.choose(again=False)
    assert machine.groups.is_new_turn
    assert machine.groups.choose(again=True) is chosen
    assert machine.groups.is_new_turn
    machine.groups.spend(1.0)
    assert machine.groups.choose(again=False) is not chosen


def test_first_step_of_a_turn_is_known_as_such() -> None:
    machine = Machine(switch_s=0.05, sizes={None: 1, A: 1})
    for _ in range(200):
        before = machine.groups.adapter
        adapter = machine.step()
        assert machine.groups.is_new_turn == (adapter != before or machine.now < 0.02)


def test_cost_of_a_change_is_not_that_of_an_outlier() -> None:
    machine = Machine()
    assert machine.groups.switch_s == 0.0
    for seconds in (0.003, 0.9, 0.004, 0.003, 0.7):
        machine.groups.changed(seconds)
    assert machine.groups.switch_s == 0.004


def test_nobody_runs_and_nobody_is_chosen() -> None:
    assert Machine().groups.choose(again=False) is None


# What the scheduler makes of it


def started_with(scheduler: Scheduler, number: int, n_prompt: int, adapter: int | None) -> Sequence:
    sequence = a_sequence(number, n_prompt, adapter=adapter)
    scheduler.submit(sequence)
    scheduler.start(sequence, SlotId(number))
    return sequence


def test_first_step_of_a_turn_serves_those_that_decode() -> None:
    """Two streams, and more short prompts beside one of them than it would be held up for."""
    scheduler = a_scheduler()
    for number, adapter in ((0, None), (1, 1)):
        started_with(scheduler, number, 1, adapter)
    for _ in range(2):
        compute(scheduler, scheduler.schedule())
        scheduler.groups.spend(1.0)
    for number in range(2, 40):
        started_with(scheduler, number, 9, None)
    plans = {None: 0, 1: 0}
    for _ in range(6):
        plan = scheduler.schedule()
        assert not held(scheduler, plan)
        plans[plan.chunks[0].sequence.request.adapter] += 1
        compute(scheduler, plan)
        scheduler.groups.spend(1.0)
    assert plans == {None: 3, 1: 3}


def test_prompt_is_not_alone_where_another_group_waits() -> None:
    """Alone it would be computed in whole batches after a few steps. Turns last many steps here."""
    scheduler = a_scheduler(budget=8)
    scheduler.groups.changed(0.1)
    started_with(scheduler, 0, 1, 1)
    compute(scheduler, scheduler.schedule())
    prompt = started_with(scheduler, 1, 500, None)
    in_a_row = longest = 0
    while prompt.phase is Phase.PREFILL:
        plan = scheduler.schedule()
        assert plan.n_tokens <= 10
        in_a_row = in_a_row + 1 if scheduler.groups.adapter is None else 0
        longest = max(longest, in_a_row)
        compute(scheduler, plan)
        scheduler.groups.spend(0.01)
    assert longest > 10
