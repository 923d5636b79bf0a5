"""Sequences without a slot, oldest first; and who among them may pass the first one.

Theory of operation
-------------------
The first in the queue is the head, and slots are given to the head. In the unified layout it may
have to wait for cells while there are some for smaller ones. Then the oldest of each size class can
be asked, oldest first: a class is a range of sizes of which the largest is at most a quarter more
than the smallest, so whoever would fit is passed over only for somebody older of about its size.
There are a few dozen classes, however many wait.

So that the head is not passed for ever, only ``_MOST_PASSES`` may pass it. Then it has the next
cells that are free. It waits for those that run then, and these end.
"""

import itertools
from collections import OrderedDict
from collections.abc import Iterator

import attrs

from tgi_llama.engine.sequence import Phase, Sequence, age
from tgi_llama.generation import RequestId

_MOST_PASSES = 16
"""So many may pass one that waits at the head of the queue."""

_CLASSES_PER_OCTAVE = 4
_FINE = 16
"""Sizes below it are classes of their own."""


@attrs.define(eq=False)
class WaitingQueue:
    """Pure state; decode thread only. The number of a sequence's tokens must not change while it
    is here."""

    _all: OrderedDict[RequestId, Sequence] = attrs.field(factory=OrderedDict, init=False)
    """Clients that leave may be many at once, and are found by their ids; the first of a plain dict
    from which many have been taken would have to be searched for."""
    _classes: dict[int, OrderedDict[RequestId, Sequence]] = attrs.field(factory=dict, init=False)
    """None of them empty."""

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Sequence]:
        """Oldest first."""
        return iter(self._all.values())

    @property
    def head(self) -> Sequence | None:
        """Whose turn it is to get a slot."""
        return next(iter(self._all.values()), None)

    def find(self, request_id: RequestId) -> Sequence | None:
        return self._all.get(request_id)

    def append(self, sequence: Sequence) -> None:
        """The sequence is the newest."""
        for queue in self._queues(sequence):
            queue[sequence.request_id] = sequence

    def put_back(self, sequence: Sequence) -> None:
        """The sequence was here before: its place is before all that came after it."""
        for queue in self._queues(sequence):
            older = itertools.takewhile(lambda each: age(each) < age(sequence), queue.values())
            first = [each.request_id for each in older]
            queue[sequence.request_id] = sequence
            for request_id in (sequence.request_id, *reversed(first)):
                queue.move_to_end(request_id, last=False)

    def remove(self, sequence: Sequence) -> None:
        """KeyError where it is not here."""
        del self._all[sequence.request_id]
        size_class = _size_class(len(sequence.tokens))
        same = self._classes[size_class]
        del same[sequence.request_id]
        if not same:
            del self._classes[size_class]

    def take(self, sequence: Sequence) -> None:
        """Removes a sequence that has got a slot; if it was not the head, it has passed it."""
        self.remove(sequence)
        head = self.head
        if head is not None and age(head) < age(sequence):
            head.n_passed += 1

    def passers(self) -> list[Sequence]:
        """Those that may pass the head, if there are cells for them: oldest first, each the oldest
        of its size. None once the head has been passed often enough."""
        head = self.head
        if head is None or head.n_passed >= _MOST_PASSES:
            return []
        firsts = (self._oldest(same, head) for same in self._classes.values())
        return sorted((each for each in firsts if each is not None), key=age)

    def check_invariants(self) -> None:
        """Raises AssertionError when the books do not balance. For tests."""
        ages = [age(sequence) for sequence in self]
        assert ages == sorted(ages)
        for request_id, sequence in self._all.items():
            assert sequence.request_id == request_id
            assert sequence.phase is Phase.QUEUED
            assert sequence.slot is None
            assert sequence.leader is None
            assert self._classes[_size_class(len(sequence.tokens))][request_id] is sequence
            assert sequence.n_passed <= _MOST_PASSES
        for same in self._classes.values():
            ages = [age(sequence) for sequence in same.values()]
            assert ages == sorted(ages)
        assert sum(len(same) for same in self._classes.values()) == len(self._all)
        assert all(self._classes.values())

    def _queues(self, sequence: Sequence) -> tuple[OrderedDict[RequestId, Sequence], ...]:
        size_class = _size_class(len(sequence.tokens))
        return self._all, self._classes.setdefault(size_class, OrderedDict())

    @staticmethod
    def _oldest(same: OrderedDict[RequestId, Sequence], head: Sequence) -> Sequence | None:
        return next((each for each in same.values() if each is not head), None)


def _size_class(n_tokens: int) -> int:
    """Larger for larger sizes; a class is at most a quarter of its smallest size wide."""
    if n_tokens < _FINE:
        return n_tokens
    shift = n_tokens.bit_length() - _CLASSES_PER_OCTAVE.bit_length()
    return _FINE + _CLASSES_PER_OCTAVE * shift + (n_tokens >> shift)
