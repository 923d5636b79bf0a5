"""How many cells there are to share out, where llama.cpp may have fewer than were planned.

A batch can be refused for want of cells although the books have some left: with sliding windows for
example, whose memory has another size. One refusal may be of the moment. When the next one comes
soon after, the smaller number is remembered: else the same batch would be tried again as soon as
somebody has made way, and refused again, and so on.
"""

import attrs

_SOON_STEPS = 64
"""Two refusals with no more steps that worked between them have one cause."""

_FIRST_TRIAL_STEPS = 512
"""After so many steps that worked, the planned number is tried again. Twice as many after each time
that it was not there."""

_MOST_DOUBLINGS = 7
"""65,536 steps: hours."""


@attrs.define(eq=False)
class CellLimit:
    """Pure state. Decode thread only."""

    n_planned: int
    n_cells: int = attrs.field(init=False)
    """Cells that may be in use at a time."""
    _n_quiet: int = attrs.field(default=_SOON_STEPS + 1, init=False)
    """Steps that have worked since the last refusal."""
    _n_lessons: int = attrs.field(default=0, init=False)
    """How often the limit has been lowered from the plan."""

    def __attrs_post_init__(self) -> None:
        self.n_cells = self.n_planned

    def refused(self, n_used: int, n_more: int) -> None:
        """A batch that needed ``n_more`` > 0 cells beside ``n_used`` was refused. The limit is half
        way between: a large batch says little about the cells that there are, and each one that is
        refused halves the doubt."""
        is_known = self.n_cells < self.n_planned
        if is_known or 0 < self._n_quiet <= _SOON_STEPS:
            self._n_lessons += not is_known
            self.n_cells = min(self.n_cells, n_used + n_more // 2)
        self._n_quiet = 0

    def worked(self, n_used: int) -> None:
        """A step worked, after which ``n_used`` cells are in use."""
        self._n_quiet += 1
        if self.n_cells == self.n_planned:
            return
        self.n_cells = max(self.n_cells, n_used)
        if self._n_quiet >= _FIRST_TRIAL_STEPS << min(self._n_lessons - 1, _MOST_DOUBLINGS):
            self.n_cells = self.n_planned
