"""Values of the options on GPUs."""

import pytest

from tgi_llama.config import Config
from tgi_llama.errors import ConfigError

_GIB = 2**30


@pytest.mark.parametrize(
    ("given", "expected"),
    [("auto", "auto"), ("All", "all"), (-1, "all"), ("-1", "all"), (0, "0"), ("017", "17")],
)
def test_layers_have_one_spelling(given: str, expected: str) -> None:
    assert Config(n_gpu_layers=given).n_gpu_layers == expected


@pytest.mark.parametrize("given", ["-2", "many", "", "1.5", "9999999999"])
def test_layers_that_are_neither_a_number_nor_a_word_are_refused(given: str) -> None:
    with pytest.raises(ConfigError, match=r"^--n-gpu-layers: expected a number of layers"):
        Config(n_gpu_layers=given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, ()), ("3,1", (3, 1)), (" 0.5 / 1/0", (0.5, 1, 0)), ("7", (7,))],
)
def test_proportions_are_numbers(given: str | None, expected: tuple[float, ...]) -> None:
    assert Config(tensor_split=given).split_proportions == expected


@pytest.mark.parametrize("given", ["", "1,", "a,b", "-1,2", "1;2"])
def test_proportions_that_are_no_numbers_are_refused(given: str) -> None:
    with pytest.raises(ConfigError, match=r"^--tensor-split: expected a number for each GPU"):
        Config(tensor_split=given)


def test_proportions_of_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least one of the proportions must be above 0"):
        Config(tensor_split="0,0")


def test_proportions_beside_a_single_gpu_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"--tensor-split 1,1 .*--split-mode 1 names one"):
        Config(tensor_split="1,1", split_mode="1")
    assert Config(tensor_split="1,1", split_mode="row").split_mode == "row"


@pytest.mark.parametrize(
    ("given", "expected"), [(None, _GIB), ("2G", 2 * _GIB), ("0", 0), (12345, 12345)]
)
def test_margin_is_bytes(given: str | int | None, expected: int) -> None:
    assert Config(gpu_memory_margin=given).gpu_memory_margin == expected  # type: ignore[arg-type]


def test_margin_is_no_share_of_a_memory_that_is_not_known_yet() -> None:
    with pytest.raises(ConfigError, match=r"^--gpu-memory-margin: expected bytes .*'5%'"):
        Config(gpu_memory_margin="5%")  # type: ignore[arg-type]
