"""The measured needs are what llama.cpp then takes, and nothing of the measuring stays."""

import logging
from pathlib import Path

import pytest
from fakes.native import Load, LoadTiny
from fakes.tiny_models import TINY_MODELS, write_tiny_model

from tgi_llama.config import Config
from tgi_llama.engine.kv_cache import KvPlan
from tgi_llama.errors import ConfigError, StartError
from tgi_llama.llama.backend import NativeLog
from tgi_llama.llama.context_params import kv_plan
from tgi_llama.llama.memory_log import read_figures
from tgi_llama.llama.memory_needs import measure_needs
from tgi_llama.llama.start_plan import plan_start


def _config(**options: object) -> Config:
    defaults = {"n_threads": 1, "max_batch_size": 4, "max_total_tokens": 512}
    return Config(**({"max_input_tokens": 256} | defaults | options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kv_layout": "unified"},
        {"type_k": "q8_0", "type_v": "q4_0"},
        {"max_batch_size": 1, "max_physical_batch_total_tokens": 32},
        {"flash_attention": False},
        {"use_mmap": False},
    ],
    ids=str,
)
def test_needs_are_what_is_then_reserved(
    load: Load, gguf: Path, native_log: NativeLog, options: dict[str, object]
) -> None:
    config = _config(**options)
    needs = measure_needs(gguf, config, kv_plan(config), native_log)

    with native_log.captured() as lines, load(**options) as loaded:
        taken = read_figures(lines)
        assert needs.weights == loaded.model.size_bytes
        assert needs.output == loaded.runner.max_outputs * loaded.vocab.n_vocab * 4
    assert needs.figures.cells == taken.cells > 0
    assert needs.figures.host_compute == taken.host_compute > 0


def test_measuring_logs_nothing_of_llama_cpps(
    gguf: Path, native_log: NativeLog, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        measure_needs(gguf, _config(), kv_plan(_config()), native_log)

    assert caplog.records == []


def test_damaged_file_is_told_in_llama_cpps_words(tmp_path: Path, native_log: NativeLog) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"GGUF" + bytes(100))

    with pytest.raises(ConfigError, match="failed to read"):
        measure_needs(damaged, _config(), kv_plan(_config()), native_log)


def test_file_without_a_vocabulary_is_told(
    gguf: Path, tmp_path: Path, native_log: NativeLog
) -> None:
    key = b"tokenizer.ggml.model" + (8).to_bytes(4, "little") + (4).to_bytes(8, "little")
    bare = tmp_path / "bare.gguf"
    bare.write_bytes(gguf.read_bytes().replace(key + b"gpt2", key + b"none"))

    with pytest.raises(ConfigError, match="the file has no vocabulary"):
        measure_needs(bare, _config(), kv_plan(_config()), native_log)


def test_type_that_llama_cpp_cannot_use_is_told(gguf: Path, native_log: NativeLog) -> None:
    config = _config(type_k="q2_k")

    with pytest.raises(ConfigError, match=r"--type-k: .* not q2_k"):
        measure_needs(gguf, config, kv_plan(config), native_log)


def test_cells_whose_tables_alone_do_not_fit_are_refused_unmeasured(
    gguf: Path, native_log: NativeLog
) -> None:
    plan = KvPlan(unified=True, n_sequences=1, n_slots=1, n_cells=2**60, cells_per_slot=2**60)

    with pytest.raises(StartError, match=r"not enough memory for .* Lower --max-batch-size"):
        plan_start(gguf, _config(), plan, native_log)


@pytest.mark.parametrize("content", [None, b"GGUF" + bytes(100)], ids=["model", "damaged"])
def test_host_cache_limit_is_what_was_asked_for_or_a_share(
    gguf: Path, tmp_path: Path, native_log: NativeLog, content: bytes | None
) -> None:
    file = gguf
    if content is not None:
        file = tmp_path / "damaged.gguf"
        file.write_bytes(content)

    def limit(**options: object) -> int:
        config = _config(**options)
        return plan_start(file, config, kv_plan(config), native_log).cache_ram_bytes

    assert limit(cache_ram=12345) == 12345
    assert limit(cache_ram=12345, prefix_cache=False) == limit(prefix_cache=False) == 0
    assert 0 < limit() <= 8 * 2**30


def test_captured_blocks_may_be_nested(gguf: Path, native_log: NativeLog) -> None:
    with native_log.captured() as outer:
        with native_log.captured() as inner:
            measure_needs(gguf, _config(), kv_plan(_config()), native_log)
        n_inner = len(inner)
        measure_needs(gguf, _config(), kv_plan(_config()), native_log)

    assert len(inner) == n_inner > 0
    assert len(outer) == 2 * n_inner


@pytest.mark.parametrize("name", TINY_MODELS)
@pytest.mark.parametrize("options", [{}, {"kv_layout": "unified"}, {"swa_full": True}], ids=str)
def test_needs_of_every_kind_of_memory_are_what_is_then_reserved(
    load_tiny: LoadTiny,
    tmp_path: Path,
    native_log: NativeLog,
    name: str,
    options: dict[str, object],
) -> None:
    config = _config(**options)
    needs = measure_needs(write_tiny_model(name, tmp_path), config, kv_plan(config), native_log)

    with native_log.captured() as lines, load_tiny(name, **options):
        taken = read_figures(lines)
    assert needs.figures.cells == taken.cells
    assert needs.figures.states == taken.states
    assert taken.cells + taken.states > 0
    assert needs.figures.host_compute == taken.host_compute > 0


@pytest.mark.parametrize(
    ("name", "n_slots"), [("llama", 8), ("gemma3", 8), ("mamba", 4), ("jamba", 4)]
)
def test_unified_layout_has_spare_slots_only_where_they_cost_nothing(
    load_tiny: LoadTiny, name: str, n_slots: int
) -> None:
    """A recurrent state is there for each slot, used or not."""
    with load_tiny(name, kv_layout="unified", max_batch_size=4) as loaded:
        assert (loaded.plan.n_sequences, loaded.plan.n_slots) == (4, n_slots)
        assert loaded.runner.n_slots == loaded.runner.description.n_slots == n_slots
