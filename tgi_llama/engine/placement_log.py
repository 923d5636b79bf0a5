"""What has happened to slots and cells since it was last told. Pure state."""

import attrs

from tgi_llama.engine.slot_cells import SlotCells
from tgi_llama.generation import CacheOutcome, PlacementReport

_QUIET_STEPS = 32
"""So many steps may pass without a report while sequences only grow."""


@attrs.define(eq=False)
class PlacementLog:
    """Decode thread only."""

    cells: SlotCells
    has_changed: bool = False
    """Slots have changed hands since the last report."""
    n_preempted: int = 0
    outcomes: list[tuple[CacheOutcome, int]] = attrs.field(factory=list)
    n_joined: int = 0
    _n_evicted_before: int = attrs.field(default=0, init=False)
    """At the last report."""
    _n_quiet_steps: int = attrs.field(default=0, init=False)

    def take_report(self) -> PlacementReport | None:
        """What happened since the last call, and what is held now. None in most steps in which
        sequences only grow."""
        self._n_quiet_steps += 1
        if not self.has_changed and self._n_quiet_steps < _QUIET_STEPS:
            return None
        self.has_changed, self._n_quiet_steps = False, 0
        host = self.cells.host
        report = PlacementReport(
            outcomes=tuple(self.outcomes),
            n_preempted=self.n_preempted,
            n_cells_used=self.cells.ledger.n_used,
            n_idle_slots=self.cells.slots.n_idle,
            host_bytes=host.n_bytes,
            n_host_entries=host.n_entries,
            n_evicted=host.n_evicted - self._n_evicted_before,
        )
        self.outcomes.clear()
        self.n_preempted = 0
        self._n_evicted_before = host.n_evicted
        return report

    def take_joined(self) -> int:
        """How many sequences have got their first slot since the last call."""
        n_joined, self.n_joined = self.n_joined, 0
        return n_joined
