"""Whose turn it is: running sequences by LoRA adapter, of which one is computed with at a time.

Theory of operation
-------------------
llama.cpp applies an adapter to all that a decode computes, and changing it costs time: its graphs
are reserved anew. So the running sequences are in *groups*, one for each adapter and one for the
model alone, and a step serves one group. While only one has work there is nothing to decide.

Where several have, they take turns, one after the other in a *cycle*; whoever is new comes last. A
turn lasts some time, not some steps. How long:

* All groups' turns together last so long that changing adapters takes ``_MOST_LOST`` of the cycle
  at most. What a change costs is told by the model runner: the median of the last changes.
* Of that, each group has a share in proportion to what a step of its sequences takes without
  prompts. So in a cycle each group computes about as many steps as the others, and all streams get
  tokens at the same pace, as they would if all could be in one batch. Equal times for all groups
  would let one stream with an adapter of its own take half of the machine from fifteen others; and
  shares by number would let it wait too long, because one sequence's step takes far more than a
  sixteenth of sixteen sequences' step.
* A cycle is ``_MOST_TARGETS`` times what a step with prompts may take at most, whatever is lost to
  changes then: nobody's stream pauses for longer while others have their turns.
* A turn has one step at least. It ends where another step would bring it further from its length
  than it is. Where steps are longer than turns need be, groups have a step each.

Prompts are computed in their group's turn, within the budgets that hold for every step, and within
a part of the longest cycle that is the same for all groups: without that, many adapters with
prompts would hold everybody else's streams up for a long step each.

A group is here while a sequence of it has a slot. What it has of the time is a matter of those with
slots only; slots are given out first come, first served, whatever the adapter: anything else would
let a request pass others by naming an adapter that few use.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable

import attrs

from tgi_llama.engine.sequence import Phase, Sequence
from tgi_llama.generation import AdapterId, RequestId

_MOST_LOST = 0.1
"""Of the time, to changes of adapters."""

_MOST_TARGETS = 4
"""A cycle is so many times as long as a step with prompts may be, at most. (``scheduler`` holds
sequences that decode up for prompts as long.)"""

_N_KEPT = 9
"""Changes whose median is what a change costs: some are outliers."""

StepCost = Callable[["Group"], float]
"""What a step of the group takes without prompts, in seconds; 0 where that is not known."""


@attrs.define(eq=False)
class Group:
    """The running sequences of one adapter, or of the model alone."""

    adapter: AdapterId | None
    members: dict[RequestId, Sequence] = attrs.field(factory=dict)
    """In order of admission; at least one."""
    n_turns: int = 0
    """Steps with prompts since the prompt that has been running longest had its turn; the last plan
    is one of them."""
    is_longest_turn: bool = False
    """Whether the last plan with prompts gave that one its turn."""

    @property
    def has_work(self) -> bool:
        return any(each.phase in (Phase.PREFILL, Phase.DECODE) for each in self.members.values())


@attrs.define(eq=False)
class AdapterGroups:
    """Pure state; decode thread only."""

    step_cost: StepCost
    longest_s: Callable[[], float]
    """How long a step with prompts may be."""
    is_new_turn: bool = attrs.field(default=False, init=False)
    """Whether the next step, or the last if none was chosen for since, is the first of a turn."""
    _groups: dict[AdapterId | None, Group] = attrs.field(factory=dict, init=False)
    """Those after the current one have their turns in this order."""
    _current: Group | None = attrs.field(default=None, init=False)
    """Whose turn it is; it may have ended since."""
    _turn_s: float = attrs.field(default=0.0, init=False)
    """How long the turn is to last."""
    _spent_s: float = attrs.field(default=0.0, init=False)
    """How long it has lasted."""
    _last_s: float = attrs.field(default=0.0, init=False)
    """Its last step."""
    _changes: deque[float] = attrs.field(factory=lambda: deque(maxlen=_N_KEPT), init=False)
    """What the last changes of the adapter took."""

    def __len__(self) -> int:
        return len(self._groups)

    def __contains__(self, adapter: object) -> bool:
        """Whether a sequence with that adapter has a slot."""
        return adapter in self._groups

    @property
    def adapter(self) -> AdapterId | None:
        """Of the group whose turn it is."""
        return self._current.adapter if self._current else None

    @property
    def switch_s(self) -> float:
        """What a change of the adapter costs; 0 before the first."""
        return sorted(self._changes)[len(self._changes) // 2] if self._changes else 0.0

    def join(self, sequence: Sequence) -> None:
        """The sequence has a slot now."""
        adapter = sequence.request.adapter
        group = self._groups.get(adapter)
        if group is None:
            group = self._groups[adapter] = Group(adapter)
        group.members[sequence.request_id] = sequence

    def leave(self, sequence: Sequence) -> None:
        """It has none any more."""
        group = self._groups[sequence.request.adapter]
        del group.members[sequence.request_id]
        if not group.members:
            del self._groups[group.adapter]

    def choose(self, *, again: bool) -> Group | None:
        """The group that the next step serves. None where nobody runs. ``again``: instead of the
        step before, which was not carried out."""
        current = self._current
        if len(self._groups) == 1:
            (self._current,) = self._groups.values()
            self.is_new_turn = False  # nobody has waited for it
            self._turn_s = self._spent_s = self._last_s = 0.0
            return self._current
        if not again:
            self.is_new_turn = False
        is_here = current is not None and self._groups.get(current.adapter) is current
        if current is not None and is_here:
            if not self._is_over and current.has_work:
                return current
            self._groups[current.adapter] = self._groups.pop(current.adapter)  # behind the others
        following = next((each for each in self._groups.values() if each.has_work), None)
        if following is not None:
            self._begin(following)
        return following

    def spend(self, seconds: float, *, switch_s: float = 0.0) -> None:
        """A step took so long, where several groups are here; ``switch_s`` of it went for a change
        of the adapter."""
        self._last_s = max(0.0, seconds - switch_s)  # llama.cpp tells the change, by another clock
        self._spent_s += self._last_s

    def changed(self, seconds: float) -> None:
        """A change of the adapter has taken so long."""
        self._changes.append(seconds)

    @property
    def _is_over(self) -> bool:
        return self._spent_s > 0 and self._spent_s + self._last_s / 2 >= self._turn_s

    @property
    def most_step_s(self) -> float:
        """How long a step may be, so that a cycle with one such step of each group is no longer
        than the longest."""
        if len(self._groups) == 1:
            return math.inf
        return self._longest_cycle_s() / len(self._groups)

    def _longest_cycle_s(self) -> float:
        return _MOST_TARGETS * self.longest_s()

    def _begin(self, group: Group) -> None:
        self._current = group
        self._turn_s = self._length(group)
        self._spent_s = self._last_s = 0.0
        self.is_new_turn = True

    def _length(self, group: Group) -> float:
        """Seconds of the group's turn."""
        groups = [each for each in self._groups.values() if each.has_work]
        cycle_s = len(groups) * self.switch_s / _MOST_LOST
        working_s = min(cycle_s, self._longest_cycle_s()) - len(groups) * self.switch_s
        return max(0.0, working_s) * self._share(group, groups)

    def _share(self, group: Group, groups: Iterable[Group]) -> float:
        costs = {each: self.step_cost(each) for each in groups}
        total = sum(costs.values())
        return costs[group] / total if min(costs.values()) > 0 else 1 / len(costs)

    def check_invariants(self, running: Iterable[Sequence]) -> None:
        """Raises AssertionError when the books do not balance. For tests."""
        assert all(group.members for group in self._groups.values())
        members = [each for group in self._groups.values() for each in group.members.values()]
        assert set(members) == set(running)
        for adapter, group in self._groups.items():
            assert group.adapter == adapter
            assert all(each.request.adapter == adapter for each in group.members.values())
