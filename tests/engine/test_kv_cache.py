import attrs
import pytest

from tgi_llama.engine.kv_cache import MAX_SLOTS, KvPlan, SlotPool, plan_kv
from tgi_llama.engine.model_runner import SlotId


def test_plan_auto_with_enough_cells_gives_streams() -> None:
    plan = plan_kv(layout="auto", n_slots=4, cells_per_sequence=1000, n_cells=4000)
    assert plan == KvPlan(
        unified=False, n_sequences=4, n_slots=4, n_cells=4096, cells_per_slot=1024
    )


def test_plan_auto_with_too_few_cells_gives_unified() -> None:
    plan = plan_kv(layout="auto", n_slots=4, cells_per_sequence=1000, n_cells=2000)
    assert plan == KvPlan(unified=True, n_sequences=4, n_slots=8, n_cells=2048, cells_per_slot=2048)


def test_plan_streams_with_more_cells_than_needed_shares_them_out() -> None:
    plan = plan_kv(layout="streams", n_slots=2, cells_per_sequence=256, n_cells=2048)
    assert (plan.cells_per_slot, plan.n_cells) == (1024, 2048)


def test_plan_unified_smaller_than_one_sequence_is_widened() -> None:
    assert plan_kv(layout="unified", n_slots=2, cells_per_sequence=512, n_cells=100).n_cells == 512


def test_plan_unified_has_no_more_slots_than_llama_cpp() -> None:
    plan = plan_kv(layout="unified", n_slots=200, cells_per_sequence=256, n_cells=51200)
    assert (plan.n_sequences, plan.n_slots) == (200, MAX_SLOTS)


def test_plan_without_spare_slots_has_one_for_each_sequence() -> None:
    plan = plan_kv(layout="unified", n_slots=4, cells_per_sequence=512, n_cells=1024)
    assert plan.without_spare_slots() == attrs.evolve(plan, n_slots=4)


def test_plan_lets_idle_slots_keep_all_of_their_streams_and_a_quarter_of_shared_cells() -> None:
    streams = plan_kv(layout="streams", n_slots=2, cells_per_sequence=512, n_cells=1024)
    assert streams.max_idle_cells == 1024
    unified = plan_kv(layout="unified", n_slots=2, cells_per_sequence=512, n_cells=1024)
    assert unified.max_idle_cells == 256


def a_pool(n_slots: int = 3) -> SlotPool:
    return SlotPool(n_slots)


def slots(*numbers: int) -> tuple[SlotId, ...]:
    return tuple(SlotId(number) for number in numbers)


def test_pool_lists_what_is_not_busy_whether_empty_or_idle() -> None:
    pool = a_pool()
    for n_busy, slot in enumerate(slots(0, 1, 2)):
        assert pool.available() == slots(*range(n_busy, 3))
        assert pool.an_empty() == slot
        pool.take(slot)
    assert pool.available() == ()
    assert pool.an_empty() is None
    pool.release(SlotId(2))
    pool.retire(SlotId(1))
    assert pool.available() == (1, 2)
    assert pool.an_empty() == 2
    assert [pool.is_empty(slot) for slot in slots(0, 1, 2)] == [False, False, True]
    pool.check_invariants()


@pytest.mark.parametrize(
    ("busy", "gaps", "adjoining"),
    [
        ((), (), (0, 1, 2, 3, 4, 5)),
        ((3,), (), (2, 4)),
        ((0,), (), (1,)),
        ((4, 5), (), (3,)),
        ((0, 2), (1,), (1,)),
        ((1, 4, 5), (2, 3), (2, 3)),
        ((0, 1, 3, 5), (2, 4), (2, 4)),
        ((0, 1, 2, 3, 4, 5), (), ()),
    ],
)
def test_pool_slots_that_adjoin_are_gaps_or_else_next_to_the_busy_ones(
    busy: tuple[int, ...], gaps: tuple[int, ...], adjoining: tuple[int, ...]
) -> None:
    pool = a_pool(n_slots=6)
    for slot in slots(*busy):
        pool.take(slot)
    assert pool.gaps() == gaps
    assert pool.adjoining() == adjoining


def test_pool_relocated_slot_keeps_its_place_among_the_idle_ones() -> None:
    pool = a_pool(n_slots=5)
    for slot in slots(0, 1, 2, 3):
        pool.take(slot)
    for slot in slots(2, 0, 1):
        pool.retire(slot)
    pool.relocate(SlotId(0), SlotId(4))
    assert pool.idle_slots() == (2, 4, 1)
    assert pool.an_empty() == 0
    pool.check_invariants()


@pytest.mark.parametrize(("idle", "empty"), [(0, 3), (2, 3), (1, 0), (1, 1)])
def test_pool_relocates_idle_slots_to_empty_ones_only(idle: int, empty: int) -> None:
    """0 is busy, 1 idle, 2 and 3 are empty."""
    pool = a_pool(n_slots=4)
    for slot in slots(0, 1):
        pool.take(slot)
    pool.retire(SlotId(1))
    with pytest.raises(KeyError):
        pool.relocate(SlotId(idle), SlotId(empty))
    assert pool.idle_slots() == (1,)
    pool.check_invariants()


def test_pool_lists_idle_slots_by_their_last_use() -> None:
    pool = a_pool()
    for slot in slots(0, 1, 2):
        pool.take(slot)
    for slot in slots(1, 2, 0):
        pool.retire(slot)
    assert pool.idle_slots() == (1, 2, 0)
    pool.touch(SlotId(1))
    assert pool.idle_slots() == (2, 0, 1)
    assert (pool.n_idle, pool.n_busy, pool.busy) == (3, 0, frozenset())
    pool.check_invariants()


def test_pool_slot_goes_from_empty_to_busy_to_idle_to_busy_to_empty() -> None:
    pool = a_pool(n_slots=1)
    (slot,) = slots(0)
    pool.take(slot)
    assert (pool.busy, pool.is_idle(slot)) == ({slot}, False)
    pool.retire(slot)
    assert (pool.busy, pool.is_idle(slot)) == (frozenset(), True)
    pool.take(slot)
    assert (pool.busy, pool.is_idle(slot)) == ({slot}, False)
    pool.release(slot)
    assert pool.an_empty() == slot
    pool.take(slot)
    pool.retire(slot)
    pool.release(slot)
    assert pool.an_empty() == slot
    pool.check_invariants()


def test_pool_refuses_what_a_slot_in_that_state_cannot_do() -> None:
    pool = a_pool(n_slots=1)
    (slot,) = slots(0)
    for refused in (pool.release, pool.retire, pool.touch):
        with pytest.raises(KeyError):
            refused(slot)
    pool.take(slot)
    for refused in (pool.take, pool.touch):
        with pytest.raises(KeyError):
            refused(slot)
    pool.check_invariants()


def test_pool_check_finds_a_slot_in_two_states() -> None:
    pool = a_pool()
    pool._busy.add(SlotId(1))
    with pytest.raises(AssertionError, match="out of balance"):
        pool.check_invariants()
