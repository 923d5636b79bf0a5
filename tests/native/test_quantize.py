"""llama.cpp's quantization, as a program."""

import subprocess
import sys
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


def _words_of_failure(source: Path, target: Path, name: str) -> str:
    """What the program says where it fails. In this process other tests may have taken llama.cpp's
    log over."""
    program = [sys.executable, "-m", "tgi_llama.llama.quantize", source, target, name, "1"]
    done = subprocess.run(program, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    return done.stderr


_TYPES = sorted(set(QUANTIZATIONS) - {"q3_k", "q4_k", "q5_k"})


@pytest.mark.parametrize("name", [name for name in _TYPES if _can_be_made(name)])
def test_each_type_is_made(weights: Path, tmp_path: Path, name: str) -> None:
    assert main([str(weights), str(tmp_path / "out.gguf"), name, "1"]) == 0


@pytest.mark.parametrize("name", [name for name in _TYPES if not _can_be_made(name)])
def test_refused_type_is_one_that_llama_cpp_refuses(
    weights: Path, tmp_path: Path, name: str
) -> None:
    """The list of types that need an importance matrix is llama.cpp's own."""
    said = _words_of_failure(weights, tmp_path / "out.gguf", name)

    assert "this quantization requires an imatrix" in said


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


def test_damaged_file_is_status_1_with_llama_cpps_reason(weights: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(weights.read_bytes()[:1000])

    said = _words_of_failure(damaged, tmp_path / "out.gguf", "q4_0")

    assert "failed to quantize: " in said
