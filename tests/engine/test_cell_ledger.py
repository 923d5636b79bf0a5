"""The ledger against cells that know their owners, one object each."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tgi_llama.engine.cell_ledger import CellLedger
from tgi_llama.engine.model_runner import SlotId

A, B, C = (SlotId(slot) for slot in range(3))
SLOTS = [SlotId(slot) for slot in range(5)]


def unified_with(n_cells: int) -> CellLedger:
    """Slot A has that many."""
    ledger = CellLedger(shared=True)
    ledger.extend(A, n_cells)
    return ledger


def test_share_in_the_unified_layout_costs_no_cells() -> None:
    ledger = unified_with(100)
    ledger.share(A, B, 60)
    ledger.extend(B, 5)
    assert (ledger.n_used, ledger.length(A), ledger.length(B)) == (105, 100, 65)
    assert (ledger.n_freed_by_truncate(A, 0), ledger.n_freed_by_truncate(B, 0)) == (40, 5)


def test_share_in_the_streams_layout_costs_cells() -> None:
    ledger = CellLedger(shared=False)
    ledger.extend(A, 100)
    ledger.share(A, B, 60)
    assert (ledger.n_used, ledger.n_freed_by_truncate(A, 0), ledger.length(B)) == (160, 100, 60)
    ledger.check_invariants()


def test_cells_of_several_slots_count_once() -> None:
    ledger = CellLedger(shared=True)
    ledger.extend(SlotId(0), 10)
    ledger.share(SlotId(0), SlotId(1), 6)
    ledger.extend(SlotId(1), 5)
    assert ledger.n_used_by([SlotId(0), SlotId(1)]) == ledger.n_used == 15
    assert ledger.n_used_by([SlotId(1)]) == 11
    assert ledger.n_used_by([SlotId(0), SlotId(7)]) == 10
    assert ledger.n_used_by([]) == 0


def test_clear_of_the_source_leaves_what_is_shared_to_the_target() -> None:
    ledger = unified_with(100)
    ledger.share(A, B, 60)
    ledger.clear(A)
    assert (ledger.n_used, ledger.length(A), ledger.n_freed_by_truncate(B, 0)) == (60, 0, 60)


def test_truncate_frees_only_what_the_slot_has_alone() -> None:
    ledger = unified_with(100)
    ledger.share(A, B, 60)
    assert ledger.n_freed_by_truncate(A, 30) == 40
    assert ledger.n_freed_by_truncate(A, 90) == 10
    ledger.truncate(A, 30)
    assert (ledger.n_used, ledger.n_freed_by_truncate(B, 0)) == (60, 30)
    ledger.check_invariants()


def test_many_short_lived_shares_leave_no_fragments() -> None:
    ledger = unified_with(1000)
    for length in range(1, 1000):
        ledger.share(A, B, length)
        ledger.share(B, C, length // 2)
        ledger.clear(B)
        ledger.clear(C)
    assert [segment.n_cells for segment in ledger._segments[A]] == [1000]


def test_share_with_a_slot_that_is_not_empty_is_refused() -> None:
    ledger = unified_with(10)
    with pytest.raises(ValueError, match="slot 0 is not empty"):
        ledger.share(A, A, 10)


def test_extend_by_less_than_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot extend slot 0 by -1 cells"):
        unified_with(10).extend(A, -1)


@pytest.mark.parametrize("length", [-1, 11])
def test_lengths_that_the_slot_does_not_have_are_refused(length: int) -> None:
    ledger = unified_with(10)
    for call in (ledger.truncate, ledger.n_freed_by_truncate, lambda s, n: ledger.share(s, B, n)):
        with pytest.raises(ValueError, match=f"slot 0 has 10 cells, not {length}"):
            call(A, length)
    assert (ledger.n_used, ledger.length(A), ledger.length(B)) == (10, 10, 0)


class Cell:
    def __init__(self, owner: SlotId) -> None:
        self.owners = {owner}


slots = st.sampled_from(SLOTS)


class AgainstSingleCells(RuleBasedStateMachine):
    """Does the same to the ledger and to lists of cells."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = CellLedger(shared=True)
        self.cells: dict[SlotId, list[Cell]] = {slot: [] for slot in SLOTS}

    @initialize(shared=st.booleans())
    def choose_layout(self, shared: bool) -> None:
        self.ledger = CellLedger(shared=shared)

    @rule(slot=slots, n_cells=st.integers(0, 9))
    def extend(self, slot: SlotId, n_cells: int) -> None:
        self.ledger.extend(slot, n_cells)
        self.cells[slot] += [Cell(slot) for _ in range(n_cells)]

    @precondition(lambda self: not all(self.cells.values()))
    @rule(data=st.data(), source=slots)
    def share(self, data: st.DataObject, source: SlotId) -> None:
        target = data.draw(st.sampled_from([slot for slot in SLOTS if not self.cells[slot]]))
        length = data.draw(st.integers(0, len(self.cells[source])))
        self.ledger.share(source, target, length)
        if not self.ledger.shared:
            self.cells[target] = [Cell(target) for _ in range(length)]
            return
        self.cells[target] = self.cells[source][:length]
        for cell in self.cells[target]:
            cell.owners.add(target)

    @rule(data=st.data(), slot=slots)
    def truncate(self, data: st.DataObject, slot: SlotId) -> None:
        length = data.draw(st.integers(0, len(self.cells[slot])))
        n_before = self.ledger.n_used
        n_freed = self.ledger.n_freed_by_truncate(slot, length)
        self.ledger.truncate(slot, length)
        self.give_up(slot, length)
        assert self.ledger.n_used == n_before - n_freed

    @rule(slot=slots)
    def clear(self, slot: SlotId) -> None:
        self.ledger.clear(slot)
        self.give_up(slot, 0)

    def give_up(self, slot: SlotId, length: int) -> None:
        for cell in self.cells[slot][length:]:
            cell.owners.remove(slot)
        del self.cells[slot][length:]

    @invariant()
    def agrees(self) -> None:
        self.ledger.check_invariants()
        assert self.ledger.n_used == len({cell for own in self.cells.values() for cell in own})
        for slot, own in self.cells.items():
            assert self.ledger.length(slot) == len(own)
            n_alone = sum(cell.owners == {slot} for cell in own)
            assert self.ledger.n_freed_by_truncate(slot, 0) == n_alone


TestAgainstSingleCells = AgainstSingleCells.TestCase
TestAgainstSingleCells.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
