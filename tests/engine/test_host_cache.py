"""The store of saved states: what stays, what goes first, and that every byte is counted."""

import sys
import weakref

import attrs
import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tgi_llama.engine.host_cache import (
    ENTRY_BYTES,
    TOKEN_BYTES,
    HostCache,
    HostEntry,
    entry_bytes,
)
from tgi_llama.generation import TokenId

_TOKENS = (TokenId(7), TokenId(8))
_OVERHEAD = entry_bytes(0, n_tokens=len(_TOKENS))


@attrs.frozen
class _State:
    """As large as it says."""

    n_bytes: int


class _Store:
    """A cache in units: each entry added here counts ``size`` units of 10,000 bytes exactly."""

    unit = 10_000

    def __init__(self, limit: int) -> None:
        self.evicted: list[HostEntry] = []
        self.cache = HostCache(limit * self.unit, evicted=self.evicted.append)

    def make_room(self, size: int, *, reserved: bool = False) -> bool:
        n_bytes = size * self.unit - _OVERHEAD
        return self.cache.make_room(n_bytes, n_tokens=len(_TOKENS), reserved=reserved)

    def add(self, size: int = 1) -> HostEntry:
        assert self.make_room(size)
        return self.cache.add(_TOKENS, _State(size * self.unit - _OVERHEAD))

    def reserve(self, size: int = 1) -> HostEntry:
        assert self.make_room(size, reserved=True)
        return self.cache.add_reserved(_TOKENS, _State(size * self.unit - _OVERHEAD))

    def evict(self, n_entries: int) -> list[HostEntry]:
        """The next entries to go, by asking for the room of so many entries of one unit."""
        limit = self.cache.limit_bytes // self.unit
        before = len(self.evicted)
        for _ in range(n_entries):
            free = limit - self.cache.n_bytes // self.unit
            assert self.make_room(free + 1)
        return self.evicted[before:]


def test_entry_counts_its_state_its_tokens_and_itself() -> None:
    cache = HostCache(10_000)
    entry = cache.add(_TOKENS, _State(1000))

    assert cache.n_bytes == entry.n_bytes == 1000 + 2 * TOKEN_BYTES + ENTRY_BYTES
    cache.remove(entry)
    assert (cache.n_bytes, cache.n_entries) == (0, 0)


def test_cost_of_tokens_is_what_python_takes() -> None:
    tokens = tuple(range(10**6, 10**6 + 1000))
    real = sys.getsizeof(tokens) + sum(map(sys.getsizeof, tokens))

    assert 0 <= TOKEN_BYTES * 1000 + ENTRY_BYTES - real < 0.15 * real


def test_make_room_enough_is_free_evicts_nothing() -> None:
    store = _Store(3)
    store.add()
    store.add()

    assert store.make_room(1)
    assert store.evicted == []


def test_make_room_to_the_byte() -> None:
    cache = HostCache(entry_bytes(100, n_tokens=2))

    assert not cache.make_room(101, n_tokens=2)
    assert not cache.make_room(100, n_tokens=3)
    assert cache.make_room(100, n_tokens=2)
    cache.add(_TOKENS, _State(100))
    assert cache.n_bytes == cache.limit_bytes


def test_make_room_more_than_the_limit_is_refused_and_evicts_nothing() -> None:
    store = _Store(3)
    store.add()

    assert not store.make_room(4)
    assert (store.evicted, store.cache.n_entries) == ([], 1)


def test_add_without_room_is_refused() -> None:
    store = _Store(1)
    store.add()

    with pytest.raises(ValueError, match="10000 of 10000 are used"):
        store.cache.add(_TOKENS, _State(0))


def test_eviction_without_hits_is_by_last_use() -> None:
    store = _Store(3)
    entries = [store.add() for _ in range(3)]

    assert store.evict(2) == entries[:2]
    assert store.cache.entries() == (entries[2],)
    assert store.cache.n_evicted == 2


def test_eviction_as_many_as_it_takes_and_no_more() -> None:
    store = _Store(5)
    entries = [store.add(size) for size in (1, 2, 2)]
    store.add(3)

    assert store.evicted == entries[:2]


def test_touched_entry_outlives_newer_ones_without_hits() -> None:
    store = _Store(3)
    popular, *others = (store.add() for _ in range(3))
    store.cache.touch(popular)

    assert store.evict(3) == [*others, popular]


def test_touched_entries_go_by_hits_then_by_last_use() -> None:
    store = _Store(3)
    twice, once, once_later = (store.add() for _ in range(3))
    for entry in (twice, twice, once, once_later):
        store.cache.touch(entry)

    assert store.evict(3) == [once, once_later, twice]


def test_ageing_popular_once_is_evicted_after_a_turnover_per_hit() -> None:
    store = _Store(4)
    popular = store.add()
    store.cache.touch(popular)
    store.cache.touch(popular)
    added = [store.add() for _ in range(3 * 4)]

    survived = [entry for entry in added if entry in store.evicted[: store.evicted.index(popular)]]
    assert 3 < len(survived) < 3 * 3


def test_ageing_any_number_of_hits_is_forgotten_in_the_end() -> None:
    store = _Store(4)
    popular = store.add()
    for _ in range(1000):
        store.cache.touch(popular)
    for _ in range(3 * 10):
        store.add()

    assert popular in store.evicted


def test_hit_does_not_remove_so_several_may_restore_the_same() -> None:
    store = _Store(1)
    entry = store.add()
    for _ in range(3):
        with store.cache.pinned(entry):
            store.cache.touch(entry)

    assert store.cache.entries() == (entry,)
    assert entry.n_hits == 3


def test_pinned_entry_is_passed_over() -> None:
    store = _Store(2)
    first, second = store.add(), store.add()
    with store.cache.pinned(first):
        assert store.make_room(1)
        assert not store.make_room(2)
    assert store.evicted == [second]
    assert store.make_room(2)
    assert store.evicted == [second, first]


def test_pins_are_counted() -> None:
    store = _Store(1)
    entry = store.add()
    store.cache.pin(entry)
    store.cache.pin(entry)
    store.cache.unpin(entry)
    assert not store.make_room(1)
    store.cache.unpin(entry)
    assert store.make_room(1)
    assert store.cache.pinned_bytes == 0


def test_pinned_block_that_raises_takes_the_pin_back() -> None:
    store = _Store(1)
    entry = store.add()
    with pytest.raises(ZeroDivisionError), store.cache.pinned(entry):
        raise ZeroDivisionError

    assert store.make_room(1)


def test_reserved_is_never_refused_and_everything_else_makes_room() -> None:
    store = _Store(3)
    cached = [store.add() for _ in range(3)]
    first = store.reserve(2)
    assert store.evicted == cached[:2]
    second = store.reserve(5)

    assert store.evicted == cached
    assert store.cache.entries() == (first, second)
    assert store.cache.n_bytes == store.cache.pinned_bytes == 7 * store.unit
    assert not store.make_room(1)


def test_reserved_that_is_removed_gives_its_room_back() -> None:
    store = _Store(1)
    store.cache.remove(store.reserve(5))

    assert store.cache.pinned_bytes == store.cache.n_bytes == 0
    store.add()


def test_reserved_that_is_unpinned_becomes_an_ordinary_entry_where_it_fits() -> None:
    store = _Store(2)
    entry = store.reserve()
    store.cache.unpin(entry)
    assert store.cache.entries() == (entry,)
    assert store.evict(1) == [entry]


def test_reserved_that_is_unpinned_beyond_the_limit_is_evicted() -> None:
    store = _Store(2)
    entry = store.reserve(3)
    store.cache.unpin(entry)

    assert store.evicted == [entry]
    assert store.cache.n_bytes == 0


def test_limit_zero_stores_only_what_is_reserved() -> None:
    store = _Store(0)

    assert not store.cache.make_room(0, n_tokens=0)
    entry = store.reserve()
    assert store.cache.entries() == (entry,)
    store.cache.unpin(entry)
    assert store.cache.n_entries == 0


def test_entry_that_is_not_here_is_refused() -> None:
    store = _Store(1)
    entry = store.add()
    store.cache.remove(entry)

    for operation in (store.cache.touch, store.cache.pin, store.cache.unpin, store.cache.remove):
        with pytest.raises(KeyError):
            operation(entry)


def test_unpin_more_often_than_pinned_is_refused() -> None:
    store = _Store(1)

    with pytest.raises(ValueError, match="not pinned"):
        store.cache.unpin(store.add())


def test_many_touches_keep_the_queue_short() -> None:
    store = _Store(3)
    entry = store.add()
    for _ in range(1000):
        store.cache.touch(entry)

    assert len(store.cache._queue) < 100
    store.cache.check_invariants()


# Against a plain model


@attrs.define(eq=False)
class _Plain:
    """What the model knows of an entry."""

    size: int
    hits: int
    used: int
    age: int
    pins: int

    @property
    def priority(self) -> int:
        return self.age + min(1 + self.hits, 8)


class CacheAgainstModel(RuleBasedStateMachine):
    """Random operations, each done on the cache and on a list that is searched in full."""

    def __init__(self) -> None:
        super().__init__()
        self.limit = 6
        self.store = _Store(self.limit)
        self.plain: dict[HostEntry, _Plain] = {}
        self.gone: list[HostEntry] = []
        self.clock = self.age = 0

    def _use(self, entry: HostEntry) -> None:
        self.clock += 1
        self.plain[entry].used = self.clock
        self.plain[entry].age = self.age

    def _shrink_to(self, limit: int) -> None:
        while sum(plain.size for plain in self.plain.values()) > limit:
            free = [entry for entry, plain in self.plain.items() if not plain.pins]
            if not free:
                return
            victim = min(free, key=lambda e: (self.plain[e].priority, self.plain[e].used))
            self.age = self.plain[victim].priority
            self.gone.append(victim)
            del self.plain[victim]

    def _pick(self, data: st.DataObject, *, pinned: bool = False) -> HostEntry | None:
        fitting = [entry for entry, plain in self.plain.items() if plain.pins or not pinned]
        return data.draw(st.sampled_from(fitting)) if fitting else None

    @rule(size=st.integers(1, 7))
    def add(self, size: int) -> None:
        pinned = sum(plain.size for plain in self.plain.values() if plain.pins)
        fits = pinned + size <= self.limit
        assert self.store.make_room(size) == fits
        if fits:
            self._shrink_to(self.limit - size)
            entry = self.store.add(size)
            self.plain[entry] = _Plain(size, hits=0, used=0, age=0, pins=0)
            self._use(entry)

    @rule(size=st.integers(1, 4))
    def reserve(self, size: int) -> None:
        entry = self.store.reserve(size)
        self._shrink_to(self.limit - size)
        self.plain[entry] = _Plain(size, hits=0, used=0, age=0, pins=1)
        self._use(entry)

    @rule(data=st.data())
    def touch(self, data: st.DataObject) -> None:
        if entry := self._pick(data):
            self.store.cache.touch(entry)
            self.plain[entry].hits += 1
            self._use(entry)

    @rule(data=st.data())
    def pin(self, data: st.DataObject) -> None:
        if entry := self._pick(data):
            self.store.cache.pin(entry)
            self.plain[entry].pins += 1

    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        if entry := self._pick(data, pinned=True):
            self.store.cache.unpin(entry)
            self.plain[entry].pins -= 1
            if not self.plain[entry].pins:
                self._use(entry)
                self._shrink_to(self.limit)

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        if entry := self._pick(data):
            self.store.cache.remove(entry)
            del self.plain[entry]

    @invariant()
    def agrees(self) -> None:
        self.store.cache.check_invariants()
        assert list(self.store.cache.entries()) == list(self.plain)
        assert self.store.evicted == self.gone
        total = sum(plain.size for plain in self.plain.values())
        assert self.store.cache.n_bytes == total * self.store.unit


TestCacheAgainstModel = CacheAgainstModel.TestCase
TestCacheAgainstModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_removed_state_is_freed_at_once() -> None:
    """A state is large: nothing may hold on to it when it is gone."""
    cache = HostCache(10**6)
    entry = cache.add(_TOKENS, _State(1000))  # type: ignore[arg-type] # as large as it says
    state = weakref.ref(entry.state)
    cache.touch(entry)
    cache.remove(entry)
    del entry
    assert state() is None
