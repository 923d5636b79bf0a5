"""What is needed against what there is, in figures."""

import logging
from collections.abc import Sequence

import attrs
import pytest

from tgi_llama.engine.kv_cache import KvPlan, plan_kv
from tgi_llama.errors import StartError
from tgi_llama.llama.gpu_needs import GpuNeeds
from tgi_llama.llama.memory_log import MemoryFigures
from tgi_llama.llama.memory_needs import MemoryNeeds, Room, announce_needs, describe_needs

_MIB = 2**20
_PLAN = plan_kv(layout="streams", n_slots=4, cells_per_sequence=1024, n_cells=4096)
_FIGURES = MemoryFigures(
    cells=400 * _MIB, states=40 * _MIB, host_compute=30 * _MIB, output=_MIB, is_repacked=True
)
_NEEDS = MemoryNeeds(
    weights=1000 * _MIB,
    is_mapped=True,
    output=20 * _MIB,
    tables=_MIB,
    cache=500 * _MIB,
    n_slots=4,
    figures=_FIGURES,
)
_CONTEXT = 400 + 40 + 30 + 20 + 1
_LOWER = (
    "--max-batch-size, --max-total-tokens, --max-batch-total-tokens,"
    " --max-physical-batch-total-tokens, or --type-k and --type-v (q8_0)"
)


def _room(mib: int, *, at_most: int = 10**6, gpus: Sequence[int] = ()) -> Room:
    free = {f"CUDA{number}": gpu * _MIB for number, gpu in enumerate(gpus)}
    return Room(host=mib * _MIB, host_at_most=at_most * _MIB, gpus=free)


def _gpu(number: int, **mib: int) -> GpuNeeds:
    n_layers = mib.pop("n_layers", 0)
    sizes = {name: size * _MIB for name, size in mib.items()}
    return GpuNeeds(name=f"CUDA{number}", n_layers=n_layers, **sizes)


def _on_gpus(*gpus: GpuNeeds) -> MemoryNeeds:
    return attrs.evolve(_NEEDS, gpus=gpus)


def test_needs_of_a_mapped_model_are_the_context_at_least() -> None:
    assert _NEEDS.host_at_least == _CONTEXT * _MIB
    assert _NEEDS.host == (1000 + _CONTEXT) * _MIB


def test_adapters_are_read_into_memory_also_where_the_model_is_mapped() -> None:
    needs = attrs.evolve(_NEEDS, adapters=50 * _MIB)

    assert needs.host_at_least == (50 + _CONTEXT) * _MIB
    assert needs.host == (1050 + _CONTEXT) * _MIB
    assert ", adapters 50 MiB, KV memory " in describe_needs(needs, _room(4000), _PLAN)


def test_needs_of_a_model_that_is_read_include_the_weights() -> None:
    needs = attrs.evolve(_NEEDS, is_mapped=False)

    assert needs.host_at_least == needs.host == (1000 + _CONTEXT) * _MIB


def test_needs_of_a_model_on_gpus_are_there() -> None:
    needs = _on_gpus(_gpu(0, weights=1000, cells=400, states=40, compute=7))

    assert needs.host == (_CONTEXT - 440) * _MIB
    assert needs.gpus[0].total == (1000 + 440 + 7) * _MIB


def test_needs_of_a_model_partly_on_gpus_are_shared_out() -> None:
    needs = _on_gpus(_gpu(0, weights=150, cells=100), _gpu(1, weights=100, states=10))

    assert needs.host == (750 + _CONTEXT - 110) * _MIB


def test_needs_of_weights_that_a_gpu_has_a_copy_of_stay_on_the_host() -> None:
    assert _on_gpus(_gpu(0, weights=250, copied=50)).host == (1000 - 200 + _CONTEXT) * _MIB


def test_needs_of_a_model_on_gpus_with_its_cells_on_the_host() -> None:
    assert _on_gpus(_gpu(0, weights=1000, compute=7)).host == _CONTEXT * _MIB


def test_announcement_says_every_part(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        announce_needs(_NEEDS, _room(3 * 1024), _PLAN)

    assert [record.message for record in caplog.records] == [
        "memory needed: weights 1000 MiB (mapped, in part copied for speed), KV memory 400 MiB"
        " (100 MiB for each of 4 slots), states 40 MiB (10 MiB for each of 4 slots), compute"
        " buffers 30 MiB, output rows 20 MiB, host cache up to 500 MiB; 3.0 GiB of host memory are"
        " available"
    ]


def test_announcement_of_a_unified_layout_counts_by_the_cell() -> None:
    plan: KvPlan = attrs.evolve(_PLAN, unified=True)

    assert "KV memory 400 MiB (100 KiB a cell)" in describe_needs(_NEEDS, _room(1), plan)


def test_announcement_of_large_tables_mentions_them() -> None:
    needs = attrs.evolve(_NEEDS, tables=100 * _MIB)

    assert "its tables 100 MiB" in describe_needs(needs, _room(1), _PLAN)


def test_announcement_of_gpus_says_what_each_needs() -> None:
    needs = _on_gpus(_gpu(0, weights=600, compute=7, n_layers=9), _gpu(1, cells=80, n_layers=2))

    assert (
        "; about this of it on GPUs: CUDA0 607 MiB (9 layers; 3.0 GiB free), CUDA1 80 MiB"
        " (2 layers; 100 MiB free); "
    ) in describe_needs(needs, _room(1, gpus=[3 * 1024, 100]), _PLAN)


@pytest.mark.parametrize(
    ("room", "expected"),
    [
        (4000, 1000),  # a quarter
        (1600, 1600 - 1000 - _CONTEXT),  # what the rest leaves
        (1400, 0),
        (100_000, 8 * 1024),
    ],
)
def test_host_cache_gets_a_share_that_the_rest_leaves_unless_a_limit_was_asked_for(
    room: int, expected: int, caplog: pytest.LogCaptureFixture
) -> None:
    needs = attrs.evolve(_NEEDS, cache=None)

    assert needs.cache_limit(_room(room)) == expected * _MIB
    assert _NEEDS.cache_limit(_room(room)) == 500 * _MIB
    announce_needs(needs, _room(room), _PLAN)
    assert "host cache" not in caplog.text, "no warning of a limit that nobody has set"


def test_announcement_says_what_the_default_has_come_to() -> None:
    needs = attrs.evolve(_NEEDS, cache=None)

    assert "host cache up to 109 MiB; " in describe_needs(needs, _room(1600), _PLAN)


@pytest.mark.parametrize(
    ("room", "expected"),
    [
        (_room(2000), []),
        (
            _room(1600),
            ["memory may run out when the host cache fills up: lower --cache-ram to 109MiB"],
        ),
        (
            _room(1400),
            [
                "memory may run out: about 1.5 GiB are needed and 1.4 GiB are available. Lower"
                f" {_LOWER}"
            ],
        ),
    ],
)
def test_announcement_warns_of_what_may_not_fit(
    room: Room, expected: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    announce_needs(_NEEDS, room, _PLAN)

    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.message for record in warnings] == expected


def test_announcement_warns_of_a_full_gpu(caplog: pytest.LogCaptureFixture) -> None:
    needs = _on_gpus(_gpu(0, weights=500), _gpu(1, weights=501))

    announce_needs(needs, _room(5000, gpus=[500, 500]), _PLAN)

    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [
        "GPU memory may run out: about 501 MiB are needed on CUDA1 and 500 MiB are free. Lower"
        f" --n-gpu-layers (auto: as many as fit), {_LOWER}"
    ]


def test_announcement_does_not_warn_of_a_gpu_that_does_not_tell_its_memory(
    caplog: pytest.LogCaptureFixture,
) -> None:
    needs = _on_gpus(_gpu(0, weights=500, n_layers=3))

    announce_needs(needs, _room(5000), _PLAN)

    assert "CUDA0 500 MiB (3 layers; nobody knows what is free)" in describe_needs(
        needs, _room(5000), _PLAN
    )
    assert caplog.messages == []


@pytest.mark.parametrize("at_most", [_CONTEXT, _CONTEXT + 1])
def test_announcement_of_what_may_fit_by_swapping_is_no_error(at_most: int) -> None:
    announce_needs(_NEEDS, _room(10, at_most=at_most), _PLAN)


def test_announcement_of_what_cannot_fit_is_an_error_that_names_the_options() -> None:
    with pytest.raises(StartError) as caught:
        announce_needs(_NEEDS, _room(10, at_most=_CONTEXT - 1), _PLAN)

    assert str(caught.value).startswith(
        "not enough memory: at least 491 MiB are needed (weights 1000 MiB (mapped"
    )
    assert str(caught.value).endswith(f"and 490 MiB can be had at most. Lower {_LOWER}")


def test_announcement_of_a_model_that_is_read_and_cannot_fit_names_the_switches() -> None:
    with pytest.raises(StartError, match=r"or map the file \(--use-mmap, no --use-mlock\)$"):
        announce_needs(attrs.evolve(_NEEDS, is_mapped=False), _room(10, at_most=1000), _PLAN)
