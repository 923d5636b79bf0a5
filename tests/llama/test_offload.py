"""How many layers go to which GPU, on machines that there are not."""

import logging
import random
from collections.abc import Sequence
from itertools import product

import pytest
from fakes.gpu_machine import FakeModel, gpu

from tgi_llama.config import Config
from tgi_llama.llama.devices import Device
from tgi_llama.llama.gguf_file import LayerWeights
from tgi_llama.llama.offload import Offload, arrange, asked_offload, fit

_WEIGHTS = LayerWeights((10,) * 8 + (30,), host=30)
"""Eight layers and the output: 110 bytes."""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, Offload(0)),
        ({"n_gpu_layers": "auto"}, Offload(0)),
        ({"n_gpu_layers": "17"}, Offload(17)),
        ({"n_gpu_layers": "all", "tensor_split": "3,1"}, Offload(None, (3.0, 1.0))),
    ],
)
def test_asked_offload_is_what_the_options_say(options: dict[str, str], expected: Offload) -> None:
    assert asked_offload(Config(**options)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        (1000, None),
        (115, None),  # the weights and what computing takes
        (114, 8),
        (105, 8),
        (104, 7),
        (45, 2),
        (35, 1),  # the output
        (34, 0),
        (0, 0),
    ],
)
def test_one_gpu_gets_as_many_of_the_last_layers_as_fit(free: int, expected: int | None) -> None:
    gpus = [gpu("CUDA0", free)]

    assert fit(FakeModel(gpus, _WEIGHTS, compute=5), gpus, _WEIGHTS, margin=0) == Offload(expected)


def test_margin_stays_free() -> None:
    gpus = [gpu("CUDA0", 110 + 20)]

    assert fit(FakeModel(gpus, _WEIGHTS), gpus, _WEIGHTS, margin=20) == Offload(None)
    assert fit(FakeModel(gpus, _WEIGHTS), gpus, _WEIGHTS, margin=21) == Offload(8)


def test_cells_go_with_their_layers() -> None:
    gpus = [gpu("CUDA0", 30 + 3 * 15)]

    assert fit(FakeModel(gpus, _WEIGHTS, layer_cells=5), gpus, _WEIGHTS, margin=0) == Offload(4)


def test_several_gpus_that_have_room_are_left_to_llama_cpp() -> None:
    gpus = [gpu("CUDA0", 200), gpu("CUDA1", 100)]
    model = FakeModel(gpus, _WEIGHTS)

    assert fit(model, gpus, _WEIGHTS, margin=0) == Offload(None)
    assert len(model.measured) == 1


def test_gpu_that_does_not_tell_its_memory_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    gpus = [gpu("CUDA0"), gpu("CUDA1", 55)]

    assert fit(FakeModel(gpus, _WEIGHTS), gpus, _WEIGHTS, margin=0) == Offload(3, (0.0, 3.0))
    assert "CUDA0 does not tell its memory" in caplog.text


def test_gpus_without_any_room_are_not_even_measured() -> None:
    gpus = [gpu("CUDA0", 5), gpu("CUDA1", 0)]
    model = FakeModel(gpus, _WEIGHTS)

    assert fit(model, gpus, _WEIGHTS, margin=5) == Offload(0)
    assert model.measured == []


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        # By free memory the output would fall to a GPU without room for it.
        ((80, 30), Offload(9, (8.0, 1.0))),
        ((31, 79), Offload(8, (3.0, 5.0))),
        ((29, 80), Offload(8, (2.0, 6.0))),
        ((20, 0, 50), Offload(5, (2.0, 0.0, 3.0))),
    ],
)
def test_unequal_gpus_are_filled_one_after_the_other(
    free: Sequence[int], expected: Offload
) -> None:
    gpus = [gpu(f"CUDA{number}", size) for number, size in enumerate(free)]

    assert fit(FakeModel(gpus, _WEIGHTS), gpus, _WEIGHTS, margin=0) == expected


def test_asked_proportions_are_kept() -> None:
    gpus = [gpu("CUDA0", 40), gpu("CUDA1", 90)]

    found = fit(FakeModel(gpus, _WEIGHTS), gpus, _WEIGHTS, margin=0, split=(1.0, 1.0))

    assert found == Offload(8, (1.0, 1.0)), "four layers each, the output among the second's"


def test_file_that_cannot_be_measured_is_left_to_the_load() -> None:
    gpus = [gpu("CUDA0", 40)]

    found = fit(FakeModel(gpus, _WEIGHTS, n_measurable=-1), gpus, _WEIGHTS, margin=0)

    assert found == Offload(None)


@pytest.mark.parametrize(("n_measurable", "expected"), [(0, 0), (3, 3), (8, 6)])
def test_layers_that_are_too_many_to_measure_do_not_fit(n_measurable: int, expected: int) -> None:
    gpus = [gpu("CUDA0", 80)]
    model = FakeModel(gpus, _WEIGHTS, n_measurable=n_measurable)

    assert fit(model, gpus, _WEIGHTS, margin=0) == Offload(expected)


def test_result_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    gpus = [gpu("CUDA0", 80 * 2**20), gpu("CUDA1", 1)]
    weights = LayerWeights((2**20,) * 99, host=0)

    with caplog.at_level(logging.INFO):
        fit(FakeModel(gpus, weights), gpus, weights, margin=2**24)

    assert caplog.messages == [
        "--n-gpu-layers auto: 64 of 99 layers fit on CUDA0 (card CUDA0), CUDA1 (card CUDA1) and"
        " leave 16 MiB free"
    ]


def test_random_machines_get_the_most_that_fits_in_few_measurements() -> None:
    rng = random.Random(6)
    for _ in range(300):
        n_layers, n_gpus = rng.randint(1, 40), rng.randint(1, 3)
        weights = LayerWeights(
            (*(rng.choice((10, 10, 10, 25)) for _ in range(n_layers)), rng.randint(1, 90)), host=9
        )
        gpus = [gpu(f"CUDA{each}", rng.randint(0, 400)) for each in range(n_gpus)]
        model = FakeModel(
            gpus, weights, rng.randint(0, 9), rng.randint(0, 20), rng.choice((0, 0, 1))
        )

        found = fit(model, gpus, weights, margin=0)

        n_measured = len(model.measured)
        assert n_measured <= 12
        assert _fits(model, gpus, found)
        if n_gpus == 1 and found.n_layers is not None:
            assert not _fits(model, gpus, Offload(found.n_layers + 1))


def _fits(model: FakeModel, gpus: Sequence[Device], offload: Offload) -> bool:
    needs = model(offload)
    assert needs is not None
    return all(
        each.total <= device.free_bytes for each, device in zip(needs.gpus, gpus, strict=True)
    )


def test_arrangement_is_found_where_there_is_one() -> None:
    for costs in product((1, 3), repeat=4):
        for rooms in product(range(7), repeat=2):
            possible = any(
                sum(costs[:cut]) <= rooms[0] and sum(costs[cut:]) <= rooms[1] for cut in range(5)
            )
            found = arrange(costs, rooms)
            assert (found is not None) == possible
            assert found is None or sum(found) == 4
