"""Which slots stand beside which, where sequences of several adapters run in the streams layout.

Theory of operation
-------------------
Slots of one group that follow on each other are a *stretch*; each stretch of a group costs a
physical batch in each of its steps. So there should be as few stretches as groups. A newcomer takes
the slot that makes no stretch more, far from other groups, so that theirs and its own can grow.
Where there is none, as when all are taken but for one amid others, one of those others moves there,
and the newcomer has its place. When sequences end, others move to where they close up.

Only the ends of stretches move, and only to slots beside others of their group: there are few of
either. Pure functions.
"""

from collections.abc import Collection, Iterator, Mapping

import attrs

from tgi_llama.engine.model_runner import SlotId
from tgi_llama.generation import AdapterId

Owners = Mapping[SlotId, AdapterId | None]
"""The adapters of busy slots."""

_NOBODY = object()
_BOTH = 2


@attrs.frozen
class Move:
    source: SlotId
    target: SlotId


def n_stretches(owners: Owners) -> int:
    """Of all groups together."""
    return sum(owners.get(SlotId(slot - 1), _NOBODY) != group for slot, group in owners.items())


def best_places(
    owners: Owners, group: AdapterId | None, free: Collection[SlotId]
) -> tuple[SlotId, ...]:
    """The free slots in which one more of the group makes the fewest stretches; the one that is
    farthest from other groups first."""
    beside = {slot: _n_beside(owners, slot, group) for slot in free}
    most = max(beside.values())
    others = [slot for slot, owner in owners.items() if owner != group]

    def order(slot: SlotId) -> tuple[int, int]:
        return -min((abs(slot - other) for other in others), default=0), slot

    return tuple(sorted((slot for slot in free if beside[slot] == most), key=order))


def move_for(
    owners: Owners,
    group: AdapterId | None,
    free: Collection[SlotId],
    movable: Collection[SlotId],
) -> Move | None:
    """The move after which one more of the group has a better place than any now: the one that is
    given up. None where that does not save a stretch."""
    best, most = None, max(_n_beside(owners, slot, group) for slot in free)
    for move, n_saved in _moves(owners, free, movable, least=0):
        n_beside = n_saved + _n_beside(owners, move.source, group)
        if n_beside > most:
            best, most = move, n_beside
    return best


def closing_move(
    owners: Owners, free: Collection[SlotId], movable: Collection[SlotId]
) -> Move | None:
    """The move that saves the most stretches; None where none saves one."""
    if n_stretches(owners) == len(set(owners.values())):
        return None
    best, most = None, 0
    for move, n_saved in _moves(owners, free, movable, least=1):
        if n_saved > most:
            best, most = move, n_saved
    return best


def _moves(
    owners: Owners, free: Collection[SlotId], movable: Collection[SlotId], *, least: int
) -> Iterator[tuple[Move, int]]:
    """Those that save ``least`` stretches or more, with how many. Asked for between steps, with up
    to 256 slots: it looks only at slots beside others of the group, and only where these can save
    so many."""
    targets: dict[AdapterId | None, list[SlotId]] = {}
    for slot in free:
        for group in {owners[each] for each in _neighbours(slot) if each in owners}:
            targets.setdefault(group, []).append(slot)
    joining = {
        group: [slot for slot in slots if _n_beside(owners, slot, group) == _BOTH]
        for group, slots in targets.items()
    }
    for source in movable:
        group = owners[source]
        n_left = _n_beside(owners, source, group)
        if n_left == _BOTH:
            continue
        for target in (joining if n_left + least == _BOTH else targets).get(group, ()):
            n_saved = _n_beside(owners, target, group) - (abs(target - source) == 1) - n_left
            if n_saved >= least:
                yield Move(source, target), n_saved


def _neighbours(slot: SlotId) -> tuple[SlotId, SlotId]:
    return SlotId(slot - 1), SlotId(slot + 1)


def _n_beside(owners: Owners, slot: SlotId, group: AdapterId | None) -> int:
    """How many neighbours of the slot are of the group. One of the group that comes there makes
    so many stretches fewer, and one more of its own."""
    return sum(owners.get(each, _NOBODY) == group for each in _neighbours(slot))
