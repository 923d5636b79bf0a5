"""Where the weights of a file go, by their names."""

from pathlib import Path

import pytest

from tgi_llama.llama.gguf_file import GgufFile, LayerWeights, Tensor, layer_weights, part_paths


def _file(**sizes: int) -> GgufFile:
    return GgufFile(
        metadata={"general.architecture": "llama", "llama.block_count": 2},
        lengths={},
        tensors=tuple(Tensor(f"{name}.weight", "f16", size, size) for name, size in sizes.items()),
        size_bytes=0,
        paths=(),
    )


def test_weights_of_layers_are_added_up() -> None:
    sizes = {"blk.0.attn_q": 1, "blk.1.attn_q": 2, "blk.1.ffn_up": 4, "blk.2.of_a_later_model": 64}
    output = {"output_norm": 8, "output": 16}

    found = layer_weights(_file(token_embd=32, **sizes, **output))

    assert found == LayerWeights((1, 6, 24), host=32 + 64)


def test_output_without_a_matrix_of_its_own_is_a_copy_of_the_input() -> None:
    found = layer_weights(_file(**{"token_embd": 32, "blk.0.x": 1, "output_norm": 8}))

    assert found == LayerWeights((1, 0, 40), host=32, copied=32)


def test_weights_of_a_file_that_says_no_layers_are_on_the_host() -> None:
    file = GgufFile(
        metadata={}, lengths={}, tensors=(Tensor("a", "f32", 4, 1),), size_bytes=4, paths=()
    )

    assert layer_weights(file) == LayerWeights((0,), host=4)
    assert file.architecture == "unknown"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("m.gguf", ["m.gguf"]),
        ("m-00002-of-00003.gguf", [f"m-0000{number}-of-00003.gguf" for number in (1, 2, 3)]),
        ("m-2-of-3.gguf", ["m-2-of-3.gguf"]),
    ],
)
def test_parts_are_named_as_llama_cpp_names_them(name: str, expected: list[str]) -> None:
    assert [path.name for path in part_paths(Path("/models") / name)] == expected
