"""The budget on simulated machines: steps that take what two measured machines took, with noise."""

import random
from collections.abc import Callable

import attrs
import pytest

from tgi_llama.engine.prefill_budget import CHUNK_SIZES, PrefillBudget

StepTime = Callable[[int, int], float]
"""Seconds of a step, from the number of sequences that decode and of prompt tokens."""


def two_cores(n_decode: int, n_prefill: int) -> float:
    """A model of 0.5 B parameters: computing bound, so a chunk hides nothing."""
    base_s = 0.034 + 0.002 * n_decode if n_decode else 0.0
    return base_s + 0.0033 * n_prefill


def gpu(n_decode: int, n_prefill: int) -> float:
    """A chunk takes 5 ms, however small."""
    return (0.006 if n_decode else 0.0) + (max(0.005, 5e-5 * n_prefill) if n_prefill else 0.0)


def gpu_with_fixed_part(n_decode: int, n_prefill: int) -> float:
    """A chunk takes 5 ms more than its tokens."""
    return (0.006 if n_decode else 0.0) + (0.005 + 5e-5 * n_prefill if n_prefill else 0.0)


@attrs.define(eq=False)
class Machine:
    step_time: StepTime
    budget: PrefillBudget
    outlier_share: float = 0.03
    jitter: float = 0.1
    slowness: float = 1.0
    dice: random.Random = attrs.field(factory=lambda: random.Random(7))

    def step(self, n_decode: int, n_prefill: int) -> float | None:
        """Tells the budget of a step; returns its seconds, None for an outlier."""
        seconds = self.slowness * self.step_time(n_decode, n_prefill)
        seconds *= self.dice.uniform(1 - self.jitter, 1 + self.jitter)
        is_outlier = self.dice.random() < self.outlier_share
        self.budget.note(
            n_decode=n_decode, n_prefill=n_prefill, seconds=seconds * (5 if is_outlier else 1)
        )
        return None if is_outlier else seconds

    def decode_only(self, n_decode: int, n_steps: int = 12) -> None:
        for _ in range(n_steps):
            self.step(n_decode, 0)

    def prefill(self, n_decode: int, n_steps: int) -> list[float]:
        """Does as budgeted. Returns the steps' shares of the target, outliers left out."""
        shares = []
        for _ in range(n_steps):
            seconds = self.step(n_decode, self.budget.n_tokens(n_decode))
            if seconds is not None:
                shares.append(seconds / self.budget.target_s(n_decode))
        return shares

    def settled(self, n_decode: int) -> int:
        """The budget after a while without noise."""
        self.outlier_share = self.jitter = 0.0
        self.decode_only(n_decode)
        self.prefill(n_decode, 200)
        return self.budget.n_tokens(n_decode)


MACHINES = [
    (two_cores, None),
    (two_cores, 0.2),
    (gpu, None),
    (gpu, 0.02),
    (gpu_with_fixed_part, None),
    (gpu_with_fixed_part, 0.015),
]


@pytest.mark.parametrize(("step_time", "target_s"), MACHINES)
def test_n_tokens_with_noise_keeps_the_target_and_uses_it(
    step_time: StepTime, target_s: float | None
) -> None:
    machine = Machine(step_time, PrefillBudget(target_s))
    shares = []
    for n_decode in (8, 6, 7, 8):
        machine.decode_only(n_decode)
        machine.prefill(n_decode, 40)
        shares += machine.prefill(n_decode, 500)
    shares.sort()
    assert shares[len(shares) * 99 // 100] <= 1.15
    assert sum(shares) / len(shares) >= 0.75


@pytest.mark.parametrize(("step_time", "target_s"), MACHINES)
def test_n_tokens_without_noise_settles_within_one_size_of_the_best(
    step_time: StepTime, target_s: float | None
) -> None:
    machine = Machine(step_time, PrefillBudget(target_s))
    settled = machine.settled(8)
    limit_s = machine.budget.target_s(8)
    best = max(size for size in CHUNK_SIZES if step_time(8, size) <= limit_s * 1.0001)
    assert CHUNK_SIZES.index(best) - 1 <= CHUNK_SIZES.index(settled) <= CHUNK_SIZES.index(best) + 1


@pytest.mark.parametrize("step_time", [two_cores, gpu, gpu_with_fixed_part])
def test_n_tokens_on_a_machine_that_slows_down_follows_within_ten_steps(
    step_time: StepTime,
) -> None:
    machine = Machine(step_time, PrefillBudget(0.25), outlier_share=0.0)
    machine.decode_only(8)
    machine.prefill(8, 100)
    machine.slowness = 2.5
    machine.prefill(8, 10)
    assert max(machine.prefill(8, 10)) <= 1.15


@pytest.mark.parametrize("step_time", [two_cores, gpu, gpu_with_fixed_part])
def test_n_tokens_on_a_machine_that_recovers_grows_again(step_time: StepTime) -> None:
    machine = Machine(step_time, PrefillBudget(0.25), outlier_share=0.0, jitter=0.0)
    before = machine.settled(8)
    machine.slowness = 4.0
    assert machine.settled(8) < before
    machine.slowness = 1.0
    machine.decode_only(8)
    machine.prefill(8, 80)
    assert abs(CHUNK_SIZES.index(machine.budget.n_tokens(8)) - CHUNK_SIZES.index(before)) <= 1


def test_n_tokens_after_one_slow_step_stays() -> None:
    machine = Machine(two_cores, PrefillBudget(0.2))
    before = machine.settled(8)
    machine.budget.note(n_decode=8, n_prefill=before, seconds=30.0)
    assert machine.budget.n_tokens(8) == before
    machine.budget.note(n_decode=8, n_prefill=before, seconds=30.0)
    assert machine.budget.n_tokens(8) == before


def test_n_tokens_pushed_down_to_the_least_climbs_although_chunks_are_mostly_fixed() -> None:
    machine = Machine(gpu_with_fixed_part, PrefillBudget(0.015))
    before = machine.settled(8)
    for _ in range(9):
        machine.budget.note(n_decode=8, n_prefill=before, seconds=1.0)
    assert machine.budget.n_tokens(8) == CHUNK_SIZES[0]
    assert machine.settled(8) == before


def test_n_tokens_that_turned_out_too_many_are_tried_seldom() -> None:
    machine = Machine(two_cores, PrefillBudget(0.1))
    assert machine.settled(8) == 8
    shares = machine.prefill(8, 510)
    assert {round(share, 2) for share in shares} == {0.76, 1.03}
    assert sum(share > 1 for share in shares) == 30


def test_n_tokens_after_many_small_pieces_is_that_of_large_chunks() -> None:
    machine = Machine(gpu, PrefillBudget(None, min_target_s=0.05))
    before = machine.settled(8)
    for _ in range(30):
        machine.step(8, 5)
    assert machine.budget.n_tokens(8) == before


def test_n_tokens_when_chunks_seem_free_grows_by_no_more_than_double_each_three_steps() -> None:
    budget = PrefillBudget(0.1)
    budgets = []
    for _ in range(9):
        budgets.append(budget.n_tokens(1))
        budget.note(n_decode=1, n_prefill=budgets[-1], seconds=0.0)
    assert budgets == [64] * 3 + [128] * 3 + [256] * 3


def test_n_tokens_of_a_target_below_the_base_is_the_least_size() -> None:
    machine = Machine(two_cores, PrefillBudget(0.01))
    assert machine.settled(8) == CHUNK_SIZES[0]


def test_n_tokens_is_always_one_of_few_sizes() -> None:
    machine = Machine(gpu, PrefillBudget(None), jitter=0.9, outlier_share=0.3)
    for n_decode in [0, 1, 5, 200] * 100:
        machine.step(n_decode, machine.dice.choice([0, 3, machine.budget.n_tokens(n_decode)]))
        assert machine.budget.n_tokens(n_decode) in CHUNK_SIZES


def known(bases_s: dict[int, float], **options: float) -> PrefillBudget:
    budget = PrefillBudget(None, **options)
    for n_decode, base_s in bases_s.items():
        for _ in range(5):
            budget.note(n_decode=n_decode, n_prefill=0, seconds=base_s)
    return budget


@pytest.mark.parametrize(
    ("n_decode", "target_s"), [(0, 0.6), (1, 0.3), (2, 0.3), (4, 0.45), (6, 0.6), (9, 0.6)]
)
def test_target_between_measured_numbers_is_on_the_line_and_outside_the_nearest(
    n_decode: int, target_s: float
) -> None:
    assert known({6: 0.2, 2: 0.1}).target_s(n_decode) == pytest.approx(target_s)


def test_target_before_anything_is_measured_is_the_least() -> None:
    budget = PrefillBudget(None, min_target_s=0.04)
    budget.note(n_decode=1, n_prefill=0, seconds=9.0)
    assert budget.target_s(1) == 0.04


def test_target_follows_the_base_when_it_changes() -> None:
    budget = known({3: 0.1}, automatic_factor=2.0)
    for _ in range(5):
        budget.note(n_decode=3, n_prefill=0, seconds=0.3)
    assert budget.target_s(3) == pytest.approx(0.6)


def test_target_that_was_given_is_kept() -> None:
    machine = Machine(two_cores, PrefillBudget(0.123))
    machine.decode_only(8)
    assert machine.budget.target_s(8) == 0.123


def test_statistics_say_what_the_last_budget_was_made_of() -> None:
    machine = Machine(two_cores, PrefillBudget(0.2))
    assert machine.budget.statistics() is None
    n_tokens = machine.budget.n_tokens(8)
    statistics = machine.budget.statistics()
    assert statistics is not None
    assert (statistics.n_tokens, statistics.base_s, statistics.token_s) == (n_tokens, 0.0, None)
    n_tokens = machine.settled(8)
    statistics = machine.budget.statistics()
    assert statistics is not None
    assert (statistics.n_tokens, statistics.target_s) == (n_tokens, 0.2)
    assert statistics.base_s == pytest.approx(0.05)
    assert statistics.token_s == pytest.approx(0.0033)


@pytest.mark.parametrize(
    ("n_decode", "n_prompts", "seconds"), [(8, 3, 0.22), (8, 4, 0.4), (12, 0, 0.4), (0, 16, 0.15)]
)
def test_budget_is_larger_where_many_sequences_decode_or_have_prompts(
    n_decode: int, n_prompts: int, seconds: float
) -> None:
    budget = PrefillBudget(None)
    for _ in range(9):
        budget.note(n_decode=n_decode, n_prefill=0, seconds=0.02)
    budget.n_tokens(n_decode, n_prompts=n_prompts)
    statistics = budget.statistics()
    assert statistics is not None
    assert statistics.target_s == pytest.approx(seconds)
    assert budget.target_s(n_decode, n_prompts=n_prompts) == statistics.target_s


def test_given_target_holds_for_any_number_of_sequences() -> None:
    budget = PrefillBudget(0.1)
    budget.n_tokens(16, n_prompts=16)
    statistics = budget.statistics()
    assert statistics is not None
    assert statistics.target_s == pytest.approx(0.1)


@pytest.mark.parametrize("spent_s", [0.0, 0.03, 0.06, 0.1])
def test_time_that_is_gone_is_not_the_prompts(spent_s: float) -> None:
    machine = Machine(two_cores, PrefillBudget(0.25))
    machine.settled(8)
    n_tokens = machine.budget.n_tokens(8, spent_s=spent_s)
    assert two_cores(8, n_tokens) + spent_s <= 0.25 * 1.01
    assert n_tokens == max(n for n in CHUNK_SIZES if two_cores(8, n) + spent_s <= 0.25 * 1.001)
    assert machine.budget.n_tokens(8, spent_s=9.0) == CHUNK_SIZES[0]


def test_spare_is_what_a_step_without_prompts_leaves_of_the_target() -> None:
    machine = Machine(two_cores, PrefillBudget(0.25))
    assert machine.budget.spare_s(8) == 0.25
    machine.settled(8)
    assert machine.budget.spare_s(8) == pytest.approx(0.25 - 0.05)
    assert PrefillBudget(None).spare_s(8, n_prompts=4) == pytest.approx(0.4)
    machine = Machine(two_cores, PrefillBudget(0.01))
    machine.settled(8)
    assert machine.budget.spare_s(8) == 0.0


def test_chunk_costs_what_chunks_of_its_size_do_where_these_are_known() -> None:
    budget = PrefillBudget(None)
    assert budget.chunk_s(20) == 0.0
    for n_prefill in (10,) * 9 + (100,) * 3:
        budget.note(n_decode=0, n_prefill=n_prefill, seconds=0.01 + n_prefill * 0.001)
    assert budget.chunk_s(9) == pytest.approx(9 * 0.02 / 10)
    assert budget.chunk_s(90) == pytest.approx(90 * 0.11 / 100)
    assert budget.chunk_s(0) == 0.0
