"""llama.cpp's quantization, as a program."""

from pathlib import Path

import pytest
from fakes.weights import types_of, write_weights

from tgi_llama.errors import ConfigError
from tgi_llama.llama.quantize import file_type, main
from tgi_llama.options.quantization import QUANTIZATIONS, quantization


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights") / "f32.gguf")


def _can_be_made(name: str) -> bool:
    try:
        return bool(quantization(name))
    except ConfigError:
        return False


@pytest.mark.parametrize("name", sorted(set(QUANTIZATIONS) - {"q3_k", "q4_k", "q5_k"}))
def test_each_type_is_made_or_refused_as_llama_cpp_does(
    weights: Path, tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The list of types that need an importance matrix is llama.cpp's own."""
    status = main([str(weights), str(tmp_path / "out.gguf"), name, "1"])

    assert status == (0 if _can_be_made(name) else 1)
    said = capfd.readouterr().err
    assert ("this quantization requires an imatrix" in said) is not _can_be_made(name)


def test_q4_0_quantizes_the_output_tensor_too(weights: Path, tmp_path: Path) -> None:
    target = tmp_path / "q4_0.gguf"

    assert main([str(weights), str(target), "q4_0", "2"]) == 0

    assert types_of(target) == {
        "token_embd.weight": "Q4_0",
        "output.weight": "Q6_K",
        "blk.0.attn_q.weight": "Q4_0",
        "blk.0.attn_k.weight": "Q4_0",
        "blk.0.ffn_down.weight": "Q4_0",
    }


@pytest.mark.parametrize("name", ["q3_k", "q4_k", "q5_k"])
def test_aliases_are_the_middle_ones(name: str) -> None:
    assert quantization(name) == f"{name}_m"


def test_dashes_and_capitals_are_as_good() -> None:
    assert quantization("Q4-K-M") == "q4_k_m"


def test_unknown_type_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"--quantize: expected one of f32, f16, .*got 'q9_0'"):
        quantization("q9_0")
    with pytest.raises(KeyError):
        file_type("q9_0")


def test_damaged_file_is_status_1_with_llama_cpps_reason(
    weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(weights.read_bytes()[:1000])

    assert main([str(damaged), str(tmp_path / "out.gguf"), "q4_0", "1"]) == 1

    assert "failed to quantize: " in capfd.readouterr().err
