"""``tgi-llama inspect`` on files of all kinds, as its users run it."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from fakes.gpu import FakeGpu, fake_gpus
from fakes.tiny_models import write_tiny_model

import tgi_llama.builtin
from tgi_llama import cli
from tgi_llama.config import Config
from tgi_llama.inspection.command import RELEVANT
from tgi_llama.llama.backend import start_backend
from tgi_llama.llama.memory_needs import size_text

_BUILTIN = Path(tgi_llama.builtin.__file__).parent / "model" / "model.gguf"
_PIRATE = Path(tgi_llama.builtin.__file__).parent / "adapters" / "pirate.gguf"
_OPTIONS = ("--n-threads", "1", "--max-batch-size", "2", "--max-total-tokens", "2048")
_MIB = 2**20


def _never(_: Config) -> None:
    raise AssertionError("nothing is served")


Inspect = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def inspect(capsys: pytest.CaptureFixture[str]) -> Inspect:
    """Status, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        status = cli.run(["inspect", *map(str, arguments)], serve=_never)
        out, err = capsys.readouterr()
        return status, out, err

    return run


def _fields(out: str) -> dict[str, str]:
    """The report's lines by their labels."""
    rows = (line.split("  ", 1) for line in out.splitlines() if line.strip())
    return {label: text.strip() for label, text in rows}


def _object(out: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(out)
    return found


def test_model_is_described(inspect: Inspect) -> None:
    status, out, err = inspect(_BUILTIN, *_OPTIONS)

    fields = _fields(out)
    assert (status, err) == (0, "")
    assert fields["file"] == f"{_BUILTIN} (3.2 MiB)"
    assert fields["architecture"] == "llama, 6 layers, 3.0 M parameters"
    assert fields["quantization"] == "Q8_0, 8.52 bits a weight (q8_0 99.7%, f32 0.3%)"
    assert fields["context"] == "4096 tokens trained"
    assert fields["vocabulary"] == "BPE, 2048 tokens"
    assert fields["special tokens"] == (
        "BOS <|endoftext|> (0), EOS <|im_end|> (2), EOT <|im_end|> (2)"
    )
    assert fields["chat template"] == "default; compiles; tool calls as hermes"
    assert fields["served with"] == "2 sequences, 4096 cells (streams)"
    assert fields["weights"] == "3.1 MiB (mapped)"
    assert fields["KV memory"] == "9.0 MiB (2.2 KiB a cell)"
    assert fields["verdict"] == "fits"


def test_model_is_described_for_scripts(inspect: Inspect) -> None:
    status, out, _ = inspect(_BUILTIN, "--json", *_OPTIONS, "--type-k", "q8-0")

    found = _object(out)
    assert status == 0
    assert found["files"] == [str(_BUILTIN)]
    assert found["special_tokens"]["eos"] == {"id": 2, "text": "<|im_end|>"}
    assert found["chat_template"] == {"names": ["default"], "error": None, "tool_format": "hermes"}
    serving = found["serving"]
    assert (serving["n_gpu_layers"], serving["n_layers"], serving["gpus"]) == (0, 7, [])
    assert serving["fits"]
    f16_half, q8_0_half = 9 * _MIB // 2, 9 * _MIB // 2 * 34 // 64
    assert serving["kv_bytes"] == pytest.approx(f16_half + q8_0_half, rel=0.01)


def test_options_are_read_from_the_environment(
    inspect: Inspect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAX_BATCH_SIZE", "3")

    _, out, _ = inspect(_BUILTIN, "--max-total-tokens", "2048", "--kv-layout", "unified")

    assert _fields(out)["served with"] == "3 sequences, 6144 cells (unified)"


def test_relevant_options_exist() -> None:
    assert set(Config.__annotations__) | set(vars(Config())) >= RELEVANT


def test_states_are_told(inspect: Inspect, tmp_path: Path) -> None:
    _, out, _ = inspect(write_tiny_model("jamba", tmp_path), *_OPTIONS)

    assert _fields(out)["states"].endswith(" KiB")


def test_gpus_are_told(inspect: Inspect) -> None:
    start_backend("disabled")
    cards = [FakeGpu("Fake0", 100 * _MIB), FakeGpu("Fake1", 50 * _MIB)]
    arguments = (_BUILTIN, *_OPTIONS, "--n-gpu-layers", "auto", "--gpu-memory-margin", "10MiB")
    with fake_gpus(cards):
        status, out, _ = inspect(*arguments)
        _, as_json, _ = inspect(*arguments, "--json")

    fields = _fields(out)
    assert status == 0
    assert fields["GPU layers"] == "7 of 7"
    assert " of 100 MiB free: 5 layers 2.2 MiB, KV memory 7.5 MiB, " in fields["Fake0"]
    assert " of 50 MiB free: 2 layers " in fields["Fake1"]
    first, second = _object(as_json)["serving"]["gpus"]
    assert (first["n_layers"], second["n_layers"]) == (5, 2)
    assert second["free_bytes"] == 50 * _MIB


def test_adapters_are_counted(inspect: Inspect) -> None:
    start_backend("disabled")
    entries = ("--lora-adapters", f"a={_PIRATE},b={_PIRATE}:0.5")
    with fake_gpus([FakeGpu("Fake0", 100 * _MIB)]):
        _, out, _ = inspect(_BUILTIN, *_OPTIONS, *entries, "--n-gpu-layers", "all")
        _, as_json, _ = inspect(_BUILTIN, *_OPTIONS, *entries, "--json")
    _, without, _ = inspect(_BUILTIN, *_OPTIONS, "--json")

    fields, serving = _fields(out), _object(as_json)["serving"]
    n_bytes = serving["adapter_bytes"]
    assert 0.8 < n_bytes / (2 * _PIRATE.stat().st_size) < 1.0
    assert fields["adapters"] == size_text(n_bytes)
    assert f"adapters {size_text(n_bytes)}" in fields["Fake0"]
    assert _object(without)["serving"]["adapter_bytes"] == 0
    n_before = _object(without)["serving"]["host_bytes_at_least"]
    assert serving["host_bytes_at_least"] == n_before + n_bytes


def test_adapter_that_is_not_there_is_one_line(inspect: Inspect) -> None:
    status, out, err = inspect(_BUILTIN, *_OPTIONS, "--lora-adapters", "a=/none.gguf")

    assert (status, out) == (2, "")
    assert err.startswith("tgi-llama: error: --lora-adapters a=/none.gguf: cannot read the file")


def test_gpu_that_is_too_small_is_the_verdict(inspect: Inspect) -> None:
    start_backend("disabled")
    with fake_gpus([FakeGpu("Fake0", _MIB)]):
        _, out, _ = inspect(_BUILTIN, *_OPTIONS, "--n-gpu-layers", "3")

    assert _fields(out)["verdict"] == "does not fit on Fake0: lower --n-gpu-layers"


def test_split_file_is_one_model_whichever_part_is_named(inspect: Inspect, tmp_path: Path) -> None:
    whole = write_tiny_model("llama", tmp_path)
    parts = _split(whole, tmp_path / "parts")

    found, by_last, one = (
        _object(inspect(path, "--json", *_OPTIONS)[1]) for path in (parts[0], parts[-1], whole)
    )

    assert {**found, "serving": None} == {**by_last, "serving": None}
    assert found["files"] == [str(part) for part in parts]
    assert found["size_bytes"] == sum(part.stat().st_size for part in parts)
    for key in ("n_parameters", "tensor_types", "problem"):
        assert found[key] == one[key]
    assert found["serving"]["weights_bytes"] == one["serving"]["weights_bytes"]


def test_split_file_with_a_missing_part_is_one_line(inspect: Inspect, tmp_path: Path) -> None:
    parts = _split(write_tiny_model("llama", tmp_path), tmp_path / "parts")
    parts[1].unlink()

    status, out, err = inspect(parts[0])

    assert (status, out) == (2, "")
    assert err == (f"tgi-llama: error: llama.cpp cannot read {parts[1]}: there is no such file\n")


def _split(whole: Path, folder: Path) -> list[Path]:
    """The model in parts of a few tensors each, as llama-gguf-split names them."""
    folder.mkdir()
    reader = gguf.GGUFReader(whole)
    architecture = bytes(reader.fields["general.architecture"].parts[-1]).decode()
    writer = gguf.GGUFWriter(folder / "m.gguf", architecture, split_max_tensors=20)
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            kind = field.types[0]
            inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), kind, sub_type=inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.iterdir())


def test_adapter_is_described(inspect: Inspect, tmp_path: Path) -> None:
    path = tmp_path / "adapter.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 16.0)
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, "Base 7B")
    for half in ("lora_a", "lora_b"):
        writer.add_tensor(f"blk.0.attn_q.weight.{half}", np.zeros((4, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    status, out, err = inspect(path)

    fields = _fields(out)
    assert (status, err) == (0, "")
    assert fields["type"] == "adapter"
    assert fields["base model"] == "Base 7B"
    assert fields["adapter"] == "LoRA of 1 matrices, alpha 16"
    assert fields["served"] == "no: only together with its base model (--lora-adapters)"


def test_model_without_a_template_is_told(inspect: Inspect, tmp_path: Path) -> None:
    path = tmp_path / "bare.gguf"
    path.write_bytes(_BUILTIN.read_bytes().replace(b"tokenizer.chat_template", b"x" * 23))

    _, out, _ = inspect(path, *_OPTIONS)

    assert _fields(out)["chat template"] == "none in the file"


def test_template_that_does_not_compile_is_told(inspect: Inspect, tmp_path: Path) -> None:
    content = _BUILTIN.read_bytes()
    start = content.index(b"{%", content.index(b"tokenizer.chat_template"))
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(content[:start] + b"{{" + content[start + 2 :])

    status, out, _ = inspect(broken, *_OPTIONS)

    assert status == 0
    assert _fields(out)["chat template"].startswith("default: the GGUF's chat template")


def test_model_that_llama_cpp_does_not_know_is_told(inspect: Inspect, tmp_path: Path) -> None:
    strange = tmp_path / "strange.gguf"
    strange.write_bytes(_BUILTIN.read_bytes().replace(b"llama", b"zebra"))

    status, out, _ = inspect(strange, *_OPTIONS)
    _, as_json, _ = inspect(strange, "--json", *_OPTIONS)

    assert status == 1
    assert _fields(out)["served"] == "no: unknown model architecture: 'zebra'"
    assert _object(as_json)["serving"] is None


def test_file_without_tensors_is_told(inspect: Inspect, tmp_path: Path) -> None:
    path = tmp_path / "empty.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()

    status, out, _ = inspect(path)

    assert status == 1
    assert "quantization" not in _fields(out)
    assert _fields(out)["served"].startswith("no: ")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "FILE: expected a GGUF file, but {!r} is empty"),
        (b"hello", "FILE: expected a GGUF file, but {!r} does not start with the letters GGUF"),
        (_BUILTIN.read_bytes()[:5000], "llama.cpp cannot read {}: failed to read key-value pairs"),
    ],
    ids=["empty", "text", "cut off"],
)
def test_file_that_is_no_gguf_is_one_line(
    inspect: Inspect, tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)

    told = reason.format(str(path))
    assert inspect(path) == (2, "", f"tgi-llama: error: {told}\n")


def test_pipe_is_refused_and_not_waited_for(inspect: Inspect, tmp_path: Path) -> None:
    pipe = tmp_path / "model.gguf"
    os.mkfifo(pipe)
    status, _, err = inspect(pipe)
    assert status == 2
    assert err.endswith("is not a regular file\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'FILE'."),
        (["nothing.gguf"], "Invalid value for 'FILE': File 'nothing.gguf' does not exist."),
        ([_BUILTIN, "--port", "1"], "No such option '--port'."),
        ([_BUILTIN, "--n-gpu-layers", "all"], "--n-gpu-layers all: this llama.cpp was built"),
        ([_BUILTIN, "--type-v", "q4_0", "--disable-flash-attention"], "--type-v q4_0 needs flash"),
    ],
    ids=lambda value: str(value)[-40:],
)
def test_wrong_arguments_are_one_line(
    inspect: Inspect, arguments: list[object], message: str
) -> None:
    status, out, err = inspect(*arguments)

    assert (status, out) == (2, "")
    assert err.startswith(f"tgi-llama: error: {message}")
    assert err.count("\n") == 1


def test_help_lists_the_options_that_count(inspect: Inspect) -> None:
    status, out, _ = inspect("--help")

    assert status == 0
    assert "--n-gpu-layers <layers>" in out
    assert "--port" not in out
