"""What would make llama.cpp abort the process is an exception here, and every option arrives."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fakes.native import Load, Loaded

from tgi_llama.config import Config
from tgi_llama.engine.model_runner import Batch, Logits, Run, SlotId
from tgi_llama.errors import (
    ConfigError,
    DecodeAborted,
    InvalidBatch,
    OutOfCells,
    StartError,
)
from tgi_llama.llama.backend import STRUCT_SIZES, NativeLog, check_version, installed
from tgi_llama.llama.model import Model


@pytest.fixture(scope="module")
def streams(load: Load) -> Iterator[Loaded]:
    with load(kv_layout="streams", max_physical_batch_total_tokens=64) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def unified(load: Load) -> Iterator[Loaded]:
    with load(kv_layout="unified") as loaded:
        yield loaded


@pytest.fixture(autouse=True)
def _clean(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    for name in ("streams", "unified"):
        if name in request.fixturenames:
            loaded: Loaded = request.getfixturevalue(name)
            for slot in range(loaded.plan.n_slots):
                loaded.runner.clear(SlotId(slot))


def batch(tokens: list[int], *runs: Run) -> Batch:
    return Batch(np.array(tokens, dtype=np.int32), runs)


def run(slot: int, start: int, n_tokens: int) -> Run:
    return Run(SlotId(slot), start, n_tokens, n_outputs=min(1, n_tokens))


def logits_after(loaded: Loaded, tokens: list[int], *, slot: int = 0, start: int = 0) -> Logits:
    loaded.runner.decode(batch(tokens, run(slot, start, len(tokens))))
    return loaded.runner.logits(len(tokens) - 1).copy()


BAD_BATCHES = {
    "empty": (batch([]), "0 tokens"),
    "more tokens than a batch holds": (batch([5] * 65, run(0, 0, 65)), "65 tokens"),
    "negative token": (batch([-1], run(0, 0, 1)), "refused"),
    "token beyond the vocabulary": (batch([10**6], run(0, 0, 1)), "refused"),
    "negative slot": (batch([5], run(-1, 0, 1)), "slot -1"),
    "slot beyond the last": (batch([5], run(4, 0, 1)), "slot 4"),
    "slot given twice": (batch([5, 5], run(0, 0, 1), run(0, 1, 1)), "twice"),
    "gap before the first position": (batch([5], run(0, 1, 1)), "goes on at 0"),
    "run without tokens": (batch([5], run(0, 0, 0), run(1, 0, 1)), "0 tokens"),
    "runs longer than the tokens": (batch([5], run(0, 0, 2)), "add up"),
}


@pytest.mark.parametrize("name", BAD_BATCHES)
def test_decode_bad_batch_is_refused_and_harms_nothing(streams: Loaded, name: str) -> None:
    expected = logits_after(streams, [5, 6, 7])
    streams.runner.clear(SlotId(0))
    bad, words = BAD_BATCHES[name]
    with pytest.raises(InvalidBatch, match=words):
        streams.runner.decode(bad)
    assert np.array_equal(logits_after(streams, [5, 6, 7]), expected)


def test_decode_more_positions_than_a_slot_has_is_refused(streams: Loaded) -> None:
    n_cells = streams.plan.cells_per_slot
    for start in range(0, n_cells, 64):
        streams.runner.decode(batch([5] * 64, run(1, start, 64)))
    with pytest.raises(InvalidBatch, match=f"only {n_cells} cells"):
        streams.runner.decode(batch([5], run(1, n_cells, 1)))


def test_logits_of_a_row_without_output_are_refused(streams: Loaded) -> None:
    streams.runner.decode(batch([5, 6], run(0, 0, 2)))
    with pytest.raises(IndexError, match="row 0"):
        streams.runner.logits(0)


def test_logits_are_a_read_only_view(streams: Loaded) -> None:
    streams.runner.decode(batch([5], run(0, 0, 1)))
    row = streams.runner.logits(0)
    assert row.shape == (streams.vocab.n_vocab,)
    with pytest.raises(ValueError, match="read-only"):
        row[0] = 1.0


def test_truncate_then_decode_again_gives_the_same_logits(streams: Loaded) -> None:
    expected = logits_after(streams, [5, 6, 7, 8])
    assert streams.runner.truncate(SlotId(0), 2)
    assert np.allclose(logits_after(streams, [7, 8], start=2), expected, atol=1e-3)


def test_copy_of_a_whole_stream_continues_like_its_source(streams: Loaded) -> None:
    expected = logits_after(streams, [5, 6, 7, 8])
    streams.runner.truncate(SlotId(0), 3)
    streams.runner.copy(SlotId(0), SlotId(2), 3)
    assert np.allclose(logits_after(streams, [8], slot=2, start=3), expected, atol=1e-3)


def test_copy_of_a_part_of_a_stream_continues_like_its_source(streams: Loaded) -> None:
    """llama.cpp's own function would end the process on this."""
    logits_after(streams, [5, 6, 7])
    assert streams.runner.copy(SlotId(0), SlotId(1), 2)
    assert streams.runner.length(SlotId(1)) == 2
    assert np.array_equal(
        logits_after(streams, [9], slot=1, start=2), logits_of_two_and(streams, 9)
    )


def logits_of_two_and(loaded: Loaded, last: int) -> Logits:
    """The same chunks in a slot that was never copied to."""
    loaded.runner.decode(batch([5, 6, 7], run(3, 0, 3)))
    assert loaded.runner.truncate(SlotId(3), 2)
    return logits_after(loaded, [last], slot=3, start=2)


def test_copy_of_a_part_in_the_unified_layout_continues_like_its_source(unified: Loaded) -> None:
    logits_after(unified, [5, 6, 7])
    expected = logits_after(unified, [5, 6, 9], slot=3)
    unified.runner.copy(SlotId(0), SlotId(1), 2)
    assert np.allclose(logits_after(unified, [9], slot=1, start=2), expected, atol=1e-3)


def test_copy_onto_a_used_slot_or_of_missing_cells_is_refused(unified: Loaded) -> None:
    logits_after(unified, [5, 6])
    logits_after(unified, [5], slot=1)
    with pytest.raises(ValueError, match="not empty"):
        unified.runner.copy(SlotId(0), SlotId(1), 1)
    with pytest.raises(ValueError, match="has 2 positions"):
        unified.runner.copy(SlotId(0), SlotId(2), 3)


def test_decode_without_cells_raises_and_keeps_what_was_there(load: Load) -> None:
    """The engine reserves cells and never comes here; llama.cpp's code 1 is mapped all the same."""
    with load(kv_layout="unified", max_batch_size=2, max_batch_total_tokens=512) as loaded:
        for start in range(0, 400, 100):
            loaded.runner.decode(batch([5] * 100, run(0, start, 100)))
        expected = logits_after(loaded, [6], start=400)
        loaded.runner.truncate(SlotId(0), 400)
        loaded.runner.decode(batch([7] * 100, run(1, 0, 100)))
        with pytest.raises(OutOfCells, match="returned 1"):
            loaded.runner.decode(batch([7] * 100, run(1, 100, 100)))
        assert np.allclose(logits_after(loaded, [6], start=400), expected, atol=1e-3)
        loaded.runner.decode(batch([7], run(1, 100, 1)))


def test_abort_ends_decodes_and_what_they_added_can_be_cut(load: Load) -> None:
    with load() as loaded:
        loaded.runner.decode(batch([5, 6], run(0, 0, 2)))
        loaded.runner.abort()
        with pytest.raises(DecodeAborted, match="returned 2"):
            loaded.runner.decode(batch([7], run(0, 2, 1)))
        assert loaded.runner.truncate(SlotId(0), 2)


OPTIONS: list[tuple[dict[str, object], dict[str, object]]] = [
    ({"n_threads": 1, "n_threads_batch": 2}, {"n_threads": 1, "n_threads_batch": 2}),
    ({"type_k": "q8_0", "type_v": "q8_0"}, {"type_k": "q8_0", "type_v": "q8_0"}),
    ({"type_k": "f32", "type_v": "bf16"}, {"type_k": "f32", "type_v": "bf16"}),
    ({"flash_attention": False}, {"flash_attention": "disabled"}),
    ({"flash_attention": True}, {"flash_attention": "enabled"}),
    ({"kv_layout": "unified"}, {"kv_layout": "unified"}),
    ({"kv_layout": "streams"}, {"kv_layout": "streams"}),
    ({"use_mmap": False}, {"mmap": False, "mlock": False}),
    ({"use_mmap": True}, {"mmap": True, "mlock": False}),
    ({"max_physical_batch_total_tokens": 96}, {"physical_batch_tokens": 96}),
    ({"max_batch_size": 7}, {"n_slots": 7, "n_cells": 7 * 512}),
    ({"offload_kqv": False}, {"offload_kqv": False, "kv_device": "CPU"}),
    ({"split_mode": "row"}, {"split_mode": "row"}),
    ({"n_gpu_layers": 0}, {"n_gpu_layers": 0, "backend": "cpu"}),
]


@pytest.mark.parametrize(("options", "facts"), OPTIONS, ids=lambda value: str(value))
def test_option_reaches_llama_cpp(
    load: Load, options: dict[str, object], facts: dict[str, object]
) -> None:
    with load(**options) as loaded:
        description = loaded.runner.description
        assert {name: getattr(description, name) for name in facts} == facts


def test_mlock_is_asked_of_llama_cpp(load: Load) -> None:
    with load(use_mlock=True) as loaded:
        assert loaded.model.load_mode == "mmap+mlock"
    with load(use_mlock=True, use_mmap=False) as loaded:
        assert loaded.model.load_mode == "mlock"


def test_numa_strategy_is_reported_as_it_is(load: Load) -> None:
    """The library of the tests was started without one."""
    with load(numa="distribute") as loaded:
        assert loaded.runner.description.numa == "disabled"


def test_cache_type_that_llama_cpp_cannot_use_is_refused(load: Load) -> None:
    with pytest.raises(ConfigError, match=r"--type-k: .* not q2_k"), load(type_k="q2_k"):
        pass


def test_context_that_llama_cpp_refuses_carries_its_reason(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The configuration knows this rule of llama.cpp's, so it must be made to let it pass.
    monkeypatch.setattr("tgi_llama.options.checks._PLAIN_KV_TYPES", frozenset(["q8_0"]))
    with (
        pytest.raises(StartError, match="flash_attn"),
        load(type_v="q8_0", flash_attention=False),
    ):
        pass


def test_truncated_file_is_refused_with_llama_cpps_reason(
    load: Load, gguf: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(gguf.read_bytes()[:-100_000])
    with pytest.raises(ConfigError, match=r"cut\.gguf: .*not within the file bounds"), load(cut):
        pass


def test_damaged_file_is_refused(load: Load, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(range(256)) * 40)
    with pytest.raises(ConfigError, match=r"damaged\.gguf"), load(damaged):
        pass


def test_load_that_is_given_up_raises(native_log: NativeLog, gguf: Path) -> None:
    with pytest.raises(ConfigError):
        Model(gguf, Config(), native_log, lambda _fraction: False)


def test_installed_version_is_the_required_one() -> None:
    check_version(*installed())


def test_other_version_is_refused() -> None:
    with pytest.raises(StartError, match=r"0\.3\.35 is installed"):
        check_version("0.3.35", dict(STRUCT_SIZES))


def test_other_struct_size_is_refused() -> None:
    with pytest.raises(StartError, match="llama_batch has 64 bytes"):
        check_version("0.3.36", STRUCT_SIZES | {"llama_batch": 64})
