"""``tgi-llama convert``, called as the command line calls it. The converter is a stand-in."""

import importlib.metadata
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.checkpoints import write_checkpoint, write_converter

from tgi_llama.cli import server_options
from tgi_llama.errors import ConfigError, StartError
from tgi_llama.models.convert_command import RELEVANT, run

COPY = "outfile.write_text(f'{outtype} {given.base}')"


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("tgi_llama")
    before = (root.level, root.handlers, own.level)
    yield
    logging.captureWarnings(capture=False)
    root.level, root.handlers, own.level = before


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CONVERTER", str(write_converter(tmp_path / "converter", COPY)))
    monkeypatch.delenv("QUANTIZE", raising=False)


def _run(*arguments: str | Path) -> int:
    return run(
        [str(argument) for argument in arguments],
        program="tgi-llama convert",
        options=server_options(RELEVANT),
    )


def test_path_of_the_file_is_all_that_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_checkpoint(tmp_path / "my-model")

    assert _run(folder, "--quantize", "F16") == 0

    printed, logged = capsys.readouterr()
    (file,) = (tmp_path / "cache").rglob("*.gguf")
    assert printed == f"{file}\n"
    assert file.parent.parent == tmp_path / "cache" / "my-model"
    assert file.name == "f16.gguf"
    assert f"converting {folder}" in logged


def test_second_run_prints_the_same_path_and_converts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_checkpoint(tmp_path / "my-model")
    _run(folder, "--quantize", "f16")
    first, _ = capsys.readouterr()

    assert _run(folder, "--quantize", "f16") == 0

    assert capsys.readouterr() == (first, "")


def test_output_is_written_where_it_is_wanted(tmp_path: Path) -> None:
    output = tmp_path / "new" / "m.gguf"

    assert _run(write_checkpoint(tmp_path / "m"), "--quantize", "bf16", "-o", output) == 0

    assert output.read_text() == "bf16 None"
    assert list(output.parent.iterdir()) == [output]


def test_output_that_exists_is_kept(tmp_path: Path) -> None:
    output = tmp_path / "m.gguf"
    output.write_text("precious")

    with pytest.raises(ConfigError, match=r"^--output: the file .* exists already"):
        _run(write_checkpoint(tmp_path / "m"), "--quantize", "f16", "-o", output)

    assert output.read_text() == "precious"


def test_adapter_is_converted_by_the_adapters_converter(tmp_path: Path) -> None:
    script = "convert_lora_to_gguf.py"
    write_converter(tmp_path / "converter", "outfile.write_text(given.base)", script=script)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    base = write_checkpoint(tmp_path / "base")

    assert _run(adapter, "--base", base, "-o", tmp_path / "a.gguf") == 0

    assert (tmp_path / "a.gguf").read_text() == str(base)


def test_get_converter_alone_prints_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    version = importlib.metadata.version("llama-cpp-python")
    folder = write_converter(tmp_path / "cache" / f"converter-{version}", COPY)

    assert _run("--get-converter") == 0

    assert capsys.readouterr().out == f"{folder}\n"


def test_nothing_to_do_is_told() -> None:
    with pytest.raises(ConfigError, match="give the folder of a model"):
        _run()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "there is no folder 'absent'"),
        (["m", "--quantize", "q9"], "'--quantize': 'q9' is not one of 'f32', "),
        (["m", "--quantize", "iq1_s"], "needs an importance matrix"),
        (["m", "--converter", "absent"], "--converter: there is no convert_hf_to_gguf.py"),
        (["m", "--odd"], "No such option"),
    ],
)
def test_wrong_argument_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "m")

    with pytest.raises(ConfigError, match=message):
        _run(*arguments)


def test_failing_converter_is_a_start_error(tmp_path: Path) -> None:
    write_converter(tmp_path / "converter", "raise ValueError('odd weights')")

    with pytest.raises(StartError, match=r"converting .*m failed: ValueError: odd weights"):
        _run(write_checkpoint(tmp_path / "m"))
