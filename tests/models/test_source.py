"""What ``--model-id`` may mean."""

from pathlib import Path

import pytest

from tgi_llama.errors import ConfigError
from tgi_llama.models.source import HubModel, LocalFolder, model_source


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Qwen/Qwen2.5-3B-Instruct", HubModel("Qwen/Qwen2.5-3B-Instruct", None)),
        ("org/name:Q4_K_M", HubModel("org/name", "Q4_K_M")),
        ("org/name:UD-Q4_K_XL", HubModel("org/name", "UD-Q4_K_XL")),
        ("gpt2", HubModel("gpt2", None)),
        ("gpt2:q8_0", HubModel("gpt2", "q8_0")),
        ("my model", None),
        ("a/b/c", None),
        ("org/", None),
        ("org/name:", None),
        ("org/name:a:b", None),
        ("org/na--me", None),
        ("org/na..me", None),
        ("org/-name", None),
        ("org/name.", None),
        ("naïve/name", None),
        ("", None),
        ("a\0b", None),
        (None, None),
    ],
)
def test_model_source_reads_names(text: str | None, expected: HubModel | None) -> None:
    assert model_source(text) == expected


def test_model_source_folder_wins_over_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    assert model_source("org/name") == LocalFolder(Path("org/name"))
    assert model_source("org/other") == HubModel("org/other", None)


@pytest.mark.parametrize("text", ["/no/such/folder", "./absent", "../absent", "~/absent"])
def test_model_source_path_to_nothing_raises(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--model-id: there is no folder"):
        model_source(text)


def test_model_source_file_raises(tmp_path: Path) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(b"GGUF")

    with pytest.raises(ConfigError, match="is a file; give it with --model-gguf"):
        model_source(str(file))
