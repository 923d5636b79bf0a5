"""The options on GPUs against machines with and without GPUs."""

import logging

import pytest
from fakes.gpu_machine import gpu

from tgi_llama.config import Config
from tgi_llama.errors import ConfigError
from tgi_llama.llama.devices import Device, DeviceKind, usable_gpus
from tgi_llama.llama.gpu_options import check_gpu_options, gpus_in_use

_TWO = (gpu("CUDA0", splits_rows=True), gpu("CUDA1", splits_rows=True))
_CPU_BUILD = "this llama.cpp was built without GPU support (docs/gpu.md)"
_NO_GPU = "llama.cpp's CUDA backend finds no GPU (is there a driver? in a container: --gpus all)"


def _config(**options: object) -> Config:
    return Config(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "level", "expected"),
    [
        ({}, logging.INFO, []),
        ({"n_gpu_layers": "auto"}, logging.INFO, ["--n-gpu-layers auto: no layer, for {}"]),
        ({"n_gpu_layers": "9"}, logging.WARNING, ["--n-gpu-layers 9 has no effect: {}"]),
        (
            {"split_mode": "row", "tensor_split": "3,1"},
            logging.WARNING,
            ["--split-mode row has no effect: {}", "--tensor-split 3,1 has no effect: {}"],
        ),
        ({"split_mode": "1"}, logging.WARNING, ["--split-mode 1 has no effect: {}"]),
        (
            {"gpu_memory_margin": "2G"},
            logging.WARNING,
            ["--gpu-memory-margin 2048MiB has no effect: {}"],
        ),
        ({"offload_kqv": False}, logging.WARNING, ["--disable-offload-kqv has no effect: {}"]),
    ],
)
@pytest.mark.parametrize(
    ("backends", "reason"),
    [(("CPU",), _CPU_BUILD), (("RPC", "CPU", "BLAS"), _CPU_BUILD), (("CUDA", "CPU"), _NO_GPU)],
)
def test_options_without_a_gpu_are_said_to_have_no_effect(
    options: dict[str, object],
    level: int,
    expected: list[str],
    backends: tuple[str, ...],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO):
        check_gpu_options(_config(**options), (), backends)

    assert caplog.messages == [text.format(reason) for text in expected]
    assert {record.levelno for record in caplog.records} <= {level}


@pytest.mark.parametrize(
    ("backends", "reason"), [(("CPU",), _CPU_BUILD), (("CPU", "CUDA"), _NO_GPU)]
)
@pytest.mark.parametrize("spelling", ["all", "-1"])
def test_all_layers_without_a_gpu_are_an_error(
    backends: tuple[str, ...], reason: str, spelling: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_gpu_options(_config(n_gpu_layers=spelling), (), backends)

    assert str(caught.value) == f"--n-gpu-layers all: {reason}"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"split_mode": "2"},
            "--split-mode 2: GPUs are counted from 0, and there are 2: CUDA0 (card CUDA0), CUDA1"
            " (card CUDA1)",
        ),
        (
            {"tensor_split": "3,1,1"},
            "--tensor-split 3,1,1: expected a number for each GPU, and there are 2: CUDA0 (card"
            " CUDA0), CUDA1 (card CUDA1)",
        ),
        (
            {"tensor_split": "1"},
            "--tensor-split 1: expected a number for each GPU, and there are 2: CUDA0 (card"
            " CUDA0), CUDA1 (card CUDA1)",
        ),
    ],
)
@pytest.mark.parametrize("layers", ["0", "5", "auto"])
def test_split_over_gpus_that_are_not_there_is_an_error(
    options: dict[str, str], expected: str, layers: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_gpu_options(_config(n_gpu_layers=layers, **options), _TWO, ("CUDA", "CPU"))

    assert str(caught.value) == expected


def test_second_of_one_gpu_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"there is one: CUDA0 \(card CUDA0\)$"):
        check_gpu_options(_config(split_mode="1"), _TWO[:1], ("CUDA", "CPU"))


def test_rows_that_a_backend_cannot_split_are_an_error() -> None:
    gpus = (gpu("Vulkan0", backend="Vulkan"), *_TWO)

    with pytest.raises(ConfigError, match="backend of Vulkan0 cannot split rows; use layer"):
        check_gpu_options(_config(split_mode="row"), gpus, ("CUDA", "Vulkan", "CPU"))
    check_gpu_options(_config(split_mode="row"), _TWO, ("CUDA", "CPU"))


def test_gpu_that_is_not_used_is_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        check_gpu_options(_config(tensor_split="1,1"), _TWO, ("CUDA", "CPU"))

    assert caplog.messages == [
        "--tensor-split 1,1 has no effect with --n-gpu-layers 0",
        "the model stays in host memory; --n-gpu-layers auto would use CUDA0 (card CUDA0), CUDA1"
        " (card CUDA1)",
    ]


@pytest.mark.parametrize("layers", ["3", "all"])
def test_margin_without_auto_is_said_to_have_no_effect(
    layers: str, caplog: pytest.LogCaptureFixture
) -> None:
    check_gpu_options(_config(n_gpu_layers=layers, gpu_memory_margin="2G"), _TWO, ("CUDA", "CPU"))

    assert caplog.messages == [
        "--gpu-memory-margin 2048MiB has no effect without --n-gpu-layers auto"
    ]


@pytest.mark.parametrize("layers", ["1", "all", "auto"])
def test_gpu_that_is_used_is_not_mentioned(layers: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        check_gpu_options(_config(n_gpu_layers=layers, tensor_split="3,1"), _TWO, ("CUDA", "CPU"))

    assert caplog.messages == []


def test_gpus_in_use_are_all_or_the_one_that_was_named() -> None:
    assert gpus_in_use(_config(), _TWO) == _TWO
    assert gpus_in_use(_config(split_mode="row"), _TWO) == _TWO
    assert gpus_in_use(_config(split_mode="1"), _TWO) == _TWO[1:]
    assert gpus_in_use(_config(split_mode="1"), ()) == ()


# Which devices llama.cpp uses


def _names(*found: Device) -> list[str]:
    return [each.name for each in usable_gpus(found)]


def test_usable_gpus_are_no_cpus_and_no_libraries_for_them() -> None:
    cpu = gpu("CPU", kind=DeviceKind.CPU)
    blas = gpu("BLAS", kind=DeviceKind.ACCELERATOR)

    assert _names(cpu, blas, *_TWO) == ["CUDA0", "CUDA1"]
    assert _names(cpu, blas) == []


def test_usable_gpu_that_two_backends_know_counts_once() -> None:
    cuda = gpu("CUDA0", device_id="0000:c1:00.0")
    vulkan = gpu("Vulkan0", backend="Vulkan", device_id="0000:c1:00.0")

    assert _names(cuda, vulkan) == ["CUDA0"]
    assert _names(*_TWO) == ["CUDA0", "CUDA1"], "without an address they are not the same"


def test_usable_integrated_gpus_count_where_there_are_no_others() -> None:
    integrated = [
        gpu(name, backend=backend, kind=DeviceKind.INTEGRATED_GPU)
        for name, backend in (("Vulkan0", "Vulkan"), ("SYCL0", "SYCL"), ("Vulkan1", "Vulkan"))
    ]

    assert _names(*integrated) == ["Vulkan0", "Vulkan1"]
    assert _names(integrated[0], _TWO[0]) == ["CUDA0"]


def test_usable_remote_gpus_come_first_and_leave_integrated_ones_in() -> None:
    remote = gpu("RPC0", backend="RPC")
    integrated = gpu("Vulkan0", backend="Vulkan", kind=DeviceKind.INTEGRATED_GPU)

    assert _names(*_TWO, remote) == ["RPC0", "CUDA0", "CUDA1"]
    assert _names(integrated, remote) == ["RPC0", "Vulkan0"]
