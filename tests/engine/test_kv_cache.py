import pytest

from tgi_llama.engine.kv_cache import KvPlan, SlotPool, plan_kv


def test_plan_auto_with_enough_cells_gives_streams() -> None:
    plan = plan_kv(layout="auto", n_slots=4, cells_per_sequence=1000, n_cells=4000)
    assert plan == KvPlan(unified=False, n_slots=4, n_cells=4096, cells_per_slot=1024)


def test_plan_auto_with_too_few_cells_gives_unified() -> None:
    plan = plan_kv(layout="auto", n_slots=4, cells_per_sequence=1000, n_cells=2000)
    assert plan == KvPlan(unified=True, n_slots=4, n_cells=2048, cells_per_slot=2048)


def test_plan_streams_with_more_cells_than_needed_shares_them_out() -> None:
    plan = plan_kv(layout="streams", n_slots=2, cells_per_sequence=256, n_cells=2048)
    assert (plan.cells_per_slot, plan.n_cells) == (1024, 2048)


def test_plan_unified_smaller_than_one_sequence_is_widened() -> None:
    assert plan_kv(layout="unified", n_slots=2, cells_per_sequence=512, n_cells=100).n_cells == 512


def streams(n_slots: int = 3) -> SlotPool:
    return SlotPool(
        plan_kv(layout="streams", n_slots=n_slots, cells_per_sequence=256, n_cells=n_slots * 256)
    )


def test_reserve_after_release_takes_the_lowest_free_slot() -> None:
    pool = streams()
    assert [pool.reserve(10) for _ in range(3)] == [0, 1, 2]
    for slot in (1, 0):
        pool.release(slot)
    assert [pool.reserve(10), pool.reserve(10)] == [0, 1]
    pool.check_invariants()


def test_reserve_without_a_free_slot_waits() -> None:
    pool = streams(n_slots=1)
    assert pool.reserve(1) == 0
    assert pool.reserve(1) is None


def test_reserve_unified_without_cells_waits_although_slots_are_free() -> None:
    pool = SlotPool(plan_kv(layout="unified", n_slots=4, cells_per_sequence=512, n_cells=512))
    assert pool.reserve(300) == 0
    assert pool.reserve(300) is None
    assert pool.reserve(212) == 1
    assert pool.n_reserved == 512
    pool.release(0)
    assert pool.reserve(300) == 0


def test_reserve_more_than_a_slot_holds_is_refused() -> None:
    with pytest.raises(ValueError, match="257 cells asked of slots of 256"):
        streams().reserve(257)


def test_release_of_a_free_slot_is_refused() -> None:
    with pytest.raises(KeyError):
        streams().release(0)
