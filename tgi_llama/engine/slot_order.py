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


@attrs.frozen
class Move:
    source: SlotId
    target: SlotId


def n_stretches(owners: Owners) -> int:
    """Of all groups together."""
    return sum(not _is_of(owners, SlotId(slot - 1), group) for slot, group in owners.items())


def best_places(
    owners: Owners, group: AdapterId | None, free: Collection[SlotId]
) -> tuple[SlotId, ...]:
    """The free slots in which one more of the group makes the fewest stretches; the one that is
    farthest from other groups first."""
    stretches = {slot: n_stretches({**owners, slot: group}) for slot in free}
    fewest = min(stretches.values())
    others = [slot for slot, owner in owners.items() if owner != group]

    def order(slot: SlotId) -> tuple[int, int]:
        return -min((abs(slot - other) for other in others), default=0), slot

    return tuple(sorted((slot for slot in free if stretches[slot] == fewest), key=order))


def move_for(
    owners: Owners,
    group: AdapterId | None,
    free: Collection[SlotId],
    movable: Collection[SlotId],
) -> Move | None:
    """The move after which one more of the group has a better place than any now: the one that is
    given up. None where that does not save a stretch."""
    best, fewest = None, n_stretches({**owners, best_places(owners, group, free)[0]: group})
    for move in _moves(owners, free, movable):
        stretches = n_stretches({**_moved(owners, move), move.source: group})
        if stretches < fewest:
            best, fewest = move, stretches
    return best


def closing_move(
    owners: Owners, free: Collection[SlotId], movable: Collection[SlotId]
) -> Move | None:
    """The move that saves the most stretches; None where none saves one."""
    best, fewest = None, n_stretches(owners)
    if fewest == len(set(owners.values())):
        return None
    for move in _moves(owners, free, movable):
        stretches = n_stretches(_moved(owners, move))
        if stretches < fewest:
            best, fewest = move, stretches
    return best


def _moves(owners: Owners, free: Collection[SlotId], movable: Collection[SlotId]) -> Iterator[Move]:
    for source in movable:
        group = owners[source]
        if not (_is_beside(owners, source, group, both=True)):
            for target in free:
                if _is_beside(owners, target, group):
                    yield Move(source, target)


def _moved(owners: Owners, move: Move) -> dict[SlotId, AdapterId | None]:
    moved = {**owners, move.target: owners[move.source]}
    del moved[move.source]
    return moved


def _is_of(owners: Owners, slot: SlotId, group: AdapterId | None) -> bool:
    return owners.get(slot, _NOBODY) == group


def _is_beside(
    owners: Owners, slot: SlotId, group: AdapterId | None, *, both: bool = False
) -> bool:
    """Whether a neighbour of the slot, or both, are of the group."""
    below, above = (_is_of(owners, SlotId(slot + step), group) for step in (-1, 1))
    return below and above if both else below or above
