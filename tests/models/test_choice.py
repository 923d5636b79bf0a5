"""Which GGUF file is the model, by names and sizes alone."""

import pytest

from tgi_llama.errors import ConfigError
from tgi_llama.models.choice import (
    by_default,
    by_pattern,
    by_quantization,
    gguf_models,
    is_model,
    split_name,
)
from tgi_llama.models.listing import ListedFile

WHERE = "'org/name'"

# As names are written on the hub.
REPOSITORY = [
    ListedFile("README.md", 100),
    ListedFile("mmproj-F16.gguf", 900_000_000),
    ListedFile("model-BF16.gguf", 6_000_000_000),
    ListedFile("model-F16.gguf", 6_100_000_000),
    ListedFile("model-IQ4_K_M.gguf", 1_900_000_000),
    ListedFile("model-Q4_K_M.gguf", 2_100_000_000),
    ListedFile("model-UD-Q2_K_XL.gguf", 1_300_000_000),
    ListedFile("model.imatrix.gguf", 5_000_000),
    ListedFile("Q8_0/model-Q8_0-00001-of-00002.gguf", 3_000_000_000),
    ListedFile("Q8_0/model-Q8_0-00002-of-00002.gguf", 200_000_000),
]
Q8 = ("Q8_0/model-Q8_0-00001-of-00002.gguf", "Q8_0/model-Q8_0-00002-of-00002.gguf")


def _files(*names: str) -> list[ListedFile]:
    return [ListedFile(name, 1) for name in names]


def test_split_name_reads_the_parts() -> None:
    split = split_name("Q8_0/a-00002-of-00003.gguf")

    assert split is not None
    assert (split.prefix, split.index, split.count) == ("Q8_0/a", 2, 3)
    assert split.parts == tuple(f"Q8_0/a-0000{i}-of-00003.gguf" for i in (1, 2, 3))


@pytest.mark.parametrize("name", ["a.gguf", "a-1-of-3.gguf", "a-00001-of-00003.bin", "-of-.gguf"])
def test_split_name_of_a_whole_file_is_none(name: str) -> None:
    assert split_name(name) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.gguf", True),
        ("sub/A.GGUF", True),
        ("a.safetensors", False),
        ("mmproj-a-F16.gguf", False),
        ("a-mmproj.gguf", False),
        ("mmproj/a.gguf", True),
        ("imatrix_unsloth.gguf", False),
        ("a.imatrix", False),
        ("mtp-a.gguf", False),
    ],
)
def test_is_model(name: str, expected: bool) -> None:
    assert is_model(name) is expected


def test_gguf_models_puts_the_parts_of_one_together() -> None:
    models = gguf_models(REPOSITORY)

    assert [model.tag for model in models] == [
        "Q8_0",
        "BF16",
        "F16",
        "IQ4_K_M",
        "Q4_K_M",
        "Q2_K_XL",
    ]
    assert models[0].names == Q8
    assert models[0].size == 3_200_000_000


# By default


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["weights.gguf"], "weights.gguf"),
        (["a.gguf", "model.gguf"], "model.gguf"),
        (["a.gguf", "mmproj-a.gguf"], "a.gguf"),
        (["a-00002-of-00002.gguf", "a-00001-of-00002.gguf"], "a-00001-of-00002.gguf"),
    ],
)
def test_by_default_takes_the_only_one(names: list[str], chosen: str) -> None:
    assert by_default(gguf_models(_files(*names)), WHERE).names[0] == chosen


def test_by_default_several_are_listed_with_their_sizes() -> None:
    with pytest.raises(ConfigError) as caught:
        by_default(gguf_models(REPOSITORY), WHERE)

    assert str(caught.value) == (
        "--model-id: 'org/name' has several GGUF files: Q8_0/model-Q8_0-00001-of-00002.gguf"
        " (3.2 GB), model-BF16.gguf (6.0 GB), model-F16.gguf (6.1 GB), model-IQ4_K_M.gguf (1.9 GB),"
        " model-Q4_K_M.gguf (2.1 GB), model-UD-Q2_K_XL.gguf (1.3 GB); choose one with --model-gguf"
        " NAME, or of a hub model with --model-id owner/name:QUANTIZATION"
    )


def test_by_default_very_many_are_counted() -> None:
    models = gguf_models(_files(*(f"{i:03d}.gguf" for i in range(100))))

    with pytest.raises(ConfigError, match=r"029\.gguf \(1 bytes\), and 70 more; choose"):
        by_default(models, WHERE)


def test_missing_part_is_named() -> None:
    models = gguf_models(_files("a-00001-of-00003.gguf", "a-00003-of-00003.gguf"))

    with pytest.raises(ConfigError) as caught:
        by_default(models, WHERE)
    assert str(caught.value) == (
        "--model-id: 'org/name' lacks 'a-00002-of-00003.gguf', one of the 3 parts of the model"
    )


# By quantization


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ("Q8_0", Q8[0]),
        ("q8_0", Q8[0]),
        ("F16", "model-F16.gguf"),  # not BF16, which ends with it
        ("bf16", "model-BF16.gguf"),
        ("Q4_K_M", "model-Q4_K_M.gguf"),
        ("IQ4_K_M", "model-IQ4_K_M.gguf"),
        ("UD-Q2_K_XL", "model-UD-Q2_K_XL.gguf"),
        ("Q2_K_XL", "model-UD-Q2_K_XL.gguf"),
    ],
)
def test_by_quantization_finds_it(wanted: str, chosen: str) -> None:
    assert by_quantization(gguf_models(REPOSITORY), wanted, WHERE).names[0] == chosen


def test_by_quantization_takes_a_folder_for_it() -> None:
    models = gguf_models(_files("Q4-x/a.gguf", "Q5-x/a.gguf"))

    assert by_quantization(models, "q4", WHERE).names[0] == "Q4-x/a.gguf"


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["F16-old/a-0000{}-of-00002.gguf", "F16/a-0000{}-of-00002.gguf"], 1),
        (["a-f16.gguf", "a-f16-v2.gguf"], 0),
    ],
)
def test_by_quantization_of_several_that_of_just_this_name_counts(
    names: list[str], chosen: int
) -> None:
    files = _files(*(name.format(i) for name in names for i in ((1, 2) if "{}" in name else (1,))))

    found = by_quantization(gguf_models(files), "f16", WHERE)

    assert found.names[0] == names[chosen].format(1)


@pytest.mark.parametrize("wanted", ["F16", "Q4_XS"])
def test_by_quantization_end_of_another_is_none(wanted: str) -> None:
    with pytest.raises(ConfigError, match="has no GGUF file of the quantization"):
        by_quantization(gguf_models(_files("a-BF16.gguf", "a-IQ4_XS.gguf")), wanted, WHERE)


def test_by_quantization_is_no_regular_expression() -> None:
    with pytest.raises(ConfigError, match="has no GGUF file of the quantization"):
        by_quantization(gguf_models(REPOSITORY), "Q._0", WHERE)


def test_by_quantization_unknown_lists_what_there_is() -> None:
    with pytest.raises(ConfigError) as caught:
        by_quantization(gguf_models(_files("a-Q8_0.gguf")), "Q3_K", WHERE)

    assert str(caught.value) == (
        "--model-id: 'org/name' has no GGUF file of the quantization 'Q3_K': a-Q8_0.gguf (1 bytes)"
    )


def test_by_quantization_twice_is_ambiguous() -> None:
    models = gguf_models(_files("a-Q4_0.gguf", "b-Q4_0.gguf"))

    with pytest.raises(ConfigError, match="has several GGUF files: a-Q4_0"):
        by_quantization(models, "Q4_0", WHERE)


# By name or pattern


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ("model-F16.gguf", "model-F16.gguf"),
        (Q8[0], Q8[0]),
        (Q8[1], Q8[0]),  # any part stands for all
        ("model-Q8_0-00002-of-00002.gguf", Q8[0]),
        ("*-q4_k_m.gguf", None),  # the IQ4 one ends so too, but for the dash
        ("*q8_0*", Q8[0]),
        ("Q8_0/*", Q8[0]),
        ("model-[bB]F16.gguf", "model-BF16.gguf"),
    ],
)
def test_by_pattern_finds_it(wanted: str, chosen: str | None) -> None:
    found = by_pattern(REPOSITORY, wanted, WHERE).names[0]
    assert found == (chosen or "model-Q4_K_M.gguf")


def test_by_pattern_of_several_is_ambiguous() -> None:
    with pytest.raises(ConfigError) as caught:
        by_pattern(REPOSITORY, "*f16.gguf", WHERE)

    assert str(caught.value).startswith(
        "--model-gguf: 'org/name' has several GGUF files: model-BF16.gguf (6.0 GB),"
        " model-F16.gguf (6.1 GB); choose one"
    )


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ("c.gguf", "there is no file 'c.gguf' on this machine, and 'org/name' has no GGUF file"),
        ("*q3*", "there is no file '*q3*' on this machine, and 'org/name' has no GGUF file that"),
        ("mmproj-F16.gguf", "'mmproj-F16.gguf' in 'org/name' is not a model: "),
        ("README.md", "'README.md' in 'org/name' is not a GGUF file: "),
    ],
)
def test_by_pattern_unknown_lists_what_there_is(wanted: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        by_pattern(REPOSITORY, wanted, WHERE)

    assert str(caught.value).startswith(f"--model-gguf: {reason}")
    assert "model-Q4_K_M.gguf (2.1 GB)" in str(caught.value)
