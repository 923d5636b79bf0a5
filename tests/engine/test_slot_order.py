"""Stretches of slots: pictures of slots, in which a letter is an adapter and a dot a free slot."""

import itertools
import random
from collections.abc import Iterator

import pytest
from fakes.cache_play import a_play, own, wants

from tgi_llama.engine.model_runner import SlotId
from tgi_llama.engine.slot_order import Move, best_places, closing_move, move_for, n_stretches
from tgi_llama.generation import AdapterId


def owners_of(picture: str) -> dict[SlotId, AdapterId | None]:
    return {SlotId(i): group_of(letter) for i, letter in enumerate(picture) if letter != "."}


def group_of(letter: str) -> AdapterId | None:
    return None if letter == "-" else AdapterId(ord(letter))


def free_of(picture: str) -> list[SlotId]:
    return [SlotId(i) for i, letter in enumerate(picture) if letter == "."]


@pytest.mark.parametrize(
    ("picture", "n"),
    [("", 0), ("....", 0), ("---", 1), ("-.-", 2), ("--AA", 2), ("-A-A", 4), ("A.A-.B", 4)],
)
def test_rows_are_slots_of_one_group_that_follow_on_each_other(picture: str, n: int) -> None:
    assert n_stretches(owners_of(picture)) == n


@pytest.mark.parametrize(
    ("picture", "letter", "places"),
    [
        ("--......", "-", [2]),
        ("--......", "A", [7, 6, 5, 4, 3, 2]),
        ("--.....A", "B", [4, 3, 5, 2, 6]),
        ("--.....A", "A", [6]),
        ("--.--..A", "-", [2]),  # closes a gap
        ("--A.--A.", "-", [3]),
        (".A.---..", "A", [0, 2]),
        ("-.A", "B", [1]),
    ],
)
def test_newcomer_makes_few_rows_and_leaves_others_room(
    picture: str, letter: str, places: list[int]
) -> None:
    found = best_places(owners_of(picture), group_of(letter), free_of(picture))
    assert list(found) == places


def test_one_moves_where_the_only_free_slot_is_amid_others() -> None:
    picture = "--.---AAA"
    move = move_for(owners_of(picture), group_of("A"), free_of(picture), list(owners_of(picture)))
    assert move == Move(SlotId(5), SlotId(2))


@pytest.mark.parametrize("letter", ["-", "A"])
def test_nobody_moves_where_there_is_a_place_as_good(letter: str) -> None:
    picture = "---..AAA"
    assert (
        move_for(owners_of(picture), group_of(letter), free_of(picture), list(owners_of(picture)))
        is None
    )


def test_nobody_moves_for_whom_it_does_not_pay() -> None:
    picture = "--.---AAA"
    assert (
        move_for(owners_of(picture), group_of("A"), free_of(picture), [SlotId(3), SlotId(6)])
        is None
    )


@pytest.mark.parametrize(
    ("picture", "n_after"),
    [("-.-A", 2), ("-A.-A", 2), ("A-.AA-", 2), ("--AA", 2), ("-A-A", 4), ("-.A", 2)],
)
def test_gaps_are_closed_as_far_as_one_move_each_can(picture: str, n_after: int) -> None:
    owners, free = owners_of(picture), free_of(picture)
    while (move := closing_move(owners, free, list(owners))) is not None:
        before = n_stretches(owners)
        owners[move.target] = owners.pop(move.source)
        free = [*(slot for slot in free if slot != move.target), move.source]
        assert n_stretches(owners) < before
    assert n_stretches(owners) == n_after


def stretches_per_step(n_adapters: int, *, seed: int = 1) -> float:
    """Physical batches in a step, with as many sequences as there are slots and more in the
    queue."""
    rng = random.Random(seed)
    play = a_play(n_slots=12, max_batch=64)
    play.load(*range(1, n_adapters))
    numbers = itertools.count()
    counts = []
    for _ in range(600):
        while play.scheduler.n_queued < 3:
            adapter = rng.randrange(n_adapters) or None
            play.submit(wants(own(next(numbers) % 50, 5), rng.randrange(10, 80), adapter=adapter))
            play.step()
        play.step()
        slots = sorted(run.slot for run in play.runner.batches[-1].runs)
        counts.append(1 + sum(b - a > 1 for a, b in itertools.pairwise(slots)))
    return sum(counts) / len(counts)


@pytest.mark.parametrize(("n_adapters", "most"), [(1, 1.1), (2, 1.25), (3, 1.6)])
def test_groups_stand_together_where_all_slots_are_taken(n_adapters: int, most: float) -> None:
    """Without moves it would be 2.7 stretches a step for two adapters and 2.5 for three."""
    assert stretches_per_step(n_adapters) < most


class Counted(dict[SlotId, AdapterId | None]):
    """Owners, and how often they were looked at."""

    n_looks = 0

    def get(self, slot: SlotId, default: object = None) -> object:  # type: ignore[override]
        self.n_looks += 1
        return super().get(slot, default)  # type: ignore[arg-type]

    def __getitem__(self, slot: SlotId) -> AdapterId | None:
        self.n_looks += 1
        return super().__getitem__(slot)

    def items(self) -> Iterator[tuple[SlotId, AdapterId | None]]:  # type: ignore[override]
        self.n_looks += len(self)
        return iter(super().items())


def test_steps_in_which_nothing_can_be_closed_do_not_wait_for_that() -> None:
    """Asked for in every step while several groups run. Here each stretch has a free slot beside
    it, so that there are thousands of moves, and none saves a stretch."""
    picture = "AA.BB.--.CC." * 21
    owners = Counted(owners_of(picture))
    assert closing_move(owners, free_of(picture), list(owners_of(picture))) is None
    assert owners.n_looks < 12 * len(picture)
