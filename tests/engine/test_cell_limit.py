"""How many cells there are, where batches have been refused."""

import random

import pytest

from tgi_llama.engine.cell_limit import CellLimit


def refused_twice(n_used: int = 300, n_more: int = 40) -> CellLimit:
    limit = CellLimit(1000)
    limit.refused(n_used, n_more)
    limit.worked(n_used)
    limit.refused(n_used, n_more)
    return limit


def test_limit_is_the_plan_until_batches_are_refused() -> None:
    limit = CellLimit(1000)
    limit.worked(1000)
    assert limit.n_cells == 1000


def test_single_refusals_are_of_the_moment_however_often_a_batch_is_tried_again() -> None:
    limit = CellLimit(1000)
    for _ in range(5):
        for _ in range(3):
            limit.refused(300, 40)
        for _ in range(65):
            limit.worked(200)
    assert limit.n_cells == 1000


def test_limit_after_two_refusals_is_half_way_into_the_batch_and_never_rises_by_another() -> None:
    limit = refused_twice()
    assert limit.n_cells == 320
    limit.refused(310, 1)
    assert limit.n_cells == 310
    limit.refused(900, 50)
    assert limit.n_cells == 310, "a sequence that is alone tries whatever it needs"


def test_limit_that_a_step_exceeds_was_too_low() -> None:
    limit = refused_twice()
    limit.worked(500)
    assert limit.n_cells == 500
    limit.worked(200)
    assert limit.n_cells == 500


def test_plan_is_tried_again_after_more_and_more_steps() -> None:
    limit = refused_twice()
    pauses = []
    for _ in range(12):
        n_steps = 0
        while limit.n_cells < 1000:
            limit.worked(50)
            n_steps += 1
        pauses.append(n_steps)
        limit.refused(100, 2)
        limit.worked(50)
        limit.refused(100, 2)
    assert pauses == [512 << n for n in range(8)] + [512 << 7] * 4


@pytest.mark.parametrize("seed", range(20))
def test_few_refusals_tell_how_many_cells_there_are(seed: int) -> None:
    """Sequences grow and end; as many batches are refused as halving a batch takes."""
    rng = random.Random(seed)
    n_native = rng.randrange(100, 900)
    limit = CellLimit(1000)
    n_used = n_refused = n_most = 0
    for _ in range(400):
        n_more = rng.choice([1, 8, 60])
        if n_used + n_more > limit.n_cells or rng.random() < 0.02:
            n_used = n_used * 3 // 4  # somebody gives way
        elif n_used + n_more > n_native:
            limit.refused(n_used, n_more)
            n_refused += 1
            n_used = n_used * 3 // 4
        else:
            n_used += n_more
            n_most = max(n_most, n_used)
            limit.worked(n_used)
    assert 2 <= n_refused <= 12
    assert limit.n_cells >= n_most * 3 // 4
