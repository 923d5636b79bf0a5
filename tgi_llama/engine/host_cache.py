"""Sequence states in host memory: what was pushed out of the context and may come back.

Theory of operation
-------------------
An entry is the state of one sequence, which llama.cpp wrote into host memory, under the tokens
whose cells it holds. The owner finds entries by their prefix in a tree of its own; this store only
decides which of them may stay. Nothing here touches the native library or knows what a state is.

Every entry is counted with all it costs (``entry_bytes``), and the sum is kept at or under the
limit: the owner asks for room (``make_room``) before it allocates a state, and entries are evicted
until it fits. Which ones is LFU with dynamic ageing, "LRU weighted by hits" (M. Arlitt et al.,
"Evaluating content management techniques for Web proxy caches", 2000): an entry's priority is its
weight, 1 and its hits, plus the cache's age at its last use. The lowest goes first, among equals
the least recently used, and the age becomes the priority of what was evicted. Without hits that is
LRU. A hit lets an entry outlive about one more turnover of the cache, at most ``_MAX_WEIGHT`` of
them, so that what was popular once does not stay for ever.

Pinned entries are never evicted. There are two reasons for a pin: a restore that is under way, and
a running sequence that was pre-empted, whose only copy this is. The latter are *reserved*: they are
taken whatever the limit says, since refusing one would lose a request, and they are counted, so
that everything else makes room. With a limit of 0 they are all that is ever stored.
"""

import contextlib
import heapq
from collections.abc import Callable, Iterator

import attrs

from tgi_llama.engine.model_runner import SavedState
from tgi_llama.generation import TokenId

TOKEN_BYTES = 40
"""What a token of an entry costs beside its state: a pointer in the tuple and an int object (28
bytes, in pieces of 16)."""

ENTRY_BYTES = 512
"""What an entry costs beside its state and its tokens: the object, the tuple's head, its places in
the tables. Rounded up."""

_MAX_WEIGHT = 8
"""Hits beyond one less than this do not add to an entry's weight."""


@attrs.define(eq=False)
class HostEntry:
    """One saved sequence. Changed by its cache only."""

    tokens: tuple[TokenId, ...]
    """The tokens whose cells are in the state, from position 0 on."""
    state: SavedState
    n_hits: int = 0
    last_used: int = 0
    """Moment on the cache's logical clock; no two entries have the same."""
    priority: int = 0
    n_pins: int = 0

    @property
    def n_bytes(self) -> int:
        """What the entry counts."""
        return entry_bytes(self.state.n_bytes, n_tokens=len(self.tokens))


def entry_bytes(state_bytes: int, *, n_tokens: int) -> int:
    """What an entry with such a state counts."""
    return state_bytes + TOKEN_BYTES * n_tokens + ENTRY_BYTES


def _ignore(_entry: HostEntry) -> None:
    pass


@attrs.define(eq=False)
class HostCache:
    """The store. Decode thread only."""

    limit_bytes: int
    """Most bytes of all entries together, but for reserved ones. 0 caches nothing."""
    evicted: Callable[[HostEntry], None] = _ignore
    """Told every entry that was evicted to make room, after it is gone, so that the owner takes it
    out of its tree. Not called by ``remove``. Must not call the cache."""

    n_bytes: int = attrs.field(default=0, init=False)
    """Sum of the entries' ``n_bytes``."""
    n_evicted: int = attrs.field(default=0, init=False)
    """Entries evicted so far."""
    _pinned_bytes: int = attrs.field(default=0, init=False)
    _entries: dict[HostEntry, None] = attrs.field(factory=dict, init=False)
    _clock: int = attrs.field(default=0, init=False)
    _age: int = attrs.field(default=0, init=False)
    # (priority, last_used), also of entries that were used, pinned or removed since: those are
    # skipped when they come up. Not the entries themselves: a removed one's state is to be freed.
    _queue: list[tuple[int, int]] = attrs.field(factory=list, init=False)
    _by_moment: dict[int, HostEntry] = attrs.field(factory=dict, init=False)
    """The entries by ``last_used``."""

    @property
    def n_entries(self) -> int:
        return len(self._entries)

    @property
    def pinned_bytes(self) -> int:
        """The part of ``n_bytes`` that cannot be evicted now."""
        return self._pinned_bytes

    def entries(self) -> tuple[HostEntry, ...]:
        """All entries, oldest first."""
        return tuple(self._entries)

    def make_room(self, state_bytes: int, *, n_tokens: int, reserved: bool = False) -> bool:
        """Evicts until an entry of this size may be added. To be called before its state is
        allocated.

        False, and nothing is evicted, when it can never fit beside what is pinned. A ``reserved``
        one always may: as much is evicted as helps.
        """
        n_wanted = entry_bytes(state_bytes, n_tokens=n_tokens)
        if not reserved and self._pinned_bytes + n_wanted > self.limit_bytes:
            return False
        self._shrink_to(self.limit_bytes - n_wanted)
        return True

    def add(self, tokens: tuple[TokenId, ...], state: SavedState) -> HostEntry:
        """Stores a state that there is room for; ValueError where there is none."""
        entry = HostEntry(tokens, state)
        if self.n_bytes + entry.n_bytes > self.limit_bytes:
            raise ValueError(
                f"{entry.n_bytes} bytes do not fit: {self.n_bytes} of {self.limit_bytes} are used"
            )
        self._insert(entry)
        return entry

    def add_reserved(self, tokens: tuple[TokenId, ...], state: SavedState) -> HostEntry:
        """Stores the state of a pre-empted sequence: pinned once, and never refused. ``unpin``
        makes an ordinary entry of it, ``remove`` forgets it."""
        entry = HostEntry(tokens, state, n_pins=1)
        self._insert(entry)
        self._pinned_bytes += entry.n_bytes
        self._shrink_to(self.limit_bytes)
        return entry

    def touch(self, entry: HostEntry) -> None:
        """Notes a hit: the entry's state was, or is about to be, restored. It stays."""
        self._check_known(entry)
        entry.n_hits += 1
        self._use(entry)

    def pin(self, entry: HostEntry) -> None:
        """Keeps the entry from being evicted until as many calls of ``unpin``."""
        self._check_known(entry)
        entry.n_pins += 1
        if entry.n_pins == 1:
            self._pinned_bytes += entry.n_bytes

    def unpin(self, entry: HostEntry) -> None:
        """Takes one pin back. Where reserved entries had gone over the limit, this may evict at
        once, the entry itself included."""
        self._check_known(entry)
        if entry.n_pins == 0:
            raise ValueError("the entry is not pinned")
        entry.n_pins -= 1
        if entry.n_pins == 0:
            self._pinned_bytes -= entry.n_bytes
            self._use(entry)
            self._shrink_to(self.limit_bytes)

    @contextlib.contextmanager
    def pinned(self, entry: HostEntry) -> Iterator[None]:
        """Pins the entry meanwhile, for a restore that may make room for something else."""
        self.pin(entry)
        try:
            yield
        finally:
            self.unpin(entry)

    def remove(self, entry: HostEntry) -> None:
        """Forgets the entry, pinned or not. KeyError for one that is not here."""
        del self._entries[entry]
        del self._by_moment[entry.last_used]
        self.n_bytes -= entry.n_bytes
        if entry.n_pins:
            self._pinned_bytes -= entry.n_bytes

    def check_invariants(self) -> None:
        """Raises AssertionError when the accounts do not balance."""
        assert self.n_bytes == sum(entry.n_bytes for entry in self._entries)
        pinned = [entry for entry in self._entries if entry.n_pins]
        assert self._pinned_bytes == sum(entry.n_bytes for entry in pinned)
        assert self.n_bytes <= max(self.limit_bytes, self._pinned_bytes)
        assert all(entry.n_pins >= 0 for entry in self._entries)
        queued = {last_used for _, last_used in self._queue}
        assert all(entry.last_used in queued for entry in self._entries if not entry.n_pins)
        assert self._by_moment == {entry.last_used: entry for entry in self._entries}

    def _insert(self, entry: HostEntry) -> None:
        self._entries[entry] = None
        self.n_bytes += entry.n_bytes
        self._use(entry)

    def _use(self, entry: HostEntry) -> None:
        self._clock += 1
        self._by_moment.pop(entry.last_used, None)
        entry.last_used = self._clock
        self._by_moment[self._clock] = entry
        entry.priority = self._age + min(1 + entry.n_hits, _MAX_WEIGHT)
        heapq.heappush(self._queue, (entry.priority, entry.last_used))
        if len(self._queue) > 2 * len(self._entries) + 64:  # mostly of the past
            self._queue = [(entry.priority, entry.last_used) for entry in self._entries]
            heapq.heapify(self._queue)

    def _shrink_to(self, n_bytes: int) -> None:
        """Evicts until at most that many bytes are left, or only what is pinned."""
        while self.n_bytes > n_bytes and self.n_bytes > self._pinned_bytes:
            priority, last_used = heapq.heappop(self._queue)
            entry = self._by_moment.get(last_used)
            if entry is None or entry.n_pins:
                continue  # ``unpin`` queues it again
            self._age = priority
            self.n_evicted += 1
            self.remove(entry)
            self.evicted(entry)

    def _check_known(self, entry: HostEntry) -> None:
        if entry not in self._entries:
            raise KeyError("the entry is not in the cache")
