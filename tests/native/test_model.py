"""Models that llama.cpp loads but would end the process on are refused."""

import os
from pathlib import Path

import pytest
from fakes.native import Load

from tgi_llama.errors import ConfigError, StartError
from tgi_llama.llama.model import check_generates, load_error


def test_model_without_a_vocabulary_is_refused(load: Load, gguf: Path, tmp_path: Path) -> None:
    key = b"tokenizer.ggml.model" + (8).to_bytes(4, "little") + (4).to_bytes(8, "little")
    data = gguf.read_bytes()
    assert data.count(key + b"gpt2") == 1
    bare = tmp_path / "bare.gguf"
    bare.write_bytes(data.replace(key + b"gpt2", key + b"none"))
    with pytest.raises(ConfigError, match=r"bare\.gguf: the file has no vocabulary"), load(bare):
        pass


def test_model_with_an_encoder_is_refused() -> None:
    with pytest.raises(ConfigError, match="encoder"):
        check_generates(has_encoder=True, has_vocabulary=True)


def test_load_that_ran_out_of_memory_is_not_the_files_fault() -> None:
    lines = [
        "alloc_buffer: allocating 9.00 MiB on device 0: cudaMalloc failed: out of memory",
        "llama_model_load: error loading model: unable to allocate CUDA0 buffer",
        "llama_model_load_from_file_impl: failed to load model",
    ]
    error = load_error(Path("m.gguf"), lines)

    assert isinstance(error, StartError)
    assert str(error).startswith(
        "not enough memory for the model m.gguf: allocating 9.00 MiB on device 0: cudaMalloc"
        " failed: out of memory. Lower --n-gpu-layers"
    )


def test_file_name_that_is_not_utf8_is_loaded(load: Load, gguf: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"\xff.gguf")
    odd.write_bytes(gguf.read_bytes())
    with load(odd) as loaded:
        assert loaded.vocab.n_vocab > 0
