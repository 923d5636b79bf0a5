"""How many cells are in use, when slots share them.

Theory of operation
-------------------
In the unified layout a copy from slot to slot costs no cells: llama.cpp notes a second owner in
each, and a cell is free when nobody owns it any more. The cells in use are then fewer than the sum
of the slots' lengths. The ledger keeps their true number without asking llama.cpp.

A slot's cells are a list of segments, runs of cells that have the same owners. Only beginnings are
shared, so the owners of a segment also own all that stands before it: going down a slot's list,
owners only become fewer, and a shared segment has the same index in all its owners' lists. So a
segment can be split or joined in all of them at once, and what a slot has alone is at its end.

Neighbours with the same owners are one segment. A list is then no longer than the number of slots,
however long the server has run.

In the streams layout every slot owns its cells: there a copy costs as many as it copies.
"""

from collections.abc import Iterable, Iterator

import attrs

from tgi_llama.engine.model_runner import SlotId


@attrs.define(eq=False)
class _Segment:
    n_cells: int
    """> 0"""
    owners: set[SlotId]


@attrs.define(eq=False, kw_only=True)
class CellLedger:
    """Counts the cells that slots own, alone or together. A slot that was never named is empty.

    Pure bookkeeping: it never touches the native cells, and knows no limit. Decode thread only.
    """

    shared: bool
    """Whether a copy shares cells: true in the unified layout, false in the streams layout."""
    _segments: dict[SlotId, list[_Segment]] = attrs.field(factory=dict, init=False)
    """No slot without cells is in it."""
    _n_used: int = attrs.field(default=0, init=False)

    @property
    def n_used(self) -> int:
        """Cells in use, each counted once."""
        return self._n_used

    def n_used_by(self, slots: Iterable[SlotId]) -> int:
        """Cells that at least one of these slots has, each counted once."""
        owned = {id(each): each for slot in slots for each in self._segments.get(slot, ())}
        return sum(segment.n_cells for segment in owned.values())

    def length(self, slot: SlotId) -> int:
        """How many cells the slot has, shared ones included."""
        return sum(segment.n_cells for segment in self._segments.get(slot, ()))

    def extend(self, slot: SlotId, n_cells: int) -> None:
        """The slot gets ``n_cells`` >= 0 new cells of its own, at its end."""
        if n_cells < 0:
            raise ValueError(f"cannot extend slot {slot} by {n_cells} cells")
        if n_cells == 0:
            return
        segments = self._segments.setdefault(slot, [])
        if segments and len(segments[-1].owners) == 1:
            segments[-1].n_cells += n_cells
        else:
            segments.append(_Segment(n_cells, {slot}))
        self._n_used += n_cells

    def share(self, source: SlotId, target: SlotId, length: int) -> None:
        """The target, which must be empty, gets the first ``length`` cells of the source.

        ValueError if it is not empty, or if the source has fewer.
        """
        if target in self._segments:
            raise ValueError(f"slot {target} is not empty")
        self._check_length(source, length)
        if not self.shared:
            self.extend(target, length)
            return
        kept = self._segments.get(source, [])[: self._divide(source, length)]
        for segment in kept:
            segment.owners.add(target)
        if kept:
            self._segments[target] = kept

    def truncate(self, slot: SlotId, length: int) -> None:
        """The slot keeps its first ``length`` cells. ValueError if it has fewer."""
        self._check_length(slot, length)
        self._n_used -= self.n_freed_by_truncate(slot, length)
        n_kept = self._divide(slot, length)
        segments = self._segments.get(slot, [])
        left, segments[n_kept:] = segments[n_kept:], []
        if not segments:
            self._segments.pop(slot, None)
        for index, segment in reversed([*enumerate(left, n_kept)]):
            segment.owners.remove(slot)
            if segment.owners:
                self._join(min(segment.owners), index)

    def clear(self, slot: SlotId) -> None:
        """The slot gives up all its cells."""
        self.truncate(slot, 0)

    def n_freed_by_truncate(self, slot: SlotId, length: int) -> int:
        """How many cells beyond the first ``length`` only this slot has. ValueError if it has fewer
        than that."""
        self._check_length(slot, length)
        segments = self._segments.get(slot, [])
        n_own = segments[-1].n_cells if segments and len(segments[-1].owners) == 1 else 0
        return min(n_own, self.length(slot) - length)

    def _check_length(self, slot: SlotId, length: int) -> None:
        if not 0 <= length <= self.length(slot):
            raise ValueError(f"slot {slot} has {self.length(slot)} cells, not {length}")

    def _divide(self, slot: SlotId, length: int) -> int:
        """Makes a segment end after the first ``length`` cells of the slot, for all who own it.
        Returns how many segments these cells are."""
        n_cells = 0
        for index, segment in enumerate(self._segments.get(slot, ())):
            if n_cells == length:
                return index
            n_cells += segment.n_cells
            if n_cells > length:
                rest = _Segment(n_cells - length, set(segment.owners))
                segment.n_cells -= rest.n_cells
                for owner in segment.owners:
                    self._segments[owner].insert(index + 1, rest)
                return index + 1
        return len(self._segments.get(slot, ()))

    def _join(self, slot: SlotId, index: int) -> None:
        """Joins the slot's segment with the next one, for all who own them, if there is one and the
        same slots own both."""
        segments = self._segments[slot]
        if index + 1 == len(segments):
            return
        segment, following = segments[index : index + 2]
        if len(segment.owners) > len(following.owners):
            return
        segment.n_cells += following.n_cells
        for owner in segment.owners:
            del self._segments[owner][index + 1]

    def _distinct(self) -> Iterator[_Segment]:
        return iter({id(each): each for own in self._segments.values() for each in own}.values())

    def check_invariants(self) -> None:
        """Raises AssertionError when the books do not balance."""
        assert self._n_used == sum(segment.n_cells for segment in self._distinct())
        for slot, segments in self._segments.items():
            assert segments, f"slot {slot} is empty"
            for index, segment in enumerate(segments):
                assert segment.n_cells > 0
                assert slot in segment.owners
                assert all(self._segments[owner][index] is segment for owner in segment.owners)
                assert index == 0 or segment.owners < segments[index - 1].owners
        if not self.shared:
            assert all(len(segment.owners) == 1 for segment in self._distinct())
