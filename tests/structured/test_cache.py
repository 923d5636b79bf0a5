"""What is compiled once, and when it is compiled again."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tgi_llama.structured.cache import CompiledCache


class Maker:
    """Counts what it makes; waits for ``gate`` while it is closed."""

    def __init__(self) -> None:
        self.n_made = 0
        self.begun = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.error: BaseException | None = None

    def __call__(self) -> str:
        self.begun.set()
        assert self.gate.wait(10)
        self.n_made += 1
        if self.error is not None:
            raise self.error
        return f"made {self.n_made}"


@pytest.fixture
def make() -> Maker:
    return Maker()


def always(_made: str) -> bool:
    return True


def cache(
    *, max_entries: int = 2, max_bytes: int = 100, is_usable: Callable[[str], bool] = always
) -> CompiledCache[str]:
    return CompiledCache(max_entries, max_bytes, is_usable=is_usable)


def test_same_key_is_made_once(make: Maker) -> None:
    results = cache()
    assert results.get(b"a", make, n_bytes=1) == ("made 1", False)
    assert results.get(b"a", make, n_bytes=1) == ("made 1", True)
    assert results.get(b"b", make, n_bytes=1) == ("made 2", False)


def test_least_recently_used_is_forgotten(make: Maker) -> None:
    results = cache()
    for key in (b"a", b"b", b"a", b"c"):
        results.get(key, make, n_bytes=1)
    assert len(results) == 2
    assert results.get(b"a", make, n_bytes=1)[1]
    assert not results.get(b"b", make, n_bytes=1)[1]


def test_bytes_are_bounded(make: Maker) -> None:
    results = cache(max_entries=10)
    for key in (b"a", b"b", b"c"):
        results.get(key, make, n_bytes=40)
    assert len(results) == 2
    results.get(b"d", make, n_bytes=1_000)
    assert len(results) == 0


def test_without_room_nothing_is_kept(make: Maker) -> None:
    results = cache(max_entries=0)
    results.get(b"a", make, n_bytes=1)
    assert len(results) == 0


def test_what_is_not_usable_any_more_is_made_anew(make: Maker) -> None:
    results = cache(is_usable=lambda made: made != "made 1")
    results.get(b"a", make, n_bytes=1)
    assert results.get(b"a", make, n_bytes=1) == ("made 2", False)
    assert results.get(b"a", make, n_bytes=1) == ("made 2", True)


def test_threads_that_want_the_same_wait_for_one_of_them(make: Maker) -> None:
    results = cache()
    make.gate.clear()
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(results.get, b"a", make, n_bytes=1)
        assert make.begun.wait(10)
        others = [pool.submit(results.get, b"a", make, n_bytes=1) for _ in range(3)]
        make.gate.set()
        assert first.result() == ("made 1", False)
        assert {other.result() for other in others} == {("made 1", True)}
    assert make.n_made == 1


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_failure_reaches_all_who_wait_and_is_not_kept(make: Maker, error: BaseException) -> None:
    results = cache()
    make.error = error
    make.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(results.get, b"a", make, n_bytes=1)
        assert make.begun.wait(10)
        make.gate.set()
        with pytest.raises(type(error)):
            first.result()
    assert len(results) == 0
    make.error = None
    assert results.get(b"a", make, n_bytes=1) == ("made 2", False)
